"""Addresses of PostgreSQL: one server, or several of which one is the primary.

::

    postgresql+psycopg://USER:PASSWORD@HOST[:PORT][,HOST[:PORT]…]/DB[?target_session_attrs=read-write]

The list of servers is libpq's own spelling, and so are the parameters (``sslmode``, ``sslrootcert`` …).
SQLAlchemy's parser knows the parameters and takes no list.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl

from byok.server_lists import host_and_port, split

_SCHEME: Final = "postgresql+psycopg"
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SYSTEM: Final = "system"  # as sslrootcert: the system's CAs


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """``rest`` is the URL without its servers; ``servers`` are host and port of each, as they are written."""

    rest: str = field(repr=False)
    servers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: what is wrong, in one line that holds nothing of the URL: any part of it may be of a
                password.
        """
        if not text.startswith(f"{_SCHEME}://"):
            raise ValueError(f"must begin with {_SCHEME}://")
        try:
            parts = split(text)
        except ValueError:
            raise ValueError("is no URL") from None
        login, at, servers = parts.netloc.rpartition("@")
        if parts.fragment or "@" in login:
            raise ValueError("has a # or an @ too many: write %23 and %40 for them in a name or password")
        if not parts.path.removeprefix("/"):
            raise ValueError("names no database: /DB after the servers")
        parsed = tuple(_server(one) for one in servers.split(",")) if servers else ()
        _require_files(dict(parse_qsl(parts.query)))
        return cls(parts._replace(netloc=login + at).geturl(), parsed)


def _server(text: str) -> tuple[str, str]:
    host, port = host_and_port(text)
    if not host:
        raise ValueError("names a server without a host")
    return host, "" if port is None else str(port)


def _require_files(parameters: dict[str, str]) -> None:
    for name in _FILES:
        if name in parameters and parameters[name] != _SYSTEM and not Path(parameters[name]).is_file():
            raise ValueError(f"{name}: there is no such file")
