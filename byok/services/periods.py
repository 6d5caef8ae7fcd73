"""The periods of what Beat sets off."""

from dataclasses import dataclass
from datetime import timedelta

from byok.core.model import Job


@dataclass(frozen=True, slots=True)
class Periods:
    """How often each job is due; a ``tick`` is how often to look for what is."""

    dispatch_due: timedelta
    sweep: timedelta
    probe: timedelta  # the longest between two probes of a tenant
    probe_tick: timedelta
    validate: timedelta  # between two validations of a key
    validate_tick: timedelta
    sync_rotation: timedelta  # between two syncs of a tenant
    sync_tick: timedelta
    watch: timedelta  # between two looks over a tenant's side
    watch_tick: timedelta
    webhooks: timedelta

    def of(self, job: Job) -> timedelta:
        """How often a job is to begin."""
        match job:
            case Job.DISPATCH_DUE:
                return self.dispatch_due
            case Job.SWEEP:
                return self.sweep
            case Job.PROBE:
                return self.probe_tick
            case Job.VALIDATE:
                return self.validate_tick
            case Job.SYNC_ROTATION:
                return self.sync_tick
            case Job.WATCH:
                return self.watch_tick
            case Job.WEBHOOKS:
                return self.webhooks
