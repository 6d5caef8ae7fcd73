"""The periods of what Beat sets off."""

from dataclasses import dataclass
from datetime import timedelta


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
