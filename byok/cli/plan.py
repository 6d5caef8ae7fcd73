"""``byok plan``: what a fleet needs, and what each cache TTL costs and guards."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from math import log
from typing import Annotated, Any

import typer

from byok.cli.output import AsJson, console, parse_duration, print_json, show_duration, table
from byok.core.bounds import DEFAULT_LEASE_TTL
from byok.core.capacity import DEFAULT_KMS_LATENCY_MS, Fleet, Pace, Plan, plan
from byok.core.footprint import KMS_PRICE, KMS_QUOTA, STS_QUOTA
from byok.errors import OutOfBounds

LADDER = tuple(timedelta(minutes=minutes) for minutes in (0, 5, 15, 60, 4 * 60, 24 * 60))
_DEFAULT_PROBE_INTERVAL = timedelta(minutes=5)
_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def plan_fleet(
    keys: Annotated[int, typer.Option(metavar="N", help="Keys of all tenants.")],
    period: Annotated[
        str, typer.Option("--period", metavar="DURATION", help="Rotation period, 1h to 3650d.")
    ] = "30d",
    ttl: Annotated[
        str,
        typer.Option(
            "--ttl",
            metavar="DURATION",
            help="Cache TTL in question, 0 to 24h; a ladder of others stands beside it.",
        ),
    ] = show_duration(DEFAULT_LEASE_TTL),
    processes: Annotated[int, typer.Option(metavar="P", help="Processes of the services.")] = 8,
    tenants: Annotated[
        int | None, typer.Option(metavar="N", help="Tenants; left out: one for each key.")
    ] = None,
    active_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the keys, how many are in use: above 0, at most 1.")
    ] = 1.0,
    uses_per_second: Annotated[
        float | None,
        typer.Option(metavar="N", help="Encryptions and decryptions of the fleet: what no caching costs."),
    ] = None,
    kms_latency_ms: Annotated[
        float, typer.Option(metavar="MS", help="What a KMS request takes, 1 to 10,000 ms.")
    ] = DEFAULT_KMS_LATENCY_MS,
    probe_interval: Annotated[
        str, typer.Option(metavar="DURATION", help="As BYOK_PROBE_INTERVAL_SECONDS.")
    ] = show_duration(_DEFAULT_PROBE_INTERVAL),
    as_json: AsJson = False,
) -> None:
    """Reckon what a fleet needs for a ladder of cache TTLs. Needs no settings and asks no server."""
    fleet = Fleet(
        keys=keys,
        tenants=keys if tenants is None else tenants,
        rotation_period=parse_duration(period),
        processes=processes,
        active_share=active_share,
        uses_per_second=uses_per_second,
        kms_latency_ms=kms_latency_ms,
    )
    pace, asked = pace_of(_parse_probe_interval(probe_interval)), parse_duration(ttl)
    plans = [plan(fleet, pace, one) for one in _ladder(asked)]
    if as_json:
        print_json({"fleet": asdict(fleet), "asked_ttl": asked, "plans": [_plan_json(one) for one in plans]})
        return
    _print(plans, asked)


def pace_of(probe_interval: timedelta = _DEFAULT_PROBE_INTERVAL) -> Pace:
    """The pace of a fleet whose other settings are the defaults."""
    from byok.settings import Settings  # pydantic would slow `--help` down

    # Not from the environment, which describes another fleet, if any.
    settings = Settings.model_construct(probe_interval_seconds=probe_interval.total_seconds())
    return Pace(
        probe=probe_interval,
        probe_tick=timedelta(seconds=settings.probe_tick_seconds),
        validate=timedelta(seconds=settings.validate_interval_seconds),
        sync_rotation=timedelta(seconds=settings.sync_interval_seconds),
        watch=timedelta(seconds=settings.watch_interval_seconds),
        recheck=timedelta(seconds=settings.recheck_seconds),
        worker_concurrency=settings.worker_concurrency,
        database_pool_size=settings.database_pool_size,
    )


def _ladder(asked: timedelta) -> list[timedelta]:
    """The TTLs to compare: ``asked`` takes the place of its neighbour, since six columns fit a terminal."""
    if asked in LADDER:
        return list(LADDER)
    neighbour = min(LADDER[1:], key=lambda ttl: abs(log(ttl / asked)))
    return sorted({*LADDER, asked} - {neighbour})


def _parse_probe_interval(text: str) -> timedelta:
    interval = parse_duration(text)
    if not timedelta(seconds=1) <= interval <= timedelta(days=1):
        raise OutOfBounds(
            f"a probe interval of {show_duration(interval)} is out of bounds",
            remedy="choose between 1 second (1s) and 1 day (1d)",
        )
    return interval


def _plan_json(one: Plan) -> dict[str, Any]:
    """A plan for machines. What depends on the uses is null without caching, unless they were given."""
    known = one.is_complete
    return {
        "ttl": one.lease_ttl,
        "kms_requests_per_second": one.requests_per_second if known else None,
        "kms_requests_per_month": one.requests_per_month if known else None,
        "acts_per_second": {act.name.lower(): rate for act, rate in one.acts.items()},
        "assume_role_per_second": one.sessions_per_second,
        "usd_per_month": {
            "role_mode_each_customer": one.usd_of_a_customer if known else None,
            "key_policy_mode_vendor": one.usd_of_the_vendor if known else None,
        },
        "quota_share": {
            "role_mode_kms_each_customer": one.customer_quota_share if known else None,
            "role_mode_sts_vendor": one.sts_quota_share,
            "key_policy_mode_kms_vendor": one.vendor_quota_share if known else None,
        },
        "revocation_bound": {
            "push": one.bound.pushed,
            "without_push": one.bound.polled,
            "cut_off": one.bound.unprobed,
        },
        "redis_bytes": one.redis_bytes,
        "postgresql": {
            "bytes_at_first": one.stored_bytes,
            "rows_per_year": one.rows_a_year,
            "bytes_per_year": one.bytes_a_year,
            "growth_per_year": {table: asdict(stored) for table, stored in one.growth_a_year.items()},
            "connections": one.database_connections,
        },
        "workers": {"threads": one.worker_threads, "processes": one.worker_processes},
    }


def show_count(number: float) -> str:
    """A number to three digits: 950, 12.5k, 3.42M."""
    for unit, size in _UNITS:
        if number >= 0.9995 * size:
            return f"{float(f'{number:.3g}') / size:g}{unit}"
    return f"{number:.3g}"


def show_bytes(size: float) -> str:
    """Bytes in powers of a thousand."""
    return f"{show_count(size)}B"


def show_usd(usd: float) -> str:
    """US dollars: to the cent below a hundred."""
    return f"{usd:.2f}" if usd < 100 else show_count(usd)


def show_share(share: float) -> str:
    """A share of a quota, in per cent; in red where it is more than all."""
    text = "<0.1%" if share < 0.001 else f"{show_count(100 * share)}%"
    return f"[red]{text}[/]" if share > 1 else text


def _known(show: Callable[[Plan], str]) -> Callable[[Plan], str]:
    """``show``, or what there is to say where the uses are missing."""
    return lambda one: show(one) if one.is_complete else "by use"


# Short enough for a terminal of 80 columns.
_ROWS: tuple[tuple[str, Callable[[Plan], str]], ...] = (
    ("KMS requests/month", _known(lambda one: show_count(one.requests_per_month))),
    ("KMS requests/s", _known(lambda one: show_count(one.requests_per_second))),
    ("AssumeRole/s", lambda one: show_count(one.sessions_per_second)),
    ("USD/month, a customer", _known(lambda one: show_usd(one.usd_of_a_customer))),
    ("  or you (key policy)", _known(lambda one: show_usd(one.usd_of_the_vendor))),
    ("KMS quota, a customer", _known(lambda one: show_share(one.customer_quota_share))),
    ("  or you (key policy)", _known(lambda one: show_share(one.vendor_quota_share))),
    ("STS quota, you", lambda one: show_share(one.sts_quota_share)),
    ("stopped within, push", lambda one: show_duration(one.bound.pushed)),
    ("  without push", lambda one: show_duration(one.bound.polled)),
    ("  a process cut off", lambda one: show_duration(one.bound.unprobed)),
    ("Redis for leases", lambda one: show_bytes(one.redis_bytes)),
    ("PostgreSQL at first", lambda one: show_bytes(one.stored_bytes)),
    ("  and a year", lambda one: show_bytes(one.bytes_a_year)),
    ("  rows a year", lambda one: show_count(one.rows_a_year)),
    ("  connections", lambda one: f"{one.database_connections:,}"),
    ("worker threads", lambda one: f"{one.worker_threads:,}"),
    ("  processes", lambda one: f"{one.worker_processes:,}"),
)


def _print(plans: list[Plan], asked: timedelta) -> None:
    fleet = plans[0].fleet
    period = show_duration(fleet.rotation_period)
    title = f"{fleet.keys:,} keys of {fleet.tenants:,} tenants, rotated every {period}, by cache TTL"
    headings = [_heading(one.lease_ttl, asked) for one in plans]
    rows = [[heading, *(show(one) for one in plans)] for heading, show in _ROWS]
    console.print(table(title, ["", *headings], rows))
    for note in _notes(plans):
        console.print(note)


def _heading(ttl: timedelta, asked: timedelta) -> str:
    text = show_duration(ttl) if ttl else "none"
    return f"{text} ◀" if ttl == asked else text


def _notes(plans: list[Plan]) -> Iterator[str]:
    yield "AWS bills and throttles the account that calls: by role each customer's, by key policy yours."
    if not all(one.is_complete for one in plans):
        yield "by use: without caching each use is a KMS request; --uses-per-second says how many."
    if any(one.sts_quota_share > 1 for one in plans):
        yield (
            f"[red]Too many AssumeRole[/]: AWS allows {STS_QUOTA.per_second} a second of an account and "
            "region. Ask AWS for more, spread tenants over regions, or raise --probe-interval."
        )
    if any(one.is_complete and one.vendor_quota_share > 1 for one in plans):
        yield (
            "[red]Too many KMS requests[/] by key policy: AWS allows "
            f"{KMS_QUOTA.per_second:,} a second of an account and region."
        )
    yield (
        f"KMS takes {KMS_PRICE.per_10_000_requests} USD for 10,000 requests beyond "
        f"{KMS_PRICE.free_requests_per_month:,} a month, and {KMS_PRICE.per_kms_key_per_month:g} USD a KMS "
        "key. The model: docs/capacity.md"
    )
