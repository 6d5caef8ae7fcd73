"""Which tenants a process names in labels: those with trouble, and never more than a few."""

import threading

from byok.core.metric_list import MAX_TENANTS, OTHER_TENANTS, KmsOutcome


class NamedTenants:
    """Names a tenant from its first trouble on, until the process ends. Thread-safe."""

    def __init__(self, most: int = MAX_TENANTS) -> None:
        self._most = most
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def label(self, tenant: str, outcome: KmsOutcome) -> str:
        """What to put where a tenant's name goes: nothing for one without trouble."""
        if tenant in self._named:
            return tenant
        if outcome is KmsOutcome.OK:
            return ""
        with self._lock:
            if len(self._named) < self._most:
                self._named.add(tenant)
            return tenant if tenant in self._named else OTHER_TENANTS
