"""What a tenant that has left is given in writing: the shred certificate, and whether it has shut us out."""

import hashlib
from collections.abc import Callable
from typing import Any

import rfc8785

from byok.core.encryption_context import probe_context
from byok.core.model import Connection, Tenant
from byok.core.moves import Sharing, connections_of
from byok.core.offboarding import Offboarding, OffboardingEvent, Signed
from byok.core.shred_certificate import ACCESS_KIND, KIND, access_statement_of, certificate_of
from byok.crypto.keyring import MasterKeyRing
from byok.crypto.reports import sign_report
from byok.errors import KmsAccessRevoked, NotReady
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Kms, Store
from byok.services.lookout import Lookout
from byok.services.shred_proofs import ShredProofs

log = get_logger(__name__)


class Certification:
    """Proves and signs. Each document is stored, and named in the audit log by its SHA-256."""

    def __init__(
        self,
        *,
        store: Store,
        kms: Kms,
        lookout: Lookout,
        proofs: ShredProofs,
        master_keys: MasterKeyRing,
        clock: Clock,
    ) -> None:
        self._store = store
        self._kms = kms
        self._lookout = lookout
        self._proofs = proofs
        self._master_keys = master_keys
        self._clock = clock

    def certify(self, offboarding: Offboarding, actor: str) -> Signed:
        """Prove that nothing of a shredded tenant decrypts, and sign that, unless it is done; of two at once
        the first one's certificate counts.

        Raises:
            ValidationFailed: something still decrypts, or is still there; CacheUnavailable, StoreUnavailable.
        """
        if offboarding.certificate is not None:
            return offboarding.certificate
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(offboarding.tenant_id)
        self._lookout.look(tenant.name, actor=actor)  # closes its findings
        report = certificate_of(self._proofs.gather(offboarding))
        signed = sign_report(self._master_keys, KIND, report)
        now = self._clock.now()
        with self._store.transaction() as tx:
            current = tx.offboardings.lock(offboarding.id)
            if current.certificate is not None:
                return current.certificate
            tx.offboardings.transition(current, OffboardingEvent.CERTIFY, now, certificate=signed)
            tx.audit.append(
                tenant.id, now, actor, "tenant.shred-certified",
                sha256=_digest(signed), passed=str(report["passed"]).lower(),
            )  # fmt: skip
            reached(FailPoint.CERTIFYING)
        log.warning("shred_certified", tenant=tenant.name, passed=report["passed"])
        return signed

    def check_access(self, tenant: Tenant, offboarding: Offboarding, actor: str) -> Signed:
        """Try whether a customer that has left still lets us in, by any connection that it ever had; keep and
        return the signed statement.

        Raises:
            NotReady: it has not left, or had no connection; KmsUnavailable: AWS did not say.
        """
        connection = tenant.connection
        if offboarding.certificate is None or connection is None:
            raise NotReady(
                f"tenant {tenant.name!r} is {tenant.state}: access is tried once it has left, certified",
                remedy=f"byok tenant offboard {tenant.name} --finish",
            )
        with self._store.transaction() as tx:
            connections = connections_of(connection, tx.moves.list(tenant.id))
            tries = [(one, tx.moves.find_sharing(one)) for one in connections]
        calls = [call for one in tries for call in self._try_access(*one)]
        now = self._clock.now()
        report = access_statement_of(tenant, connection, calls, now)
        signed = sign_report(self._master_keys, ACCESS_KIND, report)
        with self._store.transaction() as tx:
            tx.offboardings.set_access_statement(offboarding, signed)
            tx.audit.append(
                tenant.id, now, actor, "tenant.access-checked",
                shut_out=str(report["shut_out"]).lower(), aws_code=calls[0]["aws_code"],
                request_id=calls[0]["request_id"], sha256=_digest(signed),
            )  # fmt: skip
        return signed

    def _try_access(self, connection: Connection, sharing: Sharing) -> list[dict[str, Any]]:
        context = probe_context(connection.tenant_id)
        use = _tried(
            connection,
            "GenerateDataKeyWithoutPlaintext",
            lambda: self._kms.generate_data_key(connection, context),
        )
        if sharing.kms_key or sharing.role:  # may look still, for another tenant of the customer's
            return [use]
        return [use, _tried(connection, "DescribeKey", lambda: self._kms.describe_key(connection))]


def _tried(connection: Connection, operation: str, call: Callable[[], object]) -> dict[str, Any]:
    """A call that is to be refused, and how it was."""
    named = {"operation": operation, "kms_key_arn": str(connection.kms_key_arn)}
    try:
        call()
    except KmsAccessRevoked as refusal:
        return named | {
            "refused": True,
            "aws_code": refusal.aws_code,
            "request_id": refusal.request_id,
        }
    return named | {"refused": False, "aws_code": "", "request_id": ""}


def _digest(signed: Signed) -> str:
    """SHA-256 over the canonical JSON of a signed document, so that the audit log names the one it means."""
    return hashlib.sha256(rfc8785.dumps(dict(signed))).hexdigest()
