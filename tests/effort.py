"""How hard the tests try: as hard as they say, or less in `scripts/test` without `--all`.

Hypothesis's profile says which; `scripts/test` names "short".
"""

from hypothesis import settings

SHARE = 10  # of the examples, in the short run

settings.register_profile("short", max_examples=100 // SHARE)  # 100: where a test names no number


def examples(many: int) -> int:
    """Return how many examples a test that wants `many` tries in this run."""
    short = settings.get_current_profile_name() == "short"
    return max(3, many // SHARE) if short else many
