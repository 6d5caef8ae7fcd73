"""Logs are the host application's to shape; ours are JSON lines, one a record, whatever is in the record."""

import contextlib
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from byok.errors import KmsUnavailable
from byok.logs import LogScope, configure_logging, get_logger, log_uncaught


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The JSON lines written since the last look."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.fixture
def uncaught_hooks() -> Iterator[None]:
    before = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = before


def test_a_library_prints_nothing_by_itself(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with LogScope(tenant="acme"):
        get_logger("byok.test").warning("tenant_suspended", reason="r")
    assert capsys.readouterr().out == ""
    (record,) = caplog.records
    assert (record.name, record.message, record.reason) == ("byok.test", "tenant_suspended", "r")  # type: ignore[attr-defined]
    assert record.tenant == "acme"  # type: ignore[attr-defined]  # for the host's own format as well


def test_json_lines_carry_event_fields_and_context(lines: Callable[[], list[dict[str, Any]]]) -> None:
    configure_logging("json")
    with LogScope(task_id="t-1"):
        get_logger("byok.test").bind(tenant="acme").info("rotation_done", version=2, key=None)
        logging.getLogger("celery").info("a library's line %d", 7)
    ours, theirs = lines()
    assert ours["event"] == "rotation_done"
    assert (ours["tenant"], ours["version"], ours["task_id"]) == ("acme", 2, "t-1")
    assert (ours["level"], ours["logger"]) == ("info", "byok.test")
    assert ours["timestamp"].endswith("+00:00")
    assert "key" not in ours
    assert (theirs["event"], theirs["task_id"]) == ("a library's line 7", "t-1")


def test_an_exception_is_one_field_with_its_causes(lines: Callable[[], list[dict[str, Any]]]) -> None:
    configure_logging("json")
    try:
        try:
            raise ValueError("'hunter2' is no number")
        except ValueError as cause:
            raise KmsUnavailable("KMS is away") from cause
    except KmsUnavailable:
        get_logger("byok.test").exception("it_broke")
    (line,) = lines()
    outer, inner = line["exception"]
    assert (outer["type"], outer["says"]) == ("KmsUnavailable", "kms-unavailable: KMS is away")
    assert (inner["type"], inner["says"]) == ("ValueError", "ValueError")
    assert outer["frames"][0].endswith(" test_an_exception_is_one_field_with_its_causes")
    assert "hunter2" not in json.dumps(line)


def test_levels(lines: Callable[[], list[dict[str, Any]]]) -> None:
    configure_logging("json", logging.DEBUG)
    for name in ("byok.test", "workers.test", "celery", "sqlalchemy.engine", "botocore.parsers"):
        logging.getLogger(name).debug("whisper")
        logging.getLogger(name).info("word")
        logging.getLogger(name).warning("shout")
    said = {(line["logger"], line["event"]) for line in lines()}
    assert {(name, "whisper") for name in ("byok.test", "workers.test")} <= said
    assert ("celery", "word") in said
    assert not said & {("celery", "whisper"), ("sqlalchemy.engine", "word"), ("botocore.parsers", "word")}
    assert ("sqlalchemy.engine", "shout") in said


def test_a_librarys_own_level_opens_nothing(lines: Callable[[], list[dict[str, Any]]]) -> None:
    """As ``echo=True`` of SQLAlchemy does."""
    configure_logging("json")
    engine = logging.getLogger("sqlalchemy.engine.Engine")
    engine.setLevel(logging.DEBUG)
    engine.info("SELECT 1")
    engine.setLevel(logging.NOTSET)
    assert lines() == []


def test_quiet_levels_stay_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", logging.ERROR)
    get_logger("byok.test").info("rotation_done")
    assert capsys.readouterr().err == ""


def test_for_people_causes_are_lines_below(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console")
    try:
        raise KmsUnavailable("KMS is away")
    except KmsUnavailable:
        get_logger("byok.test").exception("it_broke", tenant="acme")
    first, *below = capsys.readouterr().err.splitlines()
    assert "it_broke" in first
    assert "tenant" in first
    assert "kms-unavailable: KMS is away" in "\n".join(below)


def test_a_line_whose_text_does_not_fit_its_arguments_is_a_line_all_the_same(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    configure_logging("json")
    logging.getLogger("celery").info("%d of %s", b"hunter2")
    logging.getLogger("celery").info("%(none)s", {"password": "hunter2"})
    first, second = lines()
    assert first["event"] == "%d of %s (TypeError)"
    assert second["event"] == "%(none)s (KeyError)"


def test_warnings_and_what_nobody_caught_are_lines(
    lines: Callable[[], list[dict[str, Any]]], uncaught_hooks: None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("json")
        log_uncaught()
        warnings.warn("old\nways", stacklevel=1)
        thread = threading.Thread(target=lambda: 1 // 0, name="t")
        thread.start()
        thread.join()
        logging.captureWarnings(False)
    with contextlib.suppress(ZeroDivisionError):
        1 // 0  # noqa: B018  # raises
    warned, uncaught = lines()
    assert "old ways" in warned["event"]
    assert (uncaught["level"], uncaught["event"]) == ("critical", "uncaught_exception")
    assert uncaught["exception"][0]["type"] == "ZeroDivisionError"
