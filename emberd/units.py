"""Settings as people write them, parsed and formatted: `4GiB`, `900MB`, `15m`, `1h30m`, `never`.

`Size`, `Duration` and the others annotate dataclass fields; pydantic finds their parser that way,
and code that only reads the dataclass (a worker, at a cold start) does not import pydantic.
"""

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

SIZE_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_REPLICAS = 1024
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def parse_size(value: object) -> int:
    """Return bytes; accepts a number of bytes or text such as `4GiB` or `512 MB`."""
    match = re.fullmatch(rf"({_NUMBER})\s*([a-z]*)", str(value).strip().lower())
    size = float(match[1]) * SIZE_UNITS.get(match[2], math.inf) if match else math.inf
    if isinstance(value, bool) or not math.isfinite(size):
        raise ValueError("is not a size; write, for example, 512MiB or 4GiB")
    return int(size)


def parse_duration(value: object) -> float:
    """Return seconds; accepts a number of seconds, text such as `90s` or `1h30m`, or `never`."""
    text = str(value).strip().lower()
    if text in ("never", "inf"):
        return math.inf
    if re.fullmatch(_NUMBER, text):
        return float(text)
    parts = re.findall(rf"({_NUMBER})\s*(ms|s|m|h|d)", text)
    if isinstance(value, bool) or not parts or re.sub(rf"{_NUMBER}\s*(ms|s|m|h|d)\s*", "", text):
        raise ValueError("is not a duration; write, for example, 90s, 15m, 1h30m or never")
    return sum(float(number) * DURATION_UNITS[unit] for number, unit in parts)


def format_size(size_bytes: float) -> str:
    """Return a size for people: `512 MiB`, `4 GiB`, `90.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024 or unit == "GiB":
            break
        size_bytes /= 1024
    return f"{size_bytes:.1f}".removesuffix(".0") + f" {unit}"


def format_plain(text: object) -> str:
    """Return a text that others wrote, on one line and without what a terminal would obey."""
    return "".join(filter(str.isprintable, str(text)))


def format_exact_size(size_bytes: int) -> str:
    """Return a size for YAML, in the largest unit that divides it: `4GiB`, `1500000`."""
    for unit, unit_bytes in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes}{unit}"
    return str(size_bytes)


def format_duration(seconds: float) -> str:
    """Return a duration for people and for YAML, exact: `15m`, `1h30m`, `0.5s`, `never`."""
    if math.isinf(seconds):
        return "never"
    if seconds < 60 or seconds != int(seconds):
        return f"{seconds}".removesuffix(".0") + "s"
    parts = []
    rest = int(seconds)
    for unit, unit_s in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, unit_s)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


class _Parsed:
    """Field marker: pydantic runs `parse` before it checks the type."""

    def __init__(self, parse: Any) -> None:  # noqa: ANN401 - any callable of one argument
        self.parse = parse

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.parse, handler(source))


class _Bound:
    """Field marker: pydantic checks a bound of its own, by the name it has in a core schema.

    `annotated_types` has the same for any validator, but takes a cold start 5 ms to import.
    """

    def __init__(self, name: str, value: int) -> None:
        self.name = name
        self.value = value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401
        schema = handler(source)
        innermost = schema
        while "schema" in innermost:  # what is parsed before its type is checked
            innermost = innermost["schema"]
        innermost[self.name] = self.value
        return schema


class AtMost:
    """Field marker: a larger size is refused, with a message that uses units."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, size_bytes: int) -> int:
        if size_bytes > self.most_bytes:
            raise ValueError(f"should be at most {format_exact_size(self.most_bytes)}")
        return size_bytes


class ZeroOrAtLeast:
    """Field marker: a smaller size that is not 0 is refused, with a message that uses units."""

    def __init__(self, least_bytes: int) -> None:
        self.least_bytes = least_bytes

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:  # noqa: ANN401
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, size_bytes: int) -> int:
        if 0 < size_bytes < self.least_bytes:
            raise ValueError(f"should be 0, or at least {format_exact_size(self.least_bytes)}")
        return size_bytes


def parse_count(value: object) -> object:
    """Refuse YAML's `yes` and `no`, which Python treats as 1 and 0; leave the rest to the type."""
    if isinstance(value, bool):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic turns ValueErrors into its own
    return value


def format_places(places: Iterable[int]) -> str:
    """Format ascending numbers compactly, with ranges: `0-2,5`."""
    ranges: list[list[int]] = []
    for place in places:
        if ranges and place == ranges[-1][-1] + 1:
            ranges[-1][1:] = [place]
        else:
            ranges.append([place])
    return ",".join("-".join(map(str, each)) for each in ranges)


def parse_places(text: str) -> tuple[int, ...]:
    """Parse the output of `format_places`.

    Raises:
        ValueError: the text is anything else.
    """
    ends = [tuple(map(int, part.split("-"))) for part in text.split(",") if part]
    return tuple(place for each in ends for place in range(each[0], each[-1] + 1))


def parse_port(value: object) -> object:
    """Return None for `off`, which YAML reads as False."""
    return None if value is False or str(value).lower() == "off" else parse_count(value)


def parse_replicas(value: object) -> object:
    """Return `auto`, or how many; environment variables have numbers as text."""
    count = int(value) if isinstance(value, str) and value.isdecimal() else value
    if count == "auto" or (type(count) is int and 1 <= count <= MOST_REPLICAS):
        return count
    raise ValueError(f"should be auto, or a whole number from 1 to {MOST_REPLICAS}")


def parse_host(value: object) -> object:
    """Return an address to listen on; `[::1]`, as in a URL, means `::1`."""
    if not isinstance(value, str):
        return value
    if value.startswith("[") and value.endswith("]"):
        return value[1:-1]
    return "localhost" if value.lower() in ("localhost", "localhost.") else value


def parse_origin(value: object) -> object:
    """Refuse what no browser sends as an Origin: `*`, a bare name, an address with a path."""
    if not isinstance(value, str):
        return value
    scheme, separator, place = value.strip().partition("://")
    if not (scheme and separator) or "/" in place.rstrip("/") or "*" in value:
        raise ValueError("is not an origin; write, for example, http://localhost:3000")
    return value.strip()


def parse_path(value: object) -> object:
    """Return a path with `~` expanded; refuse one that depends on the working directory."""
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("contains a NUL character")
    path = Path(value)
    with suppress(RuntimeError):  # an unknown user
        path = path.expanduser()
    if not path.is_absolute():
        raise ValueError("is not an absolute path; begin it with / or ~/")
    return str(path)


Ge = partial(_Bound, "ge")
Gt = partial(_Bound, "gt")
Le = partial(_Bound, "le")
MinLen = partial(_Bound, "min_length")
Port = _Parsed(parse_port)
ReplicaCount = _Parsed(parse_replicas)
Host = _Parsed(parse_host)
Origin = _Parsed(parse_origin)
PathText = _Parsed(parse_path)
Count = _Parsed(parse_count)
Size = _Parsed(parse_size)
Duration = _Parsed(parse_duration)
