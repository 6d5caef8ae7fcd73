"""The periods of what Beat sets off."""

from collections.abc import Mapping
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

    @property
    def of_jobs(self) -> Mapping[Job, timedelta]:
        """How often each job is to begin."""
        return {
            Job.DISPATCH_DUE: self.dispatch_due,
            Job.SWEEP: self.sweep,
            Job.PROBE: self.probe_tick,
            Job.VALIDATE: self.validate_tick,
            Job.SYNC_ROTATION: self.sync_tick,
        }
