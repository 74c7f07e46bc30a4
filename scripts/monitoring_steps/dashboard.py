"""Grafana's JSON of a dashboard: panels in rows, with what every panel has alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

Json = dict[str, Any]
Threshold = tuple["float | None", str]  # from this value on (none: from the lowest), this colour

COLUMNS = 24
HEADER_HEIGHT = 1
# Grafana's own choice for a new panel.
HEIGHT = 8
# The newest classic format that Grafana 11 knows; later ones bring it up to date as they load it.
SCHEMA = 39
# What the panels' options are written for. Without it Grafana takes a panel for one of version 6 and converts it.
GRAFANA = "13.2.3"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTORS = {
    "{RUN": '{job=~"$job", instance=~"$instance"',
    "{DEVICE": '{job=~"$job", instance=~"$instance", device=~"$device"',
    "[RATE]": "[$__rate_interval]",
}


class Query(NamedTuple):
    """A query and what its series are called. `{RUN`, `{DEVICE` and `[RATE]` in it are filled in."""

    expr: str
    legend: str = "{{job}}"
    instant: bool = False
    format: str = "time_series"  # or heatmap, table


class Panel(NamedTuple):
    """A panel: what it is called, how it is drawn, its unit, what it means, and its queries."""

    title: str
    kind: str
    unit: str
    description: str
    queries: Sequence[Query]
    width: int = 8
    height: int = HEIGHT
    thresholds: Sequence[Threshold] = ()
    colours: Mapping[str, str] = {}
    repeat: str = ""  # a variable: one panel for each of its values
    maximum: float | None = None
    stacked: bool = False
    signed: bool = False  # has values below 0
    logarithmic: bool = False
    sparkline: bool = False


class Row(NamedTuple):
    """Panels under a heading; the first row needs none."""

    title: str
    panels: Sequence[Panel]


def shipped(root: Path) -> Path:
    """The folder of all that is shipped for Prometheus and Grafana."""
    return root / "cluster" / "monitoring"


def dashboard_file(root: Path) -> Path:
    return shipped(root) / "grafana" / "dashboards" / "mpt.json"


def text(rows: Sequence[Row]) -> str:
    """The file."""
    return json.dumps(dashboard(rows), indent=2) + "\n"


def dashboard(rows: Sequence[Row]) -> Json:
    """The dashboard: a file that can be imported as it is."""
    return {
        "uid": "mpt-training",
        "title": "mpt: training",
        "description": "Training runs of mpt: speed, what bounds it, learning, and the machine, per device and in all.",
        "tags": ["mpt", "training"],
        "schemaVersion": SCHEMA,
        "editable": False,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": annotations()},
        "templating": {"list": variables()},
        "links": [],
        "panels": list(placed(rows)),
    }


def variables() -> list[Json]:
    """What the viewer chooses: where the data is, then ever closer."""
    datasource = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
    }
    return [
        datasource,
        variable("job", "mpt_build_info"),
        variable("instance", 'mpt_build_info{job=~"$job"}'),
        variable("device", "mpt_rank_info" + SELECTORS["{RUN"] + "}"),
    ]


def variable(name: str, series: str) -> Json:
    """A choice among the values that a label has on some series; all of them, unless the viewer chooses."""
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": f"variable-{name}"},
        "regex": "",
        "refresh": 2,  # when the time range changes, too: runs come and go
        "sort": 7,  # naturally: cuda:2 before cuda:10
        "hide": 0,
        "includeAll": True,
        "allValue": ".+",
        "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def annotations() -> list[Json]:
    """Marks on every panel: when an alert began to fire."""
    return [
        {
            "name": "Alerts",
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": "red",
            "expr": filled('ALERTS{RUN, alertstate="firing"}'),
            "titleFormat": "{{alertname}}",
            "tagKeys": "severity,instance,device",
            "step": "15s",
        }
    ]


def placed(rows: Sequence[Row]) -> Iterator[Json]:
    """The panels of all rows from left to right and from top to bottom, each row under its heading."""
    number = top = 0
    for row in rows:
        if row.title:
            number += 1
            yield {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": HEADER_HEIGHT},
                "panels": [],
            }
            top += HEADER_HEIGHT
        left = height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            number += 1
            yield {"id": number, **drawn(panel), "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height}}
            left, height = left + panel.width, max(height, panel.height)
        top += height


def drawn(panel: Panel) -> Json:
    """A panel without its place."""
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in panel.colours.items()
    ]
    repeat = {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": 4} if panel.repeat else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "pluginVersion": GRAFANA,
        **repeat,
        "targets": [target(query, chr(ord("A") + place)) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults(panel), "overrides": overrides},
        "options": OPTIONS[panel.kind](panel),
        **EXTRAS.get(panel.kind, {}),
    }


def target(query: Query, reference: str) -> Json:
    """A query as Grafana keeps it."""
    return {
        "refId": reference,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": filled(query.expr),
        "legendFormat": query.legend,
        "format": query.format,
        "instant": query.instant,
        "range": not query.instant,
    }


def filled(expr: str) -> str:
    """A query with its selectors written out."""
    for short, long in SELECTORS.items():
        expr = expr.replace(short, long)
    return expr


def defaults(panel: Panel) -> Json:
    """How values are drawn: the unit, the scale, the colours."""
    field: Json = {"unit": panel.unit}
    if not panel.signed and not panel.logarithmic and panel.kind in ("timeseries", "bargauge"):
        field["min"] = 0
    if panel.maximum is not None:
        field["max"] = panel.maximum
    if panel.thresholds:
        steps = [{"value": value, "color": colour} for value, colour in panel.thresholds]
        field["thresholds"] = {"mode": "absolute", "steps": steps}
        field["color"] = {"mode": "thresholds"}
    elif panel.kind == "bargauge":
        field["color"] = {"mode": "continuous-BlPu"}
    elif panel.kind == "timeseries":
        field["color"] = {"mode": "palette-classic"}
    if panel.kind == "timeseries":
        field["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
        }
    return field


def last_value(**others: Any) -> Json:
    """The last value of each series."""
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, **others}


def curves(panel: Panel) -> Json:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none" if panel.stacked else "desc"},
    }


def number(panel: Panel) -> Json:
    return last_value(
        colorMode="value", graphMode="area" if panel.sparkline else "none", textMode="auto", justifyMode="auto"
    )


def bars(_panel: Panel) -> Json:
    return last_value(displayMode="basic", orientation="horizontal", valueMode="color", showUnfilled=True)


def heat(panel: Panel) -> Json:
    return {
        "calculate": False,  # Prometheus has sorted them into buckets
        "cellGap": 0,
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "fill": "dark-blue",
            "reverse": False,
            "steps": 64,
            "exponent": 0.5,
        },
        "yAxis": {"axisPlacement": "left", "unit": panel.unit},
        "rowsFrame": {"layout": "auto"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
    }


def table(_panel: Panel) -> Json:
    return {"showHeader": True, "cellHeight": "sm"}


OPTIONS = {"timeseries": curves, "stat": number, "bargauge": bars, "heatmap": heat, "table": table}
# Tables show labels alone: the value is 1, the time that of the query.
HIDDEN = {"Time": True, "Value": True, "__name__": True}
EXTRAS = {"table": {"transformations": [{"id": "organize", "options": {"excludeByName": HIDDEN}}]}}
