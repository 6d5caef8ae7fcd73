"""A Grafana dashboard as JSON, from rows of panels.

The classic model of Grafana 11 (schema version 39), which 12 and 13 read and bring up to their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_SCHEMA_VERSION = 39
_COLUMNS = 24  # of Grafana's grid
_HEIGHTS = {"stat": 4, "timeseries": 8, "table": 8}
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Kind(StrEnum):
    """Grafana's panels, those that are used here."""

    STAT = "stat"
    TIME_SERIES = "timeseries"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what its series are called: text with ``{{label}}``."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. ``unit`` is one of Grafana's ids; ``red_from``: the value from which a stat is red."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: Kind = Kind.TIME_SERIES
    width: int = 8
    red_from: float | None = None

    def model(self, panel_id: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana reads it, at its place in the grid."""
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.red_from is not None:
            steps.append({"color": "red", "value": self.red_from})
        return {
            "id": panel_id,
            "type": self.kind.value,
            "title": self.title,
            "description": self.description,
            "datasource": _DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": _HEIGHTS[self.kind]},
            "fieldConfig": {
                "defaults": {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}},
                "overrides": [],
            },
            "options": {},
            "targets": [self._target(number, query) for number, query in enumerate(self.queries)],
        }

    def _target(self, number: int, query: Query) -> dict[str, Any]:
        is_range = self.kind is Kind.TIME_SERIES
        return {
            "refId": chr(ord("A") + number),
            "datasource": _DATASOURCE,
            "expr": query.expression,
            "legendFormat": query.legend,
            "range": is_range,
            "instant": not is_range,
            "format": "table" if self.kind is Kind.TABLE else "time_series",
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it, from the left to the right and down."""

    title: str
    panels: Sequence[Panel]


def dashboard(title: str, uid: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The dashboard. Which Prometheus it asks is a variable of its own."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["byok"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "refresh": "30s",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "hide": 0,
                    "includeAll": False,
                    "multi": False,
                    "options": [],
                    "current": {},
                }
            ]
        },
        "annotations": {"list": []},
        "links": [],
        "panels": list(_lay_out(rows)),
    }


def _lay_out(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    panel_id, y = 1, 0
    for row in rows:
        grid = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        yield {
            "id": panel_id,
            "type": "row",
            "title": row.title,
            "gridPos": grid,
            "collapsed": False,
            "panels": [],
        }
        panel_id, y = panel_id + 1, y + 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield panel.model(panel_id, x, y)
            panel_id, x, tallest = panel_id + 1, x + panel.width, max(tallest, _HEIGHTS[panel.kind])
        y += tallest
