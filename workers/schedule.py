"""Beat's entries, as data.

Beat is a metronome: it asks at least once a minute whether a job is due, and PostgreSQL knows. So a Beat
that is restarted every hour still lets a daily job run, and of two Beats' ticks one finds nothing to do.
"""

from typing import Any

from byok import queue
from byok.settings import Settings

_SLOWEST_SECONDS = 60.0
# A run of the dispatcher that left keys for want of room is to be followed by another soon.
_REFILL_SECONDS = 5.0


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each entry's task and how often to ask, in seconds; a tick that waits longer than that expires."""
    periods = {
        queue.DISPATCH_DUE: min(settings.dispatch_interval_seconds, _REFILL_SECONDS),
        queue.SWEEP: settings.sweep_interval_seconds,
        queue.PUBLISH_PROBES: settings.probe_tick_seconds,
        queue.PUBLISH_VALIDATIONS: settings.validate_tick_seconds,
        queue.PUBLISH_SYNCS: settings.sync_tick_seconds,
        queue.PUBLISH_WATCHES: settings.watch_tick_seconds,
        queue.POST_WEBHOOKS: settings.webhook_tick_seconds,
    }
    return {
        name: {
            "task": name,
            "schedule": min(period_seconds, _SLOWEST_SECONDS),
            "options": {
                "queue": queue.MAINTENANCE_QUEUE,
                "expires": max(min(period_seconds, _SLOWEST_SECONDS), 30.0),
            },
        }
        for name, period_seconds in periods.items()
    }
