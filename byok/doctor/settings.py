"""What the settings say by themselves."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from byok.doctor.result import Result, note, passed, warning
from byok.postgres_url import PostgresUrl
from byok.redis_url import RedisUrl
from byok.server_lists import is_loopback
from byok.settings import Settings
from byok.wiring import Runtime

_VERIFYING = ("verify-ca", "verify-full")


def check_settings(runtime: Runtime) -> Iterator[Result]:
    """The environment, and what production must not do without."""
    yield from examine_settings(runtime.settings)


def examine_settings(settings: Settings) -> Iterator[Result]:
    """The same of settings alone."""
    yield _environment(settings)
    yield from _roles(settings)
    yield from _encryption(settings)
    yield from _metrics(settings)


def _environment(settings: Settings) -> Result:
    if settings.env == "production":
        return passed("settings", "BYOK_ENV=production")
    simulator = "" if settings.kms_endpoint_url is None else ", with a KMS that protects nothing"
    return note("settings", f"BYOK_ENV={settings.env}{simulator}", "for customers' data: BYOK_ENV=production")


def _roles(settings: Settings) -> Iterator[Result]:
    if settings.vendor_role_arn is None:
        yield warning(
            "vendor-role",
            "BYOK_VENDOR_ROLE_ARN is not set",
            "customers' policies name it: set it to the role that the workers run under",
        )
    if settings.env == "production" and settings.canary_role_arn is None:
        yield warning(
            "canary-role",
            "BYOK_CANARY_ROLE_ARN is not set: a fault of our own identity suspends tenants",
            "docs/runbook.md, 'Several tenants are suspended at once', says what it is",
        )


def _encryption(settings: Settings) -> Iterator[Result]:
    """TLS to servers that are not on this machine; a private network is no reason to warn less."""
    if settings.env != "production":
        return
    plain = [name for name, is_safe in _paths(settings).items() if not is_safe]
    if plain:
        yield warning(
            "tls",
            f"without TLS, or without checking a certificate: {', '.join(plain)}",
            "sslmode=verify-full for PostgreSQL, rediss:// for Redis: docs/deployment.md",
        )
    else:
        yield passed("tls", "all servers by TLS, or on this machine")


def _paths(settings: Settings) -> dict[str, bool]:
    database = PostgresUrl.parse(settings.database_url.get_secret_value())
    mode = dict(parse_qsl(urlsplit(database.rest).query)).get("sslmode")
    is_here = all(is_loopback(host) for host, _ in database.servers)
    paths = {"PostgreSQL": mode in _VERIFYING or is_here}
    for name, url in (("broker", settings.broker_url), ("cache", settings.cache_url)):
        address = RedisUrl.parse(url.get_secret_value())
        paths[name] = address.tls is not None or all(is_loopback(host) for host, _ in address.servers)
    return paths


def _metrics(settings: Settings) -> Iterator[Result]:
    if settings.metrics_port is not None and not is_loopback(settings.metrics_address):
        yield warning(
            "metrics",
            f"served on {settings.metrics_address}, without a password: they name tenants",
            "BYOK_METRICS_ADDRESS: an address that only Prometheus reaches",
        )
