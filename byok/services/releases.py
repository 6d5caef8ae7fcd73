"""What a fleet may begin only when all of its living processes are of a release that knows it."""

from datetime import datetime

from byok.core.stops import alive_since
from byok.errors import NotReady
from byok.ports import Transaction

_NAMED = 5


def require_no_older_release(tx: Transaction, now: datetime) -> None:
    """Refuse what a living process of an older release would do wrong, or choke on.

    Such a one stores versions that it made under the KMS key that a tenant has left meanwhile, which nobody
    can decrypt then; and it can't read a tenant that leaves, nor what it reads together with one.

    Raises:
        NotReady: naming some of them.
    """
    older = [str(one) for one in tx.members.list_seen(alive_since(now)) if one.master_key_ids is None]
    if older:
        more = f" and {len(older) - _NAMED} more" if len(older) > _NAMED else ""
        raise NotReady(
            f"of an older release: {', '.join(older[:_NAMED])}{more}",
            remedy="upgrade and restart them first; byok tenant suspend stops a tenant at once meanwhile",
        )
