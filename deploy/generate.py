"""Writes Prometheus's rules, Grafana's dashboard and the table of alerts: ``python -m deploy.generate``."""

import json
import re
import sys
from pathlib import Path

from deploy.monitoring.alerts import alerts
from deploy.monitoring.dashboard import dashboard
from deploy.monitoring.panels import rows
from deploy.monitoring.rules import Pace, rules_file

ROOT = Path(__file__).parents[1]
PACE = Pace()
_TABLE_MARK = "<!-- alerts -->\n"


def files() -> dict[str, str]:
    """Each file, by its path in the repository."""
    page = "docs/monitoring.md"
    return {
        "deploy/prometheus/byok-alerts.yml": rules_file(alerts(PACE), PACE),
        "deploy/grafana/byok.json": json.dumps(dashboard("byok", "byok", rows()), indent=2) + "\n",
        page: with_table((ROOT / page).read_text()),
    }


def with_table(page: str) -> str:
    """The page with its table of alerts written anew."""
    lines = ["| alert | severity | lasting | what |", "|---|---|---|---|"]
    for one in alerts(PACE):
        link = f"[{one.name}](runbook.md#{one.name.lower()})"
        lines.append(f"| {link} | {one.severity} | {PACE.wait(one.lasting)} | {one.summary} |")
    table = "".join(f"{line}\n" for line in lines)
    return re.sub(f"{_TABLE_MARK}(?:\\|.*\n)*", lambda _: _TABLE_MARK + table, page)


def main() -> None:
    """Write them."""
    for name, text in files().items():
        (ROOT / name).write_text(text)
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
