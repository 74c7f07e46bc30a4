"""What the dashboard shows, for the person on call: is it healthy and how fast, what bounds it, does it learn, and the
machine.

In a query `{RUN` stands for a selector by the variables job and instance, `{DEVICE` for one by device too, and `[RATE]`
for the range that Grafana finds fit for rates. A job is a training run, an instance one of its hosts. What belongs to
the whole run every host reports, so its maximum is taken; what has a device only that device's host reports.
"""

from __future__ import annotations

from typing import Sequence

from .dashboard import Panel, Query, Row

DEVICE = "{{instance}} {{device}}"
BY_DEVICE = "sum by (job, instance, device)"
STEP_TIME = f'{BY_DEVICE} (rate(mpt_phase_seconds_total{{DEVICE, phase!="overlapped"}}[RATE]))'

# One colour a phase, on every panel: red is time in which a device can do nothing about it.
PHASES = {
    "data": "orange",
    "forward": "green",
    "exchange": "purple",
    "wait": "red",
    "backward": "blue",
    "reduce": "yellow",
    "optimizer": "super-light-blue",
}
GREEN, AMBER, RED = "green", "orange", "red"


def share(phase: str) -> str:
    """The share of a phase in a device's steps."""
    return f'{BY_DEVICE} (rate(mpt_phase_seconds_total{{DEVICE, phase="{phase}"}}[RATE])) / {STEP_TIME}'


def quantile(percent: int) -> Query:
    """The time in which so many percent of the steps are done."""
    rates = "sum by (job, le) (rate(mpt_step_duration_seconds_bucket{RUN}[RATE]))"
    return Query(f"histogram_quantile({percent / 100}, {rates})", "{{job}} " + f"p{percent}")


HEALTH: Sequence[Panel] = (
    Panel(
        "Endpoints up",
        "stat",
        "percentunit",
        "The share of the runs' endpoints that answered Prometheus the last time.",
        [Query("avg(up{RUN})", "up")],
        width=3,
        height=4,
        thresholds=[(None, RED), (1, GREEN)],
    ),
    Panel(
        "Alerts firing",
        "stat",
        "short",
        "Alerts of these runs that fire now, by the rules in cluster/monitoring/prometheus/alerts.yml. The README "
        "beside it says what to do on each. Where Prometheus does not have these rules this is 0.",
        [Query('count(ALERTS{RUN, alertstate="firing"}) or vector(0)', "firing")],
        width=3,
        height=4,
        thresholds=[(None, GREEN), (1, RED)],
    ),
    Panel(
        "Examples/sec",
        "stat",
        "short",
        "Training examples per second of each run, every example counted once however many devices share it.",
        [Query("max by (job) (rate(mpt_job_examples_total{RUN}[RATE]))")],
        width=5,
        height=4,
        sparkline=True,
    ),
    Panel(
        "Last step",
        "stat",
        "s",
        "The time since a step ended. It grows in an evaluation and while a checkpoint is written.",
        [Query("time() - max by (job) (mpt_last_step_timestamp_seconds{RUN})")],
        width=3,
        height=4,
        thresholds=[(None, GREEN), (60, AMBER), (300, RED)],
    ),
    Panel(
        "Time left",
        "stat",
        "s",
        "The steps that are left at the rate at hand; evaluations and checkpoints come on top.",
        [Query("max by (job) (mpt_remaining_steps{RUN}) / max by (job) (rate(mpt_steps_total{RUN}[RATE]))")],
        width=4,
        height=4,
    ),
    Panel(
        "Epoch",
        "stat",
        "none",
        "The epoch at hand, from 1.",
        [Query("max by (job) (mpt_epoch{RUN})")],
        width=2,
        height=4,
    ),
    Panel(
        "Last checkpoint",
        "stat",
        "s",
        "The time since a checkpoint was written: what would be lost if the run ended now. Empty until there is one.",
        [Query("time() - max by (job) (mpt_last_checkpoint_timestamp_seconds{RUN})")],
        width=4,
        height=4,
        thresholds=[(None, GREEN), (3600, AMBER), (7200, RED)],
    ),
    Panel(
        "Examples/sec of the run",
        "timeseries",
        "short",
        "Training examples per second of each run, every example counted once. It falls to 0 in an evaluation.",
        [Query("max by (job) (rate(mpt_job_examples_total{RUN}[RATE]))")],
        width=9,
    ),
    Panel(
        "Examples/sec per device",
        "timeseries",
        "short",
        "Training examples per second that each device works on. Under model-parallel every device works on every "
        "example, so devices do not add up to the run; under data-parallel they do.",
        [Query(f"{BY_DEVICE} (rate(mpt_examples_total{{DEVICE}}[RATE]))", DEVICE)],
        width=9,
    ),
    Panel(
        "Examples/sec per device, by mpt",
        "bargauge",
        "short",
        "Examples per second of each device as mpt counts them: over the last half minute of its training steps, "
        "without evaluations and checkpoints. It falls when a step is overdue.",
        [Query("mpt_examples_per_second{DEVICE}", DEVICE)],
        width=6,
    ),
)

