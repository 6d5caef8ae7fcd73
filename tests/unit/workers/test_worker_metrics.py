"""A worker with a pool of processes says so where its counts would be seen by nobody."""

from pathlib import Path

import pytest

from workers import metrics


def test_without_a_folder_a_pools_process_warns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    metrics.clear()
    metrics.warn()
    assert "metrics_not_collected" in caplog.text
    caplog.clear()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.warn()
    assert caplog.text == ""


def test_a_worker_begins_with_an_empty_folder_that_it_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "counts"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    metrics.clear()
    no_process = 2**22 + 1  # more than Linux gives
    (folder / f"counter_{no_process}.db").touch()
    metrics.clear()
    assert list(folder.iterdir()) == []
