"""Runs where the reference parser is installed: reads an exposition from stdin and prints its families as JSON.

A text that is not in Prometheus's format ends this with the parser's own error.
"""

from __future__ import annotations

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    if family.name in families:
        sys.exit(f"the family {family.name} comes twice")
    seen = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
    if len(set(seen)) != len(seen):
        sys.exit(f"a series of {family.name} comes twice")
    labels = sorted({label for sample in family.samples for label in sample.labels})
    families[family.name] = {"type": family.type, "help": family.documentation, "labels": labels, "series": len(seen)}
json.dump(families, sys.stdout)
