"""A process that has ended leaves no sign of life."""

from pathlib import Path

from celery import Celery

from workers.heartbeat import Heartbeat, NotingScheduler


def test_a_beat_that_ends_leaves_no_sign(tmp_path: Path) -> None:
    app = Celery("test", set_as_current=False, broker="memory://")
    app.byok_heartbeat = Heartbeat(tmp_path / "byok-beat")
    app.byok_heartbeat.start()
    scheduler = NotingScheduler(app=app, lazy=True)
    assert list(tmp_path.iterdir()) != []
    scheduler.close()
    scheduler.close()  # as Celery does after SIGTERM
    assert list(tmp_path.iterdir()) == []
