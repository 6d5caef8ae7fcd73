"""Writes Prometheus's rules, Grafana's dashboard and the table of alerts: ``python -m deploy.generate``."""

import sys
from pathlib import Path

from deploy.monitoring.alerts import alerts
from deploy.monitoring.rules import Pace, rules_file

ROOT = Path(__file__).parents[1]
PACE = Pace()


def files() -> dict[str, str]:
    """Each file, by its path in the repository."""
    return {"deploy/prometheus/byok-alerts.yml": rules_file(alerts(PACE), PACE)}


def main() -> None:
    """Write them."""
    for name, text in files().items():
        (ROOT / name).write_text(text)
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
