"""What an alert is, and how it becomes a rule of Prometheus."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import yaml

RUNBOOK = "docs/runbook.md"

# The jobs of deploy/prometheus/prometheus.yml.
EXPORTER_JOB = "byok-exporter"
WORKERS_JOB = "byok-workers"

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Severity(StrEnum):
    """Whom it concerns."""

    PAGE = "page"  # somebody has to act now, at night as well
    TICKET = "ticket"  # on the next working day


@dataclass(frozen=True, slots=True)
class Pace:
    """How long windows, waits and thresholds are: those of a fleet by day, or of a test in a hurry.

    Days until a customer's deadline are not touched: a test can put a deadline where it likes.
    """

    divisor: float = 1.0
    shortest: timedelta = timedelta(0)  # a window needs two samples in it

    def seconds(self, usual: timedelta) -> float:
        """A threshold."""
        return usual.total_seconds() / self.divisor

    def window(self, usual: timedelta) -> str:
        """A range to look back over, as Prometheus writes it."""
        return _duration(max(usual / self.divisor, self.shortest))

    def wait(self, usual: timedelta) -> str:
        """How long something has to last."""
        return _duration(usual / self.divisor)


def _duration(duration: timedelta) -> str:
    milliseconds = round(duration / timedelta(milliseconds=1))
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. Two may share a name, as its milder and its graver form.

    Attributes:
        expression: PromQL; what it returns is what fires.
        lasting: for how long it must hold before somebody is told.
        kept: for how long it goes on firing when it holds no more. An exporter that is restarted, or one
            scrape that fails, must not end an alert and raise it again.
        description: with Prometheus's templates for labels and value.
    """

    name: str
    severity: Severity
    expression: str
    summary: str
    description: str
    lasting: timedelta = timedelta(0)
    kept: timedelta = 5 * MINUTE

    @property
    def runbook(self) -> str:
        """Where to read on: a heading of the runbook, as GitHub makes anchors of them."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def rule(self, pace: Pace) -> dict[str, object]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": pace.wait(self.lasting),
            "keep_firing_for": pace.wait(self.kept),
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook": self.runbook,
            },
        }


def counted(selector: str, window: str) -> str:
    """What all processes counted within the window, of series that are there from a process's start.

    What one counted before it was first asked may be years old, and is not told.
    """
    return f"sum(increase({selector}[{window}]))"


def counted_with_first(selector: str, window: str) -> str:
    """The same of series that begin with an event: `increase` does not see what one begins with.

    One has begun within the window where its process was asked more often than it was there. Else it is
    older: Prometheus itself began, or asked nobody for a while.
    """
    target = "job, instance"
    asked = f"max by ({target}) (sum_over_time(up[{window}]))"
    begun = f"count_over_time({selector}[{window}]) < on ({target}) group_left () {asked}"
    first = f"({selector} unless {selector} offset {window}) and {begun}"
    return f"sum(({first}) or increase({selector}[{window}]))"


def rules_file(alerts: tuple[Alert, ...], pace: Pace) -> str:
    """A rule file. ``keep_firing_for`` asks for Prometheus 2.42 or newer."""
    groups = [{"name": "byok", "rules": [alert.rule(pace) for alert in alerts]}]
    body = yaml.safe_dump({"groups": groups}, sort_keys=False, width=110, allow_unicode=True)
    return f"# Written by `python -m deploy.generate` from deploy/monitoring: change it there.\n{body}"
