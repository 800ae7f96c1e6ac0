"""Bearer tokens: from a file that only we can read, and from the environment.

They are not settings: nothing that shows or compares settings ever contains one.
"""

import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from emberd.errors import ConfigError
from emberd.files import read_owned

MOST_BYTES = 2**20
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what may follow `Bearer`: RFC 6750, section 2.1


def read_token_file(path: Path) -> tuple[str, ...]:
    """Return the tokens of a file, one per line, without empty lines and `#` comments.

    Raises:
        ConfigError: it cannot be read, is not ours, is readable by others, or has no token or
            an invalid one. No message contains a token.
    """
    quoted = shlex.quote(str(path))
    try:
        content, status = read_owned(path, MOST_BYTES)
        text = content.decode()
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise ConfigError(
            f"server.token_file: {path}: {reason}.",
            hint=f"Create one: (umask 077; openssl rand -hex 32 > {quoted})"
            if isinstance(error, FileNotFoundError)
            else f"It must be a file that belongs to you; see `ls -ld {quoted}`.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"server.token_file: {path} is not UTF-8.") from None
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"server.token_file: {path} can be read by others, or does not belong to you.",
            hint=f"Become its owner and run `chmod 600 {quoted}`."
            " If others may have seen it, create new tokens.",
        )
    lines = [line.strip() for line in text.splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise ConfigError(
            f"server.token_file: {path} contains no token.", hint="Write one per line."
        )
    for number, line in enumerate(lines, start=1):
        if line in tokens:
            check_token(line, f"server.token_file: {path}:{number}")
    return tokens


def token_of_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return `$EMBERD_TOKEN`. Raises ConfigError: it is not a token."""
    token = environ.get("EMBERD_TOKEN", "").strip()
    if token:
        check_token(token, "$EMBERD_TOKEN")
    return token or None


def check_token(token: str, where: str) -> None:
    """Raise ConfigError for what a header cannot carry; the message does not quote it."""
    if not TOKEN.fullmatch(token):
        raise ConfigError(
            f"{where}: this is not a token.",
            hint="Use letters, digits and . _ ~ + / = - without spaces.",
        )
