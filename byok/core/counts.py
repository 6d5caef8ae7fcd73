"""Counts that cost the same however much there is to count. Pure."""

from dataclasses import dataclass
from enum import StrEnum

# Beyond this many nobody asks for the exact number.
COUNTED = 10_000


class Precision(StrEnum):
    """What a count's number says."""

    EXACT = "exact"
    ABOUT = "about"  # by the statistics that PostgreSQL keeps
    AT_LEAST = "at-least"  # counting stopped there


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are, as far as it was worth counting."""

    number: int
    precision: Precision = Precision.EXACT

    @classmethod
    def of_seen(cls, seen: int) -> "Count":
        """Of ``seen`` rows, where no more than one beyond `COUNTED` were read."""
        return cls(COUNTED, Precision.AT_LEAST) if seen > COUNTED else cls(seen)

    def __str__(self) -> str:
        match self.precision:
            case Precision.ABOUT:
                return f"about {self.number}"
            case Precision.AT_LEAST:
                return f"{self.number}+"
            case _:
                return str(self.number)
