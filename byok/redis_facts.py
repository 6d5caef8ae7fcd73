"""Asks a Redis how it is set up. ``CONFIG GET``, and sometimes ``INFO``, are forbidden on managed ones."""

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from byok.ports.inspection import RedisFacts

if TYPE_CHECKING:
    from redis import Redis


def read_facts(client: "Redis") -> RedisFacts:
    """What the server lets us know.

    Raises:
        redis.RedisError: it does not answer.
    """
    server, memory, persistence = (_info(client, part) for part in ("server", "memory", "persistence"))
    append_only = persistence.get("aof_enabled")
    return RedisFacts(
        database=int(client.get_connection_kwargs().get("db") or 0),
        run_id=server.get("run_id"),
        maxmemory_policy=memory.get("maxmemory_policy"),
        append_only=None if append_only is None else bool(append_only),
        snapshots=_saves(client),
    )


def _info(client: "Redis", section: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = client.info(section)
    except ResponseError:
        return {}
    return told


def _saves(client: "Redis") -> bool | None:
    try:
        told = client.config_get("save")
    except ResponseError:
        return None
    return any(told.values())
