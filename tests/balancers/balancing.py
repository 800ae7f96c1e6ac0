"""nginx and HAProxy as they come from Debian, with the configurations that the examples show."""

import csv
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx2
import psutil

from tests.ports import free_port
from tests.serving import wait_for

ROOT = Path(__file__).parents[2]
SHOWN = {
    "nginx": ROOT / "examples" / "nginx" / "nginx.conf",
    "haproxy": ROOT / "examples" / "haproxy" / "haproxy.cfg",
}
LISTENS = "127.0.0.1:8760"
SERVERS = ("127.0.0.1:8767", "127.0.0.1:8768")
SPACE = "7534d143b852830b"
MODEL = "model=minilm"
TELLS = "global\n    stats socket ipv4@127.0.0.1:{port}\n"  # what HAProxy knows of its servers


def installed() -> dict[str, str]:
    """Return where the two are; `scripts/balancers` installs them if it can."""
    done = subprocess.run([ROOT / "scripts" / "balancers"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(SHOWN, done.stdout.split(), strict=True))


class Balancer:
    """One of them in front of servers on these ports; a context manager.

    The file is the example's, with other ports, model and space in it, and nothing else.
    """

    def __init__(
        self, kind: str, folder: Path, ports: Sequence[int], *, model: str, space: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        text = SHOWN[kind].read_text()
        for shown, real in [
            (LISTENS, f"127.0.0.1:{port}"),
            *((each, f"127.0.0.1:{real}") for each, real in zip(SERVERS, ports, strict=True)),
        ]:
            assert text.count(shown) == 1, shown
            text = text.replace(shown, real)
        assert SPACE in text
        text = text.replace(SPACE, space).replace(MODEL, f"model={model}")
        config = folder / SHOWN[kind].name
        config.write_text(text)
        program = installed()[kind]
        self._tells = free_port()
        tells = folder / "tells.cfg"
        tells.write_text(TELLS.format(port=self._tells))
        arguments = {
            "nginx": ["-p", str(folder), "-c", str(config), "-g", "daemon off;"],
            "haproxy": ["-db", "-f", str(config), "-f", str(tells)],
        }[kind]
        self._log = (folder / "log").open("ab")
        self._process = subprocess.Popen(
            [program, *arguments], stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)
        self._checks = kind == "haproxy"
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            self.http.get("/ready")
        except httpx2.TransportError:
            return False
        return True

    def wait_for_checks(self, ready: int) -> None:
        """Wait until HAProxy has found so many servers ready, from the first on.

        Before, one failed check is enough to leave a server out, and standing still fails one.
        """
        if self._checks:
            wait_for(lambda: self._states()[:ready] == ["UP"] * ready)

    def _states(self) -> list[str]:
        """Return what HAProxy calls its servers; "UP 1/2" is down after the next failed check."""
        with socket.create_connection(("127.0.0.1", self._tells)) as link:
            link.sendall(b"show stat -1 4 -1\n")
            rows = csv.DictReader(link.makefile())
            return [row["status"] for row in rows if row["svname"]]

    def embed(self, *texts: str, **headers: str) -> httpx2.Response:
        """Embed texts as a client of OpenAI would, which knows nothing of spaces."""
        named = {re.sub("_", "-", key): value for key, value in headers.items()}
        return self.http.post(
            "/v1/embeddings", json={"input": list(texts), "model": "tiny"}, headers=named
        )

    @contextmanager
    def stands_still(self) -> Iterator[None]:
        """Have it notice all that happens meanwhile at once, afterwards."""
        processes = [psutil.Process(self._process.pid)]
        processes += processes[0].children(recursive=True)
        for each in processes:
            each.suspend()
        try:
            yield
        finally:
            for each in processes:
                each.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
