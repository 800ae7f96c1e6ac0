"""How hard everything is tried: `EMBERD_FUZZ_CASES` for each target, and how many there were.

Without it there are few (see `tests.effort`), always the same, so that a failure is the change's.
With it they are new each time, and a failure prints the blob that repeats it.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.effort import examples

STATED = os.environ.get("EMBERD_FUZZ_CASES")
CASES = int(STATED or 100)
RAN: Counter[str] = Counter()
ANSWERS: Counter[int] = Counter()
"""Cases by target, and HTTP's answers by status, for the summary at the end."""

Test = Callable[..., None]
Damage = Callable[[bytes], bytes]


def fuzz(*strategies: st.SearchStrategy[Any], one_in: int = 1) -> Callable[[Test], Test]:
    """Run a test with many cases of these, or `one_in` of so many; fixtures come first."""

    def wrap(test: Test) -> Test:
        name = f"{test.__module__.rpartition('.')[2]}: {test.__name__.removeprefix('test_')}"

        @wraps(test)
        def counted(*args: object, **kwargs: object) -> None:
            RAN[name] += 1
            test(*args, **kwargs)

        often = settings(
            max_examples=examples(max(3, CASES // one_in)),
            deadline=None,
            derandomize=STATED is None,
            print_blob=True,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.function_scoped_fixture,  # one server for all cases is meant
            ],
        )
        return often(given(*strategies)(counted))

    return wrap


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Return a function that damages the content of a file or message."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "number"]))
    place = draw(st.floats(0, 1))
    junk = draw(st.binary(min_size=1, max_size=12))
    number = draw(st.sampled_from([0, 1, -1, 2**31, 2**62, -(2**63), 10**30]))

    def damage(content: bytes) -> bytes:
        at = int(place * max(0, len(content) - 1))
        match kind:
            case "flip" if content:
                flipped = content[at] ^ (junk[0] or 1)
                return content[:at] + bytes([flipped]) + content[at + 1 :]
            case "cut":
                return content[:at]
            case "insert":
                return content[:at] + junk + content[at:]
            case "overwrite":
                return content[:at] + junk + content[at + len(junk) :]
            case _:  # the next number becomes another one
                start = next(
                    (i for i in range(at, len(content)) if content[i : i + 1].isdigit()), 0
                )
                end = start
                while content[end : end + 1].isdigit():
                    end += 1
                return content[:start] + str(number).encode() + content[end:]

    return damage


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [10**400, 1e308, -0.0, 2**63, 2**64, "\x00", "a\x00b", "é" * 50, "..", "../x"]
    )
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Whatever `json.dumps` writes, a bit more than JSON: NaN and numbers beyond all size."""


@st.composite
def changed(draw: st.DrawFn, data: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return `data` with one value, anywhere in it, replaced, removed or doubled."""
    if not isinstance(data, dict | list) or not data or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    key: Any = draw(st.sampled_from(keys[:64]))
    copy: Any = data.copy()
    match draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "double"])):
        case "remove":
            del copy[key]
        case "double" if isinstance(data, list):
            copy.insert(key, copy[key])
        case "double":
            copy[draw(st.text(max_size=8))] = copy[key]
        case _:
            copy[key] = draw(changed(data[key]))
    return copy
