"""A rotation in a worker's hands."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from byok.core.model import Key, KeyVersion, Rotation, Tenant
from byok.logs import LogScope
from byok.services.validation import Validated


@dataclass(slots=True)
class Work:
    """A rotation in hand. ``error``: why this attempt came to nothing; ``is_lost``: another worker is ahead.

    ``versions``: the key's active version and those after it, as last read. ``lines``: the scope of log lines
    about this rotation, of many in one thread.
    """

    tenant: Tenant
    key: Key
    rotation: Rotation
    versions: Sequence[KeyVersion] = ()
    pending: KeyVersion | None = None
    validated: Validated | None = None
    error: Exception | None = None
    is_lost: bool = False
    lines: LogScope = field(init=False)

    def __post_init__(self) -> None:
        self.lines = LogScope(**self.names)

    @property
    def names(self) -> dict[str, str]:
        """What log lines and spans call it."""
        return {"rotation_id": str(self.rotation.id), "tenant": self.tenant.name, "key": self.key.name}

    @property
    def is_going_on(self) -> bool:
        """Whether there is a next step."""
        return self.error is None and not self.is_lost
