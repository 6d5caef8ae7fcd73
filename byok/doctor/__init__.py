"""``byok doctor``: whether this installation is set up as it must be, each finding with its remedy."""

from byok.doctor.examination import examine
from byok.doctor.result import Result

__all__ = ["Result", "examine"]
