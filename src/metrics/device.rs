//! The series of each device.

use super::Watched;
use super::series::Series;
use crate::comm::Operation;
use crate::engine::phases::Phase;
use crate::error::Result;
use crate::events::RankStep;
use crate::plan::Plan;
use prometheus::{Counter, CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec};

/// The time that is no phase: what travelled while the device computed.
const OVERLAPPED: &str = "overlapped";

/// The series of a device.
pub struct DeviceSeries {
    /// Its rank.
    pub rank: usize,
    examples: IntCounter,
    examples_per_second: Gauge,
    flops_per_second: Gauge,
    memory: Gauge,
    /// What an example costs it: forward and backward.
    flops_per_example: f64,
    phases: [Counter; Phase::ALL.len()],
    overlapped: Counter,
    sent: [IntCounter; Operation::ALL.len()],
    received: [IntCounter; Operation::ALL.len()],
}

/// What has one series for each device, or some.
struct Families {
    rank_info: GaugeVec,
    examples: IntCounterVec,
    rates: GaugeVec,
    flops: GaugeVec,
    memory: GaugeVec,
    phases: CounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
}

impl Families {
    fn new(series: &Series) -> Result<Self> {
        let by_device = ["device"];
        let by_operation = ["device", "op"];
        Ok(Self {
            rank_info: series.gauges(
                "rank_info",
                "The rank of a device and its place along the data and the model axis.",
                &["rank", "device", "data_rank", "model_rank"],
            )?,
            examples: series.counters(
                "examples_total",
                "Examples that the device worked on in training; devices that hold channels of one example each count it.",
                &by_device,
            )?,
            rates: series.gauges(
                "examples_per_second",
                "Examples that the device works on in a second, on average over the last 30 s of training steps, \
                 evaluation and checkpoints left out; it falls when a step is overdue.",
                &by_device,
            )?,
            flops: series.gauges(
                "model_flops_per_second",
                "Floating-point operations a second at mpt_examples_per_second, as the plan counts them for the device's \
                 share of convolutions and linear layers, forward and backward.",
                &by_device,
            )?,
            memory: series.gauges(
                "device_memory_bytes",
                "Memory in use on the device at the last step: on a GPU by whatever programs, else what the process of its rank \
                 holds. Not a number where several CPU devices are one process, which hold it together.",
                &by_device,
            )?,
            phases: series.times(
                "phase_seconds_total",
                "Time of training steps by what the device was doing. The phases add up to the steps, but for overlapped: \
                 what travelled while the device computed.",
                &["device", "phase"],
            )?,
            sent: series.counters(
                "exchange_sent_bytes_total",
                "Bytes that other devices took from it.",
                &by_operation,
            )?,
            received: series.counters(
                "exchange_received_bytes_total",
                "Bytes that it took from other devices.",
                &by_operation,
            )?,
        })
    }

    /// The series of a device.
    fn of(&self, plan: &Plan, rank: usize, device: &str) -> DeviceSeries {
        let (data_rank, model_rank) = (plan.mesh.data_rank(rank), plan.mesh.model_rank(rank));
        let place = [rank, data_rank, model_rank].map(|number| number.to_string());
        self.rank_info.with_label_values(&[place[0].as_str(), device, &place[1], &place[2]]).set(1.0);
        let unknown = |family: &GaugeVec| {
            let gauge = family.with_label_values(&[device]);
            gauge.set(f64::NAN);
            gauge
        };
        DeviceSeries {
            rank,
            examples: self.examples.with_label_values(&[device]),
            examples_per_second: unknown(&self.rates),
            flops_per_second: unknown(&self.flops),
            memory: unknown(&self.memory),
            flops_per_example: plan.training_flops(model_rank) as f64,
            phases: Phase::ALL.map(|phase| self.phases.with_label_values(&[device, phase.name()])),
            overlapped: self.phases.with_label_values(&[device, OVERLAPPED]),
            sent: Operation::ALL.map(|operation| self.sent.with_label_values(&[device, operation.name()])),
            received: Operation::ALL.map(|operation| self.received.with_label_values(&[device, operation.name()])),
        }
    }
}

impl DeviceSeries {
    /// The series of every device that is shown.
    ///
    /// # Errors
    /// See [`Series::new`].
    pub fn of_all(series: &Series, watched: &Watched) -> Result<Vec<Self>> {
        let families = Families::new(series)?;
        Ok(watched.shown().map(|(rank, device)| families.of(&watched.plan, rank, device)).collect())
    }

    /// Counts a step.
    pub fn count(&self, own: &RankStep) {
        self.examples.inc_by(own.examples);
        for (counter, phase) in self.phases.iter().zip(Phase::ALL) {
            counter.inc_by(own.phases.get(phase).as_secs_f64());
        }
        self.overlapped.inc_by(own.overlapped.as_secs_f64());
        for ((sent, received), operation) in self.sent.iter().zip(&self.received).zip(Operation::ALL) {
            let volume = own.traffic.of(operation);
            sent.inc_by(volume.sent_bytes);
            received.inc_by(volume.received_bytes);
        }
        self.memory.set(own.memory.map_or(f64::NAN, |bytes| bytes as f64));
    }

    /// Shows its rate.
    pub fn show(&self, examples_per_second: f64) {
        self.examples_per_second.set(examples_per_second);
        self.flops_per_second.set(examples_per_second * self.flops_per_example);
    }
}
