"""Moves to another KMS key as people ask for them: begin, commit what is held, roll back, look.

The row is the move. A message only wakes a worker up, and names the batch that it is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from byok.core.arns import KmsKeyArn, RoleArn
from byok.core.findings import Finding, failed
from byok.core.lifecycle import latest_wake_time
from byok.core.model import Connection, Key, KeyVersion, Tenant
from byok.core.move_rights import is_of_the_errand
from byok.core.moves import KmsKeyMove, MoveEvent, MoveProgress, MoveState
from byok.core.provisioning import AccessMode
from byok.errors import (
    InvalidInput,
    KmsAccessRevoked,
    LostRace,
    MoveOpen,
    NotReady,
    QueueUnavailable,
    ValidationFailed,
)
from byok.failpoints import FailPoint, reached
from byok.logs import get_logger
from byok.ports import Clock, Kms, Random, Store, TaskQueue, Transaction
from byok.services.access import Access
from byok.services.move_steps import append_step, steer
from byok.services.records import require_connection
from byok.services.releases import require_no_older_release
from byok.services.suspension import Suspensions, require_active, require_unmoved

log = get_logger(__name__)

_BATCH = 100


@dataclass(frozen=True, slots=True)
class MoveStatus:
    """A move as it stands, and how far it has come."""

    move: KmsKeyMove
    progress: MoveProgress


class MoveRequests:
    """Begins and steers moves.

    ``sweep_period``: a move that nobody works on for so long is published again by the sweeper.
    ``refuse_excess``: a connection with more rights than needed does not pass.
    """

    def __init__(
        self,
        *,
        store: Store,
        kms: Kms,
        access: Access,
        suspensions: Suspensions,
        queue: TaskQueue,
        clock: Clock,
        random: Random,
        sweep_period: timedelta,
        refuse_excess: bool,
    ) -> None:
        self._store = store
        self._kms = kms
        self._access = access
        self._suspensions = suspensions
        self._queue = queue
        self._clock = clock
        self._random = random
        self._sweep_period = sweep_period
        self._refuse_excess = refuse_excess

    def plan(
        self,
        tenant_name: str,
        *,
        kms_key_arn: str,
        role_arn: str | None = None,
        mode: AccessMode | None = None,
        shared: bool = False,
        hold: bool = False,
        actor: str = "",
    ) -> KmsKeyMove:
        """The move that `request` would begin; changes nothing. Without role and mode the tenant keeps its
        role, if that is in the account of the new KMS key, or its key-policy mode.

        Raises:
            UnknownTenant, TenantNotActive, InvalidArn, InvalidInput.
        """
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
        require_active(tenant)
        source = require_connection(tenant)
        return KmsKeyMove(
            id=self._random.uuid(),
            state=MoveState.WRAPPING,
            source=source,
            target=_target(tenant, source, kms_key_arn, role_arn, mode),
            requested_by=actor,
            requested_at=self._clock.now(),
            shared=shared,
            hold=hold,
        )

    def request(
        self,
        tenant_name: str,
        *,
        actor: str,
        kms_key_arn: str,
        role_arn: str | None = None,
        mode: AccessMode | None = None,
        shared: bool = False,
        hold: bool = False,
    ) -> KmsKeyMove:
        """Check both connections and begin to move a tenant to another KMS key; asked again for the same
        one, the move that is open goes on at once, and one that is committed is returned as it is.

        Raises:
            as `plan`, and MoveOpen: to another one; KmsKeyTaken, RoleTaken, LostRace; ValidationFailed: the
            new connection does not pass its checks; KmsAccessRevoked: the old one refuses us; KmsUnavailable,
            KmsIntegrityError; NotReady: a process of an older release lives.
        """
        if (committed := self._find_committed(tenant_name, kms_key_arn, role_arn, mode)) is not None:
            return committed
        move = self.plan(
            tenant_name, kms_key_arn=kms_key_arn, role_arn=role_arn, mode=mode, shared=shared, hold=hold,
            actor=actor,
        )  # fmt: skip
        with self._store.transaction() as tx:
            tenant = tx.tenants.get_by_id(move.tenant_id)
            known = tx.moves.find_latest(tenant.id)
            require_no_older_release(tx, move.requested_at)
        if known is not None and known.is_open:
            return self._join(known, move)
        self._check(move)
        self._prove_source(tenant, actor)
        with self._store.transaction() as tx:
            require_unmoved(tx, tenant)
            tx.moves.add(move, move.requested_at + self._sweep_period)
            append_step(tx, move, actor, "requested", move.requested_at, hold=str(move.hold).lower())
        reached(FailPoint.MOVE_RECORDED)
        self.publish(move)
        return move

    def _find_committed(
        self, tenant_name: str, kms_key_arn: str, role_arn: str | None, mode: AccessMode | None
    ) -> KmsKeyMove | None:
        """The move that brought the tenant to where it is, if that is what is asked for."""
        with self._store.transaction() as tx:
            tenant = tx.tenants.get(tenant_name)
            move = tx.moves.find_latest(tenant.id)
        if move is None or move.target != tenant.connection or str(move.target.kms_key_arn) != kms_key_arn:
            return None
        role = move.target.role_arn
        is_mode = mode is None or (mode is AccessMode.KEY_POLICY) is (role is None)
        return move if is_mode and role_arn in (None, role and str(role)) else None

    def _join(self, known: KmsKeyMove, wanted: KmsKeyMove) -> KmsKeyMove:
        if known.target != wanted.target or (
            wanted.hold and not known.hold and known.state is not MoveState.HELD
        ):
            name = known.source.tenant_name
            held = "" if known.hold else ", not to be held"
            raise MoveOpen(
                f"tenant {name!r} is on its way to {known.target.kms_key_arn} already{held}",
                remedy=f"byok tenant migrate {name} --status shows it; --rollback gives it up",
            )
        known = self._forget_wait(known)
        self.publish(known)
        return known

    def _forget_wait(self, move: KmsKeyMove) -> KmsKeyMove:
        """Whoever asks again has done something about it."""
        if move.wait is None:
            return move
        try:
            with self._store.transaction() as tx:
                return tx.moves.release(move, self._clock.now() + self._sweep_period, None)
        except LostRace:
            return move  # a worker tries again just now

    def _check(self, move: KmsKeyMove) -> None:
        findings = self._kms.check_connection(move.target)
        others: Sequence[Finding] = [one for one in findings if not is_of_the_errand(one, move)]
        stopping = failed(others, refuse_warnings=self._refuse_excess)
        if stopping:
            causes = ", ".join(f"{finding.check} ({finding.cause})" for finding in stopping)
            raise ValidationFailed(
                f"the connection to {move.target.kms_key_arn} did not pass: {causes}",
                remedy=stopping[0].remedy,
            )

    def _prove_source(self, tenant: Tenant, actor: str) -> None:
        found = self._first_active(tenant)
        if found is None:
            return
        try:
            self._access.prove(tenant, found).secret.wipe()
        except KmsAccessRevoked as refusal:
            self._suspensions.revoked(tenant, refusal, actor)
            raise

    def _first_active(self, tenant: Tenant) -> KeyVersion | None:
        def active(tx: Transaction, keys: Sequence[Key]) -> KeyVersion | None:
            return next((one for key in keys if (one := tx.versions.find_active(key.id))), None)

        with self._store.transaction() as tx:
            found = active(tx, tx.keys.list(tenant.id))
            require_unmoved(tx, tenant)
        return found

    def release(self, tenant_name: str, *, actor: str) -> KmsKeyMove:
        """Let a move that is held, or to be held, be committed.

        Raises:
            UnknownTenant; NotReady: none is open.
        """
        move = self._steer(tenant_name, MoveEvent.RELEASE, actor, "released")
        self.publish(move)
        return move

    def roll_back(self, tenant_name: str, *, actor: str) -> KmsKeyMove:
        """Give a move up: its second wrappings are forgotten, and nothing else was changed.

        Raises:
            UnknownTenant; NotReady: none is open.
        """
        return self._steer(tenant_name, MoveEvent.ROLL_BACK, actor, "rolled-back")

    def _steer(self, tenant_name: str, event: MoveEvent, actor: str, action: str) -> KmsKeyMove:
        with self._store.transaction() as tx:
            latest = self._require_latest(tx, tenant_name)
            move = tx.moves.lock(latest.id)
            if not move.is_open:
                raise NotReady(
                    f"the move of tenant {tenant_name!r} is {move.state}: there is no way back",
                    remedy="to go back, move to the old KMS key: byok tenant migrate",
                )
            return steer(tx, move, event, actor, action, self._clock.now())

    def status(self, tenant_name: str) -> MoveStatus:
        """The latest move of a tenant.

        Raises:
            UnknownTenant; NotReady: it never had one.
        """
        with self._store.transaction() as tx:
            move = self._require_latest(tx, tenant_name)
            return MoveStatus(move, tx.moves.progress(move))

    def _require_latest(self, tx: Transaction, tenant_name: str) -> KmsKeyMove:
        move = tx.moves.find_latest(tx.tenants.get(tenant_name).id)
        if move is None:
            raise NotReady(
                f"tenant {tenant_name!r} never moved to another KMS key",
                remedy=f"byok tenant migrate {tenant_name} --kms-key-arn ARN",
            )
        return move

    def sweep(self) -> int:
        """Publish moves again that nobody works on; how many."""
        now = self._clock.now()
        with self._store.transaction() as tx:
            waking = tx.moves.lock_waking(
                now, _BATCH, now + self._sweep_period, latest_wake_time(now, self._sweep_period)
            )
        for move in waking:
            if not self.publish(move):
                break
        return len(waking)

    def publish(self, move: KmsKeyMove) -> bool:
        """Publish the next batch; a broker that is down delays it to the next sweep. Whether it is up."""
        try:
            self._queue.move(move)
        except QueueUnavailable as error:
            log.warning("move_not_published", move_id=str(move.id), error=error.message)
            return False
        return True


def _target(
    tenant: Tenant,
    source: Connection,
    kms_key_arn: str,
    role_arn: str | None,
    mode: AccessMode | None,
) -> Connection:
    key = KmsKeyArn.parse(kms_key_arn)
    if key == source.kms_key_arn:
        raise InvalidInput(
            f"tenant {tenant.name!r} is connected to this KMS key already",
            remedy="a move is to another one; of the role in use the customer may change all but its name",
        )
    if role_arn is not None and mode is AccessMode.KEY_POLICY:
        raise InvalidInput("key-policy mode has no role", remedy="leave out the role, or the mode")
    role = None if role_arn is None else RoleArn.parse(role_arn)
    if role is None and mode is not AccessMode.KEY_POLICY:
        role = source.role_arn
        if (mode is AccessMode.ROLE and role is None) or (role is not None and role.account != key.account):
            raise InvalidInput(
                f"the new KMS key in account {key.account} needs a role there",
                remedy="say --role-arn ARN, or --mode key-policy",
            )
    return Connection(tenant.id, key, tenant.external_id, role, tenant_name=tenant.name)
