"""A step of a move to another KMS key: its state and its audit event, in the caller's transaction."""

from datetime import datetime

from byok.core.moves import KmsKeyMove, MoveEvent
from byok.ports import Transaction


def steer(
    tx: Transaction,
    move: KmsKeyMove,
    event: MoveEvent,
    actor: str,
    action: str,
    at: datetime,
    **details: str | int,
) -> KmsKeyMove:
    """Change a move's state; with a roll-back its second wrappings are forgotten.

    Raises:
        IllegalTransition, LostRace.
    """
    if event is MoveEvent.ROLL_BACK:
        tx.moves.forget_wrappings(move)
    steered = tx.moves.transition(move, event, at)
    append_step(tx, move, actor, action, at, **details)
    return steered


def append_step(
    tx: Transaction, move: KmsKeyMove, actor: str, action: str, at: datetime, **details: str | int
) -> None:
    """Tell the audit log what happened to a move."""
    role = move.target.role_arn
    tx.audit.append(
        move.tenant_id, at, actor, f"move.{action}",
        move=str(move.id), from_kms_key_arn=str(move.source.kms_key_arn),
        to_kms_key_arn=str(move.target.kms_key_arn), to_role_arn=None if role is None else str(role),
        **details,
    )  # fmt: skip
