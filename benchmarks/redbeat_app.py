"""byok's app with RedBeat in place of Celery's scheduler, for `beat_failover`."""

from workers.celery import app

app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_max_loop_interval=1,
    # The default is 5 × the loop interval, 1500 s where that is not set: how long a dead leader is mourned.
    redbeat_lock_timeout=30,
)
