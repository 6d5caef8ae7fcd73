"""What each alert makes of made-up series: cases for ``promtool test rules``. Metrics are named as Prometheus
shows them, not by the constants that the rules are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PAGE, TICKET = "page", "ticket"
REACHED = {'byok_reachable{instance="e1",server="postgresql"}': "1x10000"}


@dataclass(frozen=True)
class Fired:
    """An alert as it is to be told."""

    severity: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Series, a sample a step, and what an alert is to say ``at`` some minutes: nothing, or these."""

    alert: str
    what: str
    series: Mapping[str, str]
    at: Mapping[float, Sequence[Fired]]
    step_minutes: int = 1

    def group(self, annotations: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[str, Any]:
        """The test group as promtool reads it. ``annotations``: of each alert, all but the description."""
        return {
            "name": f"{self.alert}: {self.what}",
            "interval": f"{self.step_minutes}m",
            "input_series": [{"series": name, "values": values} for name, values in self.series.items()],
            "alert_rule_test": [
                {
                    "eval_time": f"{round(minutes * 60)}s",
                    "alertname": self.alert,
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": one.severity, **one.labels},
                            "exp_annotations": {
                                **annotations[self.alert, one.severity],
                                "description": one.description,
                            },
                        }
                        for one in fired
                    ],
                }
                for minutes, fired in self.at.items()
            ],
        }
