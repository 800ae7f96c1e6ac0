"""Drives clients that are too heavy for the test environment, LangChain's and LiteLLM, apart.

    python -m tests.clients.apart

It makes an environment in build/, starts a server, runs `apart_script.py` there and notes in
`apart.json` which client got through; `scripts/client-table --apart` puts that into the docs.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.clients.conftest import CONFIG
from tests.serving import Server

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent.parent / "build" / "apart"
PINNED = {
    "langchain-openai": ("OpenAI", "1.7.3"),
    "langchain-ollama": ("Ollama", "1.1.0"),
    "langchain-cohere": ("Cohere", "0.6.0"),
    "langchain-huggingface": ("TEI", "1.2.3"),
    "litellm": ("OpenAI, Ollama, Cohere", "1.110.2"),
}


def main() -> int:
    """Return 0 when all got through."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    packages = [f"{name}=={version}" for name, (_, version) in PINNED.items()]
    packages.append("numpy")  # huggingface_hub asks for it only when it is used
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    noted = []
    with tempfile.TemporaryDirectory() as home, Server(Path(home), config=CONFIG) as server:
        for name, (dialect, version) in PINNED.items():
            script = [str(python), str(HERE / "apart_script.py"), name, server.url]
            done = subprocess.run(script, cwd=home, check=False)
            client = {"dialect": dialect, "name": name, "version": version}
            result = "works" if done.returncode == 0 else "fails"
            noted.append({"client": client, "result": f"{result} (run apart)"})
            print(name, version, result)  # noqa: T201 - it is a script
    (HERE / "apart.json").write_text(json.dumps(noted, indent=2) + "\n")
    return any("fails" in row["result"] for row in noted)


if __name__ == "__main__":
    sys.exit(main())
