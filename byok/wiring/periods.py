"""The periods of what Beat sets off, from the settings."""

from datetime import timedelta

from byok.services.periods import Periods
from byok.settings import Settings


def periods_of(settings: Settings) -> Periods:
    """How often each job is due."""
    return Periods(
        dispatch_due=timedelta(seconds=settings.dispatch_interval_seconds),
        sweep=timedelta(seconds=settings.sweep_interval_seconds),
        probe=timedelta(seconds=settings.probe_interval_seconds),
        probe_tick=timedelta(seconds=settings.probe_tick_seconds),
        validate=timedelta(seconds=settings.validate_interval_seconds),
        validate_tick=timedelta(seconds=settings.validate_tick_seconds),
        sync_rotation=timedelta(seconds=settings.sync_interval_seconds),
        sync_tick=timedelta(seconds=settings.sync_tick_seconds),
        watch=timedelta(seconds=settings.watch_interval_seconds),
        watch_tick=timedelta(seconds=settings.watch_tick_seconds),
        webhooks=timedelta(seconds=settings.webhook_tick_seconds),
    )
