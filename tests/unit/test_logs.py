"""Logs are the host application's to shape; ours are JSON lines with the ids of the task."""

import json
import logging

import pytest
import structlog

from byok.logs import configure_logging, get_logger


def test_a_library_prints_nothing_by_itself(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    get_logger("byok.test").warning("tenant_suspended", tenant="acme")
    assert capsys.readouterr().out == ""
    (record,) = caplog.records
    assert (record.name, record.message, record.tenant) == ("byok.test", "tenant_suspended", "acme")  # type: ignore[attr-defined]


def test_json_lines_carry_event_fields_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    with structlog.contextvars.bound_contextvars(task_id="t-1"):
        get_logger("byok.test").bind(tenant="acme").info("rotation_done", version=2)
        logging.getLogger("celery").info("a library's line %d", 7)
    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert ours["event"] == "rotation_done"
    assert (ours["tenant"], ours["version"], ours["task_id"]) == ("acme", 2, "t-1")
    assert (ours["level"], ours["logger"]) == ("info", "byok.test")
    assert (theirs["event"], theirs["task_id"]) == ("a library's line 7", "t-1")


def test_quiet_levels_stay_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", logging.ERROR)
    get_logger("byok.test").info("rotation_done")
    assert capsys.readouterr().err == ""
