"""The peers' environments and files, made once in `.cache/benchmarks`, which git ignores.

An environment is made again when its pins or Python change; the files, when the texts or the code
that makes them change.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache" / "benchmarks"
MAX_TOKENS = 512
_VERSIONS = (
    "import json, sys; from importlib.metadata import version;"
    " print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


def make(name: str) -> Path:
    """Return the Python of the environment that `requirements-NAME.txt` describes.

    Raises:
        subprocess.CalledProcessError: pip could not install it, and printed why.
    """
    requirements = HERE / f"requirements-{name}.txt"
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / "made-of"
    wanted = f"Python {platform.python_version()}\n{requirements.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making {folder.relative_to(HERE.parent)} (once; takes a few minutes)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    stamp.write_text(wanted)
    return python


def versions(name: str, packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages in an environment."""
    python = CACHE / name / "bin" / "python"
    ran = subprocess.run([python, "-c", _VERSIONS, *packages], check=True, capture_output=True)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


class MissingError(Exception):
    """A peer is not here; the message says why."""


def find(
    name: str, packages: Sequence[str], *, needs: str, here: bool, environment: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Return a Python that can run `needs`, and the versions of these packages in it.

    That is this Python or, unless only `here` counts, one of the peer's own that is made if need
    be.

    Raises:
        MissingError: there is none.
    """
    why = ""
    for own in (False,) if here else (False, True):
        try:
            python = str(make(name)) if own else sys.executable
            command = [python, "-c", f"{needs}\n{_VERSIONS}", *packages]
            ran = subprocess.run(command, check=True, capture_output=True, env=environment)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or b"it could not be installed").decode().strip()
            why = said.splitlines()[-1]
            continue
        found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
        return python, found
    raise MissingError(why)


class Files:
    """The model in the formats of all peers, and reference vectors of some texts."""

    def __init__(self, model: Path, texts: Sequence[str]) -> None:
        """Create whatever is missing."""
        maker = HERE / "peer_code" / "prepare_model.py"
        pins = HERE / "requirements-sentence-transformers.txt"
        makers = [maker, maker.with_name("to_gguf.py"), pins]
        made_of = hashlib.sha256(
            b"".join(file.read_bytes() for file in makers) + json.dumps(list(texts)).encode()
        )
        self.folder = CACHE / "files" / made_of.hexdigest()[:16]
        if not (self.folder / "done").is_file():
            self._make(maker, model, texts)

    @property
    def safetensors(self) -> Path:
        """The checkpoint, with a limit of 512 tokens."""
        return self.folder / "safetensors"

    @property
    def onnx(self) -> Path:
        """A folder with model.onnx."""
        return self.folder / "onnx"

    @property
    def gguf(self) -> Path:
        """The file for llama.cpp."""
        return self.folder / "model.gguf"

    @property
    def reference(self) -> list[list[float]]:
        """The unit vectors of the texts, in float32 by sentence-transformers."""
        found: list[list[float]] = json.loads((self.folder / "reference.json").read_text())
        return found

    def _make(self, maker: Path, model: Path, texts: Sequence[str]) -> None:
        print("making the peers' model files", flush=True)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shutil.copytree(model, self.safetensors, copy_function=_link)
        limit = self.safetensors / "sentence_bert_config.json"
        stated = json.loads(limit.read_text())
        limit.unlink()
        limit.write_text(json.dumps(stated | {"max_seq_length": MAX_TOKENS}))
        asked = self.folder / "texts.json"
        asked.write_text(json.dumps(list(texts)))
        command = [make("sentence-transformers"), maker, self.safetensors, self.folder, asked]
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        if done.returncode:
            sys.exit(f"the peers' files could not be made:\n{done.stderr.decode()[-3000:]}")
        (self.folder / "done").touch()


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)
