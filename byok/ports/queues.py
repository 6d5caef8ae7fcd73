"""What an operator wants to know of the queue."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Queues(Protocol):
    """The broker's queues, and who works on them.

    Every method raises QueueUnavailable.
    """

    def depths(self) -> Mapping[str, int]:
        """How many messages wait in each queue."""

    def workers(self) -> Sequence[str]:
        """The names of the workers that answer."""
