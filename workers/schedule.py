"""Beat's entries, as data. A tick that comes twice finds nothing to do the second time."""

from typing import Any

from byok import queue
from byok.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each entry's task and period in seconds; a tick that waits longer than its period expires."""
    periods = {
        queue.DISPATCH_DUE: settings.dispatch_interval_seconds,
        queue.SWEEP: settings.sweep_interval_seconds,
        queue.PUBLISH_PROBES: settings.probe_interval_seconds,
        queue.PUBLISH_VALIDATIONS: settings.validate_interval_seconds,
    }
    return {
        name: {
            "task": name,
            "schedule": period_seconds,
            "options": {"queue": queue.MAINTENANCE_QUEUE, "expires": max(period_seconds, 30.0)},
        }
        for name, period_seconds in periods.items()
    }