BOUND: Sequence[Panel] = (
    Panel(
        "Where the time of $device goes",
        "timeseries",
        "percentunit",
        "Seconds per second in each phase of a step, stacked; up to 100 % is time outside steps, such as an "
        "evaluation. Much data: the loader is too slow. Much exchange or reduce: the link. Much wait: another device "
        "is late, and the one that waits least is it. Else it is compute, as it should be. The mean of the chosen "
        "instances.",
        [
            Query(
                "avg by (phase) (sum by (job, instance, phase) "
                '(rate(mpt_phase_seconds_total{DEVICE, phase!="overlapped"}[RATE])))',
                "{{phase}}",
            )
        ],
        width=24,
        repeat="device",
        stacked=True,
        colours=PHASES,
        maximum=1,
    ),
    Panel(
        "Waiting for other devices",
        "timeseries",
        "percentunit",
        "The share of each device's steps in which it waits for another one to arrive. The one that waits least is "
        "the one that is waited for.",
        [Query(share("wait"), DEVICE)],
    ),
    Panel(
        "Getting data",
        "timeseries",
        "percentunit",
        "The share of each device's steps that goes into getting a batch and bringing it there.",
        [Query(share("data"), DEVICE)],
    ),
    Panel(
        "Batches ready in the loader",
        "timeseries",
        "short",
        "How many batches were ready when the first device asked for one. At 0 the devices wait for the loader.",
        [Query("mpt_loader_queue_batches{RUN}", "{{job}} {{instance}}")],
    ),
    Panel(
        "Sent, by kind of collective",
        "timeseries",
        "Bps",
        "Bytes per second that the devices send, all together, by collective; below the line, what they receive.",
        [
            Query("sum by (job, op) (rate(mpt_exchange_sent_bytes_total{DEVICE}[RATE]))", "{{job}} {{op}} sent"),
            Query(
                "-sum by (job, op) (rate(mpt_exchange_received_bytes_total{DEVICE}[RATE]))", "{{job}} {{op}} received"
            ),
        ],
        signed=True,
    ),
    Panel(
        "Speed of travel",
        "timeseries",
        "Bps",
        "Bytes that a device sends per second in which anything travels, exposed or hidden behind compute: what the "
        "link gives, however much or little there is to send.",
        [
            Query(
                f"{BY_DEVICE} (rate(mpt_exchange_sent_bytes_total{{DEVICE}}[RATE])) / {BY_DEVICE} "
                '(rate(mpt_phase_seconds_total{DEVICE, phase=~"exchange|reduce|overlapped"}[RATE]))',
                DEVICE,
            )
        ],
    ),
    Panel(
        "Travel hidden behind compute",
        "timeseries",
        "percentunit",
        "The share of the time of exchanges and reductions in which the device computed meanwhile.",
        [
            Query(
                f'{BY_DEVICE} (rate(mpt_phase_seconds_total{{DEVICE, phase="overlapped"}}[RATE])) / {BY_DEVICE} '
                '(rate(mpt_phase_seconds_total{DEVICE, phase=~"exchange|reduce|overlapped"}[RATE]))',
                DEVICE,
            )
        ],
    ),
    Panel(
        "Floating-point operations per device",
        "timeseries",
        "flops",
        "What the device's share of convolutions and linear layers needs, forward and backward, per second, as the "
        "plan counts it: what is computed twice does not count.",
        [Query("mpt_model_flops_per_second{DEVICE}", DEVICE)],
    ),
    Panel(
        "Time of a step",
        "timeseries",
        "s",
        "The median, the slowest tenth and the slowest hundredth of steps, as far as the histogram's buckets tell, "
        "and the mean.",
        [
            quantile(50),
            quantile(90),
            quantile(99),
            Query(
                "sum by (job) (rate(mpt_step_duration_seconds_sum{RUN}[RATE])) "
                "/ sum by (job) (rate(mpt_step_duration_seconds_count{RUN}[RATE]))",
                "{{job}} mean",
            ),
        ],
    ),
    Panel(
        "Steps by the time they take",
        "heatmap",
        "s",
        "Steps per second by the time they take. Two bands are two kinds of steps, a wide one steps that something "
        "disturbs.",
        [Query("sum by (le) (rate(mpt_step_duration_seconds_bucket{RUN}[RATE]))", "{{le}}", format="heatmap")],
    ),
)

