"""How hard the tests try: as hard as they say, or less in `scripts/test` without `--all`.

Hypothesis's profile says which: "whole", unless another is named. `scripts/test` names "short".
"""

from typing import Any

from hypothesis import HealthCheck, settings

SHARE = 10  # of the examples, in the short run

# A machine that stalls for a second is no fault of what is tested.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("whole", **PATIENT)
settings.load_profile("whole")
# 100: where a test names no number
settings.register_profile("short", max_examples=100 // SHARE, **PATIENT)


def examples(many: int) -> int:
    """Return how many examples a test that wants `many` tries in this run."""
    short = settings.get_current_profile_name() == "short"
    return max(3, many // SHARE) if short else many
