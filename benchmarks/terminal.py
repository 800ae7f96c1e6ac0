"""Draws docs/plots/terminal.svg, the picture in the README, from real commands and a real server.

python benchmarks/terminal.py          needs MiniLM, and the default port to be free
"""

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "plots" / "terminal.svg"
WIDTH = 96
COMMANDS = (
    """curl -s http://127.0.0.1:8767/v1/embeddings -H 'Content-Type: application/json' \\
    -d '{"model": "minilm", "input": "The kettle is on."}' | cut -c 1-88""",
    """curl -s http://127.0.0.1:8767/api/embed \\
    -d '{"model": "minilm-f32", "input": "The kettle is on."}' | cut -c 1-88""",
    "emberd ps",
    """curl -s http://127.0.0.1:8767/embed -H 'Content-Type: application/json' \\
    -d '{"texts": ["The kettle is on."], "fingerprint": "0123456789abcdef"}' | fold -s -w 88""",
    "emberd unload",
    "emberd ps",
)


def main() -> None:
    """Run the commands one after another in a terminal of this width, and draw what they print."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    with tempfile.TemporaryDirectory() as home:
        programs = Path(sys.executable).parent
        environment = os.environ | {
            "EMBERD_HOME": home, "PATH": f"{programs}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
        }  # fmt: skip
        server = subprocess.Popen(
            [programs / "emberd", "serve"], env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            if "listens" not in (line := server.stderr.readline()):
                sys.exit(line + server.stderr.read())
            for command in COMMANDS:
                console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
                console.print(Text.from_ansi(output_of(command, environment)))
                console.print()
        finally:
            server.terminate()
            server.wait()
    drawn = console.export_svg(title="emberd", theme=MONOKAI, unique_id="emberd")
    # The fonts that Rich names are on another host, and a picture should load nothing.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    PICTURE.write_text(drawn, encoding="utf-8")


def output_of(command: str, environment: dict[str, str]) -> str:
    """Return what a shell command writes to a terminal (less than the 4 KiB that one holds)."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, WIDTH))
    subprocess.run(  # noqa: S602
        command, shell=True, check=True, env=environment,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    # A command that wrote nothing would leave `read` waiting.
    os.write(theirs, b"\n")
    written = os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    return written.replace("\r\n", "\n").rstrip()


if __name__ == "__main__":
    main()