LEARNING: Sequence[Panel] = (
    Panel(
        "Loss",
        "timeseries",
        "none",
        "The mean loss per example: of training, over the last half minute of steps; of the test set, at each "
        "evaluation.",
        [Query("max by (job, subset) (mpt_loss{RUN})", "{{job}} {{subset}}")],
    ),
    Panel(
        "Accuracy",
        "timeseries",
        "percentunit",
        "The share of examples whose class was found: of training, over the last half minute of steps; of the test "
        "set, at each evaluation.",
        [Query("max by (job, subset) (mpt_accuracy_ratio{RUN})", "{{job}} {{subset}}")],
        maximum=1,
    ),
    Panel(
        "Norm of the gradient",
        "timeseries",
        "none",
        "The 2-norm of the step's gradient over all parameters, before weight decay. Towards 0 nothing is learned; a "
        "jump comes before a loss that is not finite.",
        [Query("max by (job) (mpt_gradient_norm{RUN})")],
        logarithmic=True,
    ),
    Panel(
        "Learning rate",
        "timeseries",
        "none",
        "The learning rate of the last step.",
        [Query("max by (job) (mpt_learning_rate{RUN})")],
    ),
    Panel(
        "Steps left out",
        "timeseries",
        "ops",
        "Steps per second whose loss or gradient was infinite or not a number, which changed nothing "
        "(train.nonfinite=skip). Any at all: look at the norm of the gradient.",
        [Query("max by (job) (rate(mpt_nonfinite_steps_total{RUN}[RATE]))")],
    ),
    Panel(
        "Steps and evaluation",
        "timeseries",
        "ops",
        "Steps per second, and examples per second that are evaluated. When both are 0 the run stands still.",
        [
            Query("max by (job) (rate(mpt_steps_total{RUN}[RATE]))", "{{job}} steps"),
            Query("max by (job) (rate(mpt_evaluated_examples_total{RUN}[RATE]))", "{{job}} examples evaluated"),
        ],
    ),
)

MACHINE: Sequence[Panel] = (
    Panel(
        "Memory per device",
        "timeseries",
        "bytes",
        "Memory in use on each GPU. Of CPU devices, the threads of one process, it is not known: the next panel has "
        "it.",
        [Query("mpt_device_memory_bytes{DEVICE}", DEVICE)],
    ),
    Panel(
        "Memory of the process",
        "timeseries",
        "bytes",
        "Resident memory of the process that serves the endpoint; with one process per GPU, the first of its host.",
        [Query("process_resident_memory_bytes{RUN}", "{{job}} {{instance}}")],
    ),
    Panel(
        "Cores in use",
        "timeseries",
        "short",
        "CPU seconds per second of the process that serves the endpoint.",
        [Query("rate(process_cpu_seconds_total{RUN}[RATE])", "{{job}} {{instance}}")],
    ),
    Panel(
        "Images decoded",
        "timeseries",
        "ops",
        "Images per second that the loader decodes, and that it cannot decode.",
        [
            Query("rate(mpt_images_decoded_total{RUN}[RATE])", "{{job}} {{instance}}"),
            Query("rate(mpt_image_decode_failures_total{RUN}[RATE])", "{{job}} {{instance}} failed"),
        ],
    ),
    Panel(
        "Age of the last checkpoint",
        "timeseries",
        "s",
        "The time since a checkpoint was written. A saw whose teeth are the time between two.",
        [Query("time() - max by (job) (mpt_last_checkpoint_timestamp_seconds{RUN})")],
    ),
    Panel(
        "Open files",
        "timeseries",
        "percentunit",
        "Open file descriptors, as a share of the limit.",
        [Query("process_open_fds{RUN} / process_max_fds{RUN}", "{{job}} {{instance}}")],
        maximum=1,
    ),
    Panel(
        "Runs",
        "table",
        "none",
        "What each instance trains: model, mode, mesh and precision, and which versions of mpt and libtorch do it.",
        [
            Query(
                "mpt_run_info{RUN} * on (job, instance) group_left (version, libtorch) mpt_build_info{RUN}",
                "",
                instant=True,
                format="table",
            )
        ],
        width=12,
    ),
    Panel(
        "Ranks",
        "table",
        "none",
        "Which rank each device is, and its place in the mesh.",
        [Query("mpt_rank_info{DEVICE}", "", instant=True, format="table")],
        width=12,
    ),
)

ROWS: Sequence[Row] = (
    Row("", HEALTH),
    Row("What bounds it: data, compute, the link or another device", BOUND),
    Row("Does it learn", LEARNING),
    Row("The machine", MACHINE),
)
