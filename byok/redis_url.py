"""Addresses of Redis: one spelling for the queue and for the cache.

::

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]
    rediss://…                                                               the same over TLS
    redis+sentinel://[USER:PASSWORD@]SENTINEL[:PORT][,SENTINEL[:PORT]…]/MASTER[/DB]
    rediss+sentinel://…                                                      TLS to the Sentinels as well

What is special in a URL is percent-encoded in names and passwords. Parameters, with redis-py's names:
``ssl_ca_certs`` (a file with the CA's certificate; without it the system's CAs), ``ssl_certfile`` and
``ssl_keyfile`` (the client's own certificate), ``ssl_check_hostname=false``; and ``sentinel_username``,
``sentinel_password`` where the Sentinels want a login of their own.

redis-py and kombu each have spellings of their own, and kombu's ``rediss://`` checks no certificate unless it
is told to. So both get what is parsed here, never the text.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, unquote

from byok.server_lists import host_and_port, split

_SCHEMES: Final = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://")
_SERVER_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (*_FILES, "ssl_check_hostname")
_LOGIN: Final = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is, and how to talk to it.

    ``servers`` are host and port of the one server, or of the Sentinels if there is a ``master_name``.
    ``tls`` holds redis-py's ``ssl_*`` options, or is None without TLS.
    """

    servers: tuple[tuple[str, int], ...]
    database: int
    username: str | None
    password: str | None = field(repr=False)
    master_name: str | None
    sentinel_username: str | None
    sentinel_password: str | None = field(repr=False)
    tls: dict[str, str | bool] | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL.

        Raises:
            ValueError: what is wrong, in one line that holds nothing of the URL: any part of it may be of a
                password.
        """
        if not text.startswith(_SCHEMES):
            raise ValueError(f"must begin with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}")
        try:
            parts = split(text)
        except ValueError:
            raise ValueError("is no URL") from None
        if parts.fragment:
            raise ValueError("has a #: write %23 for it in a name or password")
        is_sentinel = parts.scheme.endswith("+sentinel")
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        servers = _servers(hosts, is_sentinel)  # first: a / in a password ends up there
        parameters = _parameters(parts.query)
        master_name, database = _path(parts.path, is_sentinel)
        return cls(
            servers=servers,
            database=database,
            username=unquote(username) or None,
            password=unquote(password) or None,
            master_name=master_name,
            sentinel_username=_sentinel_login(parameters, "sentinel_username", is_sentinel),
            sentinel_password=_sentinel_login(parameters, "sentinel_password", is_sentinel),
            tls=_tls(parameters, parts.scheme.startswith("rediss")),
        )

    def login(self) -> dict[str, str | None]:
        """Name and password at the server, as redis-py's arguments."""
        return {"username": self.username, "password": self.password}

    def sentinel_login(self) -> dict[str, str | None]:
        """Name and password at the Sentinels, as redis-py's arguments."""
        return {"username": self.sentinel_username, "password": self.sentinel_password}

    def tls_arguments(self) -> dict[str, str | bool]:
        """What turns TLS on, as redis-py's arguments; nothing without TLS."""
        return {} if self.tls is None else {"ssl": True, **self.tls}


def _servers(text: str, is_sentinel: bool) -> tuple[tuple[str, int], ...]:
    servers = tuple(_server(one, _SENTINEL_PORT if is_sentinel else _SERVER_PORT) for one in text.split(","))
    if len(servers) > 1 and not is_sentinel:
        raise ValueError("names several servers: Sentinels are written as redis+sentinel://")
    return servers


def _server(text: str, default_port: int) -> tuple[str, int]:
    host, port = host_and_port(text)
    if not host:
        raise ValueError("names no server")
    return unquote(host), default_port if port is None else port


def _path(path: str, is_sentinel: bool) -> tuple[str | None, int]:
    master_name, _, database = path.removeprefix("/").partition("/") if is_sentinel else (None, "", path[1:])
    if is_sentinel and not master_name:
        raise ValueError("names no master: /MASTER after the Sentinels, as in `sentinel monitor MASTER`")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("must end with the number of a database, as /0")
    return master_name and unquote(master_name), int(database or 0)


def _parameters(query: str) -> dict[str, str]:
    parameters = dict(parse_qsl(query))
    if "ssl_cert_reqs" in parameters:
        raise ValueError("ssl_cert_reqs: certificates are always checked; ssl_ca_certs names a CA's file")
    if not parameters.keys() <= {*_TLS, *_LOGIN}:
        raise ValueError(f"takes no parameter but {', '.join((*_TLS, *_LOGIN))}")
    return parameters


def _sentinel_login(parameters: dict[str, str], name: str, is_sentinel: bool) -> str | None:
    if name in parameters and not is_sentinel:
        raise ValueError(f"{name}: is for redis+sentinel://")
    return parameters.get(name)


def _tls(parameters: dict[str, str], is_on: bool) -> dict[str, str | bool] | None:
    given: dict[str, str] = {name: parameters[name] for name in _TLS if name in parameters}
    if not is_on:
        if given:
            raise ValueError(f"{next(iter(given))}: is for rediss://")
        return None
    for name in _FILES:
        if name in given and not Path(given[name]).is_file():
            raise ValueError(f"{name}: there is no such file")
    if ("ssl_certfile" in given) != ("ssl_keyfile" in given):
        raise ValueError("ssl_certfile and ssl_keyfile: set both or neither")
    check = given.pop("ssl_check_hostname", "true")
    if check not in ("true", "false"):
        raise ValueError("ssl_check_hostname: must be true or false")
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": check == "true", **given}
