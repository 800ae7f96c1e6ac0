"""What somebody may want to change in a model's entry, and why."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that the model's folder says but its entry does not, or that they say differently.

    Or what another line would give; see `backends.faster`.

    `key` is the entry's key, and `line` is what to write there for the `purpose`.
    """

    key: str
    message: str
    line: str
    purpose: str = "follow the folder"

    def told(self, name: str) -> str:
        """Describe it for the entry `name`, with what to do, in one line."""
        return f"{self.message} To {self.purpose}, write under models.{name}: {self.line}"
