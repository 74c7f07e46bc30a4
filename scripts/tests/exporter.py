#!/usr/bin/env python3
"""Instead of `mpt train`: serves the families of a run of two devices on a free port of the loopback, and says where.

Its numbers grow with the time; everything but its shape is invented.
"""

from __future__ import annotations

import math
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator

BEGUN = time.time()
DEVICES = ("cpu:0", "cpu:1")
PHASES = {
    "data": 0.05,
    "forward": 0.3,
    "exchange": 0.1,
    "wait": 0.1,
    "backward": 0.35,
    "reduce": 0.05,
    "optimizer": 0.05,
    "overlapped": 0.1,
}
OPERATIONS = ("all-gather", "reduce-scatter", "all-reduce")
BUCKETS = ("0.01", "0.1", "+Inf")


def families(now: float) -> Iterator[tuple[str, str, list[tuple[str, float]]]]:
    """The name, the type and the series of each family after so many seconds."""
    devices = [f'device="{device}"' for device in DEVICES]
    per_device = lambda value: [(f"{{{device}}}", value) for device in devices]  # noqa: E731
    operations = [(f'{{{device},op="{each}"}}', 1e6 * now) for device in devices for each in OPERATIONS]
    steps = 20 * now
    yield "mpt_build_info", "gauge", [('{version="0.1.0"}', 1)]
    yield "mpt_run_info", "gauge", [('{model="quick",mode="model-parallel",mesh="1x2",precision="fp32"}', 1)]
    yield "mpt_rank_info", "gauge", [
        (f'{{rank="{rank}",{device},data_rank="0",model_rank="{rank}"}}', 1) for rank, device in enumerate(devices)
    ]
    yield "mpt_examples_total", "counter", per_device(64 * steps)
    yield "mpt_examples_per_second", "gauge", per_device(1280)
    yield "mpt_job_examples_total", "counter", [("", 64 * steps)]
    yield "mpt_steps_total", "counter", [("", steps)]
    yield "mpt_remaining_steps", "gauge", [("", 1e6 - steps)]
    yield "mpt_evaluated_examples_total", "counter", [("", steps)]
    yield "mpt_epoch", "gauge", [("", 1)]
    yield "mpt_step_duration_seconds", "histogram", [
        *((f'_bucket{{le="{bound}"}}', steps * share) for bound, share in zip(BUCKETS, (0.2, 0.9, 1))),
        ("_sum", steps / 20),
        ("_count", steps),
    ]
    yield "mpt_phase_seconds_total", "counter", [
        (f'{{{device},phase="{phase}"}}', share * now) for device in devices for phase, share in PHASES.items()
    ]
    yield "mpt_exchange_sent_bytes_total", "counter", operations
    yield "mpt_exchange_received_bytes_total", "counter", operations
    yield "mpt_loss", "gauge", [('{subset="train"}', 0.3), ('{subset="test"}', 0.4)]
    yield "mpt_accuracy_ratio", "gauge", [('{subset="train"}', 0.9), ('{subset="test"}', 0.8)]
    yield "mpt_model_flops_per_second", "gauge", per_device(1e9)
    yield "mpt_learning_rate", "gauge", [("", 0.05)]
    yield "mpt_gradient_norm", "gauge", [("", 1.5)]
    yield "mpt_nonfinite_steps_total", "counter", [("", 0)]
    yield "mpt_loader_queue_batches", "gauge", [("", 3)]
    yield "mpt_images_decoded_total", "counter", [("", 0)]
    yield "mpt_image_decode_failures_total", "counter", [("", 0)]
    yield "mpt_device_memory_bytes", "gauge", per_device(math.nan)
    yield "mpt_last_step_timestamp_seconds", "gauge", [("", BEGUN + now)]
    yield "mpt_last_checkpoint_timestamp_seconds", "gauge", [("", BEGUN)]
    yield "process_cpu_seconds_total", "counter", [("", now)]
    yield "process_resident_memory_bytes", "gauge", [("", 1e8)]
    yield "process_start_time_seconds", "gauge", [("", BEGUN)]
    yield "process_open_fds", "gauge", [("", 10)]
    yield "process_max_fds", "gauge", [("", 1024)]


def text() -> str:
    """The exposition now."""
    lines = []
    for name, kind, series in families(time.time() - BEGUN):
        lines += [f"# HELP {name} What {name} is.", f"# TYPE {name} {kind}"]
        lines += [f"{name}{labels} {value}" for labels, value in series]
    return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        body = text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"mpt: metrics at http://127.0.0.1:{server.server_address[1]}/metrics", file=sys.stderr, flush=True)
    server.serve_forever()
