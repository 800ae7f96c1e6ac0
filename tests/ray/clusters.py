"""A cluster as tests see it: told what to do, and asked over HTTP."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil
import yaml

from tests.serving import clean_environ, run_emberd, wait_for

SLOW_MACHINE = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "60",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
}
END_S = 300.0


class Cluster:
    """Nodes of these names on this machine, with one home; a context manager.

    See `tests.ray.driver`. With "--dashboard", there is one.
    """

    def __init__(
        self, home: Path, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.environ = {
            **clean_environ(home),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-the-tests",
            **SLOW_MACHINE,
            **(environ or {}),
        }
        self._log = (home / "driver.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray.driver", *arguments],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        try:
            assert self._read() == "ready"
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        for each in self._left_behind():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._log.close()

    def _left_behind(self) -> Iterator[psutil.Process]:
        """Yield what Ray did not end; if the driver died, that is all of it."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("EMBERD_HOME") == str(self.home):
                    yield process

    def __call__(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Have the driver do something, and return what came of it."""
        assert self._process.stdin
        print(json.dumps([method, *arguments]), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, (self.home / "driver.log").read_text()[-4000:]
        return json.loads(line)

    def running(self, deployment: str) -> int:
        """Return how many replicas of a deployment run."""
        found: int = self("status")["replicas"].get(deployment, {}).get("RUNNING", 0)
        return found


class Served:
    """An application on a cluster: emberd's configuration as `emberd ray config` writes it.

    A context manager, for its connections.
    """

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.cluster = cluster
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(base_url=self.url, timeout=120, trust_env=False)
        self._port = port
        self.home = cluster.home
        self.config = ""  # the usual one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def deploy(
        self,
        config: str,
        *arguments: str,
        change: Mapping[str, Mapping[str, Any]] | None = None,
        proxy_location: str = "EveryNode",
        server: str = "",
        printed: str = "once",
        environ: Mapping[str, str] | None = None,
        settled: bool = True,
    ) -> dict[str, Any]:
        """Deploy a config file; `change` has other options for some deployments.

        `server` is added to what it says about the server, as YAML. With the same `printed`, it is
        a file that was printed once and then changed. `environ` is for the command that prints it.

        Unless it shall be `settled`, it returns before the replicas are what it says.
        """
        (self.home / "config.yaml").write_text(f"server: {{port: {self._port}{server}}}\n{config}")
        here = {**clean_environ(self.home), **(environ or {})}
        done = run_emberd("ray", "config", *arguments, home=self.home, environ=here)
        assert done.returncode == 0, done.stderr
        document = yaml.safe_load(done.stdout) | {"proxy_location": proxy_location}
        document["applications"][0]["args"]["printed"] = printed
        for each in document["applications"][0]["deployments"]:
            each.update((change or {}).get(each["name"], {}))
        file = self.home / "serve.yaml"
        file.write_text(yaml.safe_dump(document))
        said: dict[str, Any] = self.cluster("deploy", str(file), settled)
        if said["state"] == "RUNNING":
            wait_for(self._answers, within_s=END_S)
        return said

    def _answers(self) -> bool:
        try:
            return self.http.get("/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def embed(self, *texts: str, **options: object) -> dict[str, Any]:
        """POST /embed and return the answer, which has to be a good one."""
        response = self.http.post("/embed", json={"texts": texts, **options})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def row(self, name: str = "minilm") -> dict[str, Any]:
        """Return one row of /models."""
        rows = self.http.get("/models").json()["models"]
        return next(row for row in rows if row["name"] == name)
