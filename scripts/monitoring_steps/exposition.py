"""What an endpoint serves, read by others' programs, promtool and the reference parser; and whether all is there."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Mapping, NamedTuple

ANSWER_SECONDS = 30
TEXT_FORMAT = "text/plain; version=0.0.4"
# Every family, its type and the labels that are asked for, as Python's parser names them: a counter without its _total.
FAMILIES: Mapping[str, tuple[str, frozenset[str]]] = {
    name: (kind, frozenset(labels.split()))
    for name, kind, labels in (
        ("mpt_build_info", "gauge", "version"),
        ("mpt_run_info", "gauge", "model mode mesh precision"),
        ("mpt_rank_info", "gauge", "rank device data_rank model_rank"),
        ("mpt_examples", "counter", "device"),
        ("mpt_examples_per_second", "gauge", "device"),
        ("mpt_job_examples", "counter", ""),
        ("mpt_steps", "counter", ""),
        ("mpt_remaining_steps", "gauge", ""),
        ("mpt_evaluated_examples", "counter", ""),
        ("mpt_epoch", "gauge", ""),
        ("mpt_step_duration_seconds", "histogram", "le"),
        ("mpt_phase_seconds", "counter", "device phase"),
        ("mpt_exchange_sent_bytes", "counter", "device op"),
        ("mpt_exchange_received_bytes", "counter", "device op"),
        ("mpt_loss", "gauge", "subset"),
        ("mpt_accuracy_ratio", "gauge", "subset"),
        ("mpt_model_flops_per_second", "gauge", "device"),
        ("mpt_learning_rate", "gauge", ""),
        ("mpt_gradient_norm", "gauge", ""),
        ("mpt_nonfinite_steps", "counter", ""),
        ("mpt_loader_queue_batches", "gauge", ""),
        ("mpt_images_decoded", "counter", ""),
        ("mpt_image_decode_failures", "counter", ""),
        ("mpt_device_memory_bytes", "gauge", "device"),
        ("mpt_last_step_timestamp_seconds", "gauge", ""),
        ("mpt_last_checkpoint_timestamp_seconds", "gauge", ""),
        ("process_cpu_seconds", "counter", ""),
        ("process_resident_memory_bytes", "gauge", ""),
        ("process_start_time_seconds", "gauge", ""),
        ("process_open_fds", "gauge", ""),
        ("process_max_fds", "gauge", ""),
    )
}


class Served(NamedTuple):
    """What an endpoint serves, and what it says that this is."""

    kind: str
    text: str


def scrape(address: str) -> Served:
    """Asks an endpoint, as Prometheus does."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=ANSWER_SECONDS) as answer:
        return Served(answer.headers["Content-Type"], answer.read().decode())


def problems(served: Served, promtool: Path, python: Path, scripts: Path) -> list[str]:
    """What is wrong with an exposition."""
    found, text = [], served.text
    if not served.kind.startswith(TEXT_FORMAT):
        found.append(f"the Content-Type is {served.kind}, which Prometheus 3 does not take for {TEXT_FORMAT}")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    if checked.returncode != 0:
        found.append(f"promtool check metrics: {(checked.stdout + checked.stderr).strip()}")
    parsed = subprocess.run(
        [python, "-B", "-P", "-m", "monitoring_steps.reference"],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(scripts), "PYTHONNOUSERSITE": "1"},
    )
    if parsed.returncode != 0:
        return [*found, f"the reference parser: {parsed.stderr.strip()}"]
    return [*found, *missing(json.loads(parsed.stdout))]


def missing(families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the families lack."""
    found = []
    for name, (kind, labels) in FAMILIES.items():
        family = families.get(name)
        if family is None:
            found.append(f"{name} is not there")
        elif family["type"] != kind or not labels <= set(family["labels"]):
            found.append(
                f"{name} is a {family['type']} with the labels {', '.join(family['labels'])}; "
                f"it should be a {kind} with {', '.join(sorted(labels)) or 'none'}"
            )
    return found + [f"{name} has no help" for name, family in families.items() if not family["help"]]
