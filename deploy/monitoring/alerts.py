"""Every alert, once: the rule file, the table in docs/monitoring.md and the tests are made from these.

Gauges of the fleet come from each exporter that runs, and say the same: of several the maximum is taken,
never the sum. What processes count is summed after `rate`, so that one that starts anew takes nothing away.
"""

from deploy.monitoring.customer_alerts import of_customers, of_kms, of_rotations
from deploy.monitoring.process_alerts import of_integrity, of_monitoring, of_processes
from deploy.monitoring.rules import Alert, Pace


def alerts(pace: Pace) -> tuple[Alert, ...]:
    """All alerts, in the order of the runbook."""
    return (
        *of_customers(pace),
        *of_rotations(pace),
        *of_kms(pace),
        *of_integrity(pace),
        *of_processes(pace),
        *of_monitoring(),
    )
