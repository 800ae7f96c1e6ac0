"""Drives clients too heavy for the test environment (LangChain, LlamaIndex, LiteLLM and Voyage).

    python -m tests.clients.apart

It makes an environment in build/, starts servers, runs `apart_embed.py` and `apart_rerank.py` there
and notes in `apart.json` which client got through; `scripts/client-table --apart` puts that into
the docs.
"""

import json
import subprocess
import sys
import tempfile
import venv
from contextlib import ExitStack
from pathlib import Path

from tests import rerankers
from tests.clients.conftest import CONFIG
from tests.serving import Server

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent.parent / "build" / "apart"
EMBED, RERANK = "apart_embed.py", "apart_rerank.py"
CONFIGS = {EMBED: CONFIG, RERANK: rerankers.CONFIG}
PINNED = {
    "langchain-openai": ("OpenAI", "1.7.3", [EMBED]),
    "langchain-ollama": ("Ollama", "1.1.0", [EMBED]),
    "langchain-cohere": ("Cohere", "0.6.0", [EMBED, RERANK]),
    "langchain-community": ("Jina (re-ranking)", "0.4.2", [RERANK]),
    "langchain-huggingface": ("TEI", "1.2.3", [EMBED]),
    "litellm": ("OpenAI, Ollama, Cohere, Jina, infinity, TEI", "1.110.2", [EMBED, RERANK]),
    "llama-index-postprocessor-cohere-rerank": ("Cohere (re-ranking)", "0.10.0", [RERANK]),
    "llama-index-postprocessor-jinaai-rerank": ("Jina (re-ranking)", "0.6.0", [RERANK]),
    "llama-index-postprocessor-tei-rerank": ("TEI (re-ranking)", "0.6.0", [RERANK]),
    "voyageai": ("Voyage", "0.5.0", [EMBED]),
}


def main() -> int:
    """Return 0 when all got through."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    packages = [f"{name}=={version}" for name, (_, version, _) in PINNED.items()]
    packages.append("numpy")  # huggingface_hub asks for it only when it is used
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    noted = []
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        urls = {
            script: stack.enter_context(Server(Path(home, script), config=config)).url
            for script, config in CONFIGS.items()
        }
        for name, (dialect, version, scripts) in PINNED.items():
            commands = [[str(python), str(HERE / each), name, urls[each]] for each in scripts]
            ended = [subprocess.run(each, cwd=home, check=False).returncode for each in commands]
            client = {"dialect": dialect, "name": name, "version": version}
            result = "fails" if any(ended) else "works"
            noted.append({"client": client, "result": f"{result} (run apart)"})
            print(name, version, result)  # noqa: T201 - it is a script
    (HERE / "apart.json").write_text(json.dumps(noted, indent=2) + "\n")
    return any("fails" in row["result"] for row in noted)


if __name__ == "__main__":
    sys.exit(main())
