"""An audit log as a file that can be checked without byok: JSON Lines, each of them canonical JSON."""

from collections.abc import Callable, Iterator
from datetime import UTC

import rfc8785

from byok.core.audit import AuditChain, exported_event, place_of
from byok.crypto.checkpoints import document_of
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import sign_report
from byok.errors import AuditChainBroken
from byok.ports import Clock
from byok.services.auditing import Auditor, Signers

KIND = "audit-export"


class AuditExporter:
    """Exports what it verifies on the way; it never holds more than a page of events."""

    def __init__(self, auditor: Auditor, master_keys: MasterKeyRing, clock: Clock) -> None:
        self._auditor = auditor
        self._master_keys = master_keys
        self._clock = clock

    def lines(self, chain: AuditChain, on_page: Callable[[int], None]) -> Iterator[bytes]:
        """The lines of an export: a signed header, then the events as they were when ``chain`` was read, each
        followed by the checkpoints of it. ``on_page`` is told how many more events were read.

        Raises:
            AuditChainBroken: under way; what has come until then is no export.
        """
        yield self._header(chain)
        signers = Signers(self._master_keys)
        for event, checkpoints in self._auditor.compared(chain, signers, on_page):
            if event.sequence > chain.length:
                continue  # added meanwhile
            yield exported_event(event) + b"\n"
            for signed in checkpoints:
                yield rfc8785.dumps(document_of(signed)) + b"\n"
            if event.sequence == chain.length and place_of(event) != chain.head:
                raise AuditChainBroken(
                    f"event {event.sequence} is not the one that the head of the chain named"
                )

    def _header(self, chain: AuditChain) -> bytes:
        """Signed, so that nobody cuts the end of an export off and counts anew."""
        report = {
            "checkpoints": chain.checkpoints,
            "events": chain.length,
            "exported_at": self._clock.now().astimezone(UTC).isoformat(timespec="seconds"),
            "hash": chain.head.hash.hex(),
            "master_key_id": self._master_keys.primary_id,
            "tenant": chain.tenant,
            "tenant_id": str(chain.tenant_id),
        }
        return rfc8785.dumps(sign_report(self._master_keys, KIND, report)) + b"\n"
