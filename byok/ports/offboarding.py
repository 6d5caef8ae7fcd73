"""What the services need of PostgreSQL when a tenant leaves."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from byok.core.model import Key
from byok.core.offboarding import Offboarding, OffboardingEvent, Signed
from byok.core.reencryption import Campaign


class Offboardings(Protocol):
    """The offboardings table."""

    def add(self, offboarding: Offboarding) -> None:
        """Raises LostRace: the tenant leaves already."""

    def find(self, tenant_id: UUID) -> Offboarding | None:
        """A tenant's way out, unless it was cancelled."""

    def lock(self, offboarding_id: UUID) -> Offboarding:
        """The row, locked until the transaction ends."""

    def transition(
        self,
        offboarding: Offboarding,
        event: OffboardingEvent,
        at: datetime,
        *,
        certificate: Signed | None = None,
    ) -> Offboarding:
        """Compare and swap. Raises IllegalTransition; LostRace: it is not what it was."""

    def set_access_statement(self, offboarding: Offboarding, statement: Signed) -> None:
        """Keep the latest statement of whether the customer has shut us out."""

    def list_due(self, now: datetime, limit: int) -> Sequence[Offboarding]:
        """Those with something to do, whose day has come; which of them, is chance."""


class Remains(Protocol):
    """What is left of a tenant in all tables that hold wrapped keys, or work that is not done."""

    def count_wrapped_keys(self, tenant_id: UUID) -> int:
        """How many wrapped keys there are, in whatever table and state."""

    def list_keys(self, tenant_id: UUID, limit: int) -> Sequence[UUID]:
        """Some keys with a wrapped key, an open rotation or a registered table."""

    def is_left(self, key: Key) -> bool:
        """Whether `list_keys` would have this key still."""

    def count_keys(self, tenant_id: UUID) -> int:
        """How many keys `list_keys` would have without a limit."""

    def lock_open_campaigns(self, key_id: UUID) -> Sequence[Campaign]:
        """A key's campaigns that are under way or paused, locked until the transaction ends."""

    def retire_key(self, key_id: UUID) -> None:
        """Let a key rest on no version for its blind indexes, and never be due again."""

    def forget(self, tenant_id: UUID) -> Mapping[str, int]:
        """Delete what may be personal or secret and is no evidence: the webhook's URL and messages,
        idempotency keys, primary keys of the application's rows. How many of each."""
