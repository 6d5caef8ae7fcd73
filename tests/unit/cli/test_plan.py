"""``byok plan``: a table for people, JSON for machines, one line for what can't be."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from byok.cli.main import main
from byok.cli.plan import pace_of, show_bytes, show_count, show_share, show_usd
from byok.settings import Settings

Byok = Callable[..., tuple[int, str, str]]


@pytest.fixture
def byok(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Byok:
    """Run the command as its entry point does, without any setting."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["byok", *arguments])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def rows(table: str) -> dict[str, list[str]]:
    """The cells of a printed table by the heading of their row; of several alike the first."""
    found: dict[str, list[str]] = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.replace("┃", "│").split("│")][1:-1]
        if cells:
            found.setdefault(cells[0], cells[1:])
    return found


def test_the_table_has_a_column_for_each_ttl(byok: Byok) -> None:
    code, out, _ = byok("plan", "--keys", "1000000", "--period", "30d", "--ttl", "30m", "--processes", "200")
    assert code == 0
    assert "1,000,000 keys of 1,000,000 tenants, rotated every 30d" in out
    table = rows(out)
    assert table[""] == ["none", "5m", "30m ◀", "1h", "4h", "1d"], "beside its neighbours but one"
    assert table["a process cut off"] == ["0s", "5m", "30m", "1h", "4h", "1d"]
    assert table["stopped within, push"] == ["0s", "156s", "306s", "306s", "306s", "306s"]
    assert table["KMS requests/month"][0] == "by use"
    assert "Too many AssumeRole" in out


def test_the_table_fits_eighty_columns_without_folding(byok: Byok) -> None:
    _, out, _ = byok("plan", "--keys", "10000000", "--uses-per-second", "1000000")
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert all(line.split("│")[1].strip() for line in lines), "a folded cell makes a line without a heading"
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_small_fleet_hears_of_no_quota(byok: Byok) -> None:
    _, out, _ = byok("plan", "--keys", "5000", "--tenants", "40", "--uses-per-second", "300")
    assert "Too many" not in out
    assert "by use" not in out
    assert rows(out)["KMS requests/s"][0] == "300"


def test_json_holds_figures_and_null_for_what_depends_on_uses(byok: Byok) -> None:
    code, out, _ = byok("plan", "--keys", "1000", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["fleet"]["keys"] == told["fleet"]["tenants"] == 1000
    assert told["asked_ttl"] == 3600
    by_ttl: dict[float, dict[str, Any]] = {one["ttl"]: one for one in told["plans"]}
    assert list(by_ttl) == [0, 300, 900, 3600, 14_400, 86_400]
    assert by_ttl[0]["kms_requests_per_second"] is None
    hour = by_ttl[3600]
    assert hour["revocation_bound"] == {"push": 306, "without_push": 311, "cut_off": 3600}
    assert hour["kms_requests_per_month"] == pytest.approx(hour["kms_requests_per_second"] * 2_592_000)
    assert hour["workers"]["processes"] >= 1
    assert "key_versions" in hour["postgresql"]["growth_per_year"]


def test_probes_further_apart_cost_less_and_bound_later(byok: Byok) -> None:
    told = {}
    for interval in ("5m", "15m"):
        _, out, _ = byok("plan", "--keys", "1000", "--probe-interval", interval, "--json")
        told[interval] = json.loads(out)["plans"][3]
    assert told["15m"]["assume_role_per_second"] < told["5m"]["assume_role_per_second"] / 2.9
    assert told["15m"]["revocation_bound"]["push"] == 906


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keys", "0"], "0 keys"),
        (["--keys", "5", "--tenants", "6"], "6 tenants"),
        (["--keys", "5", "--processes", "0"], "0 processes"),
        (["--keys", "5", "--active-share", "2"], "a share of 2"),
        (["--keys", "5", "--uses-per-second", "-1"], "-1.0 uses a second"),
        (["--keys", "5", "--kms-latency-ms", "0"], "0 ms"),
        (["--keys", "5", "--kms-latency-ms", "1e300"], "1e+300 ms"),
        (["--keys", "5", "--ttl", "2d"], "cache TTL"),
        (["--keys", "5", "--ttl", "soon"], "'soon' is not a duration"),
        (["--keys", "5", "--period", "1m"], "rotation period"),
        (["--keys", "5", "--probe-interval", "0"], "probe interval"),
    ],
)
def test_what_can_not_be_is_one_line_with_a_remedy(byok: Byok, arguments: list[str], message: str) -> None:
    code, out, err = byok("plan", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert " → " in err
    assert err.count("\n") == 1


def test_the_pace_is_that_of_the_default_settings() -> None:
    default = {name: field.default for name, field in Settings.model_fields.items()}
    pace = pace_of()
    assert pace.probe == timedelta(seconds=default["probe_interval_seconds"])
    assert pace.validate == timedelta(seconds=default["validate_interval_seconds"])
    assert pace.worker_concurrency == default["worker_concurrency"]
    assert pace_of(timedelta(seconds=2)).probe_tick == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (0.149, "0.149"),
        (999, "999"),
        (999.6, "1k"),
        (1234, "1.23k"),
        (99_960, "100k"),
        (5e13, "50T"),
    ],
)
def test_counts_have_three_digits(number: float, shown: str) -> None:
    assert show_count(number) == shown


def test_money_and_shares_and_bytes() -> None:
    assert (show_usd(1), show_usd(99.994), show_usd(2340)) == ("1.00", "99.99", "2.34k")
    assert (show_share(0.0001), show_share(0.5), show_share(6.2)) == ("<0.1%", "50%", "[red]620%[/]")
    assert show_bytes(641e6) == "641MB"
