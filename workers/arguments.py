"""The names and ids among a task's arguments: all that events and log lines may show of them.

A message may come from anybody who reaches the broker, and hold anything under any name.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Final
from uuid import UUID

from byok.core.bounds import check_name
from byok.errors import InvalidName

HIDDEN: Final = "…"


def shown_arguments(
    run: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> dict[str, object] | None:
    """Those that are names, ids or numbers; `HIDDEN` in place of what should be one and is not.

    None: they are more than the task takes, which will fail by itself.
    """
    try:
        given = signature(run).bind_partial(*args, **kwargs).arguments
    except TypeError:
        return None
    return {name: show(given[name]) for name, show in _SHOWN.items() if name in given}


def _name(value: object) -> str:
    try:
        return check_name("tenant or key", str(value))
    except InvalidName:
        return HIDDEN


def _id(value: object) -> str:
    try:
        return str(UUID(str(value)))
    except ValueError:
        return HIDDEN


def _ids(value: object) -> object:
    return [_id(one) for one in value] if isinstance(value, list) else HIDDEN


def _number(value: object) -> object:
    return value if isinstance(value, int) else HIDDEN


_SHOWN: Final[Mapping[str, Callable[[object], object]]] = {
    "tenant": _name,
    "key": _name,
    "rotation_id": _id,
    "rotation_ids": _ids,
    "campaign_id": _id,
    "reseal_id": _id,
    "move_id": _id,
    "batch": _number,
}
