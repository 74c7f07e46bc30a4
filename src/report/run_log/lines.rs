//! The lines of `metrics.jsonl`: what they tell of a step and of an epoch, and which of them a resumed run keeps.

use crate::checkpoint::Position;
use crate::clock::time_of_day;
use crate::engine::phases::Phase;
use crate::events::{Bottleneck, Epoch, RankStep, Shares, Step};
use crate::report::epochs;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, BufReader, Read};

/// The line of a step on these devices.
pub fn step(step: &Step, devices: &[String]) -> Value {
    let seconds = step.time.as_secs_f64();
    let layers: Map<String, Value> =
        step.layer_gradient_norms.iter().map(|(layer, norm)| (layer.clone(), json!(norm))).collect();
    let devices: Vec<Value> =
        devices.iter().zip(&step.ranks).map(|(device, own)| rank_step(device, own, seconds)).collect();
    json!({
        "kind": "step", "step": step.step, "epoch": step.epoch,
        "loss": step.outcome.loss(), "accuracy": step.outcome.accuracy(), "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm, "layer_gradient_norms": layers,
        "examples": step.outcome.examples, "seconds": seconds,
        "examples_per_second": rate(step.outcome.examples, seconds),
        "loader_queue": step.loader_queue, "time": time_of_day(), "devices": devices,
    })
}

fn rank_step(device: &str, own: &RankStep, seconds: f64) -> Value {
    let mut line = json!({ "device": device, "examples_per_second": rate(own.examples, seconds) });
    for phase in Phase::ALL {
        line[format!("{}_seconds", phase.name())] = own.phases.get(phase).as_secs_f64().into();
    }
    // Hidden behind compute: no part of the phases.
    line["overlapped_seconds"] = own.overlapped.as_secs_f64().into();
    // How long the others waited for it, added up.
    line["awaited_seconds"] = own.awaited.as_secs_f64().into();
    // A part of data_seconds.
    line["loader_wait_seconds"] = own.loader_wait.as_secs_f64().into();
    line["sent_bytes"] = own.traffic.sent_bytes().into();
    line["received_bytes"] = own.traffic.received_bytes().into();
    line["memory_bytes"] = own.memory.into();
    line
}

/// The line of an epoch that ended after `step` steps of the run, and what bounded its training.
pub fn epoch(epoch: &Epoch, step: u64, bottleneck: Option<&Bottleneck>) -> Value {
    let seconds = epoch.train_time.as_secs_f64();
    json!({
        "kind": "epoch", "epoch": epoch.epoch, "step": step,
        "train_loss": epoch.train.loss(), "train_accuracy": epoch.train.accuracy(),
        "test_loss": epoch.test.map(|test| test.loss()), "test_accuracy": epoch.test.map(|test| test.accuracy()),
        "examples_per_second": rate(epoch.train.examples, seconds), "seconds": seconds, "bottleneck": bottleneck.map(bound), "time": time_of_day(),
    })
}

fn bound(bottleneck: &Bottleneck) -> Value {
    let Shares { data, compute, link, waiting } = bottleneck.shares;
    json!({
        "bound": bottleneck.bound.name(),
        "data_share": data, "compute_share": compute, "link_share": link, "wait_share": waiting,
    })
}

fn rate(examples: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { examples as f64 / seconds } else { 0.0 }
}

/// What a resumed run keeps of its record.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// The length of the lines.
    pub length: u64,
    /// The epochs that they tell of.
    pub epochs: Vec<epochs::Epoch>,
    /// Those lines that tell of the last step.
    pub of_last_step: Vec<Value>,
}

impl Kept {
    /// The lines of a record that tell of nothing after `position`. The epoch at hand is told of when it is over.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn of(record: impl Read, position: &Position) -> io::Result<Self> {
        let (mut reader, mut line, mut kept) = (BufReader::new(record), Vec::new(), Self::default());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            let done = done_line(&line, position).filter(|_| line.ends_with(b"\n"));
            // What a crash has cut short tells nothing either.
            let Some(value) = done else { return Ok(kept) };
            kept.length += length as u64;
            kept.epochs.extend(epochs::of_line(&value));
            if value["step"] == position.step {
                kept.of_last_step.push(value);
            }
        }
    }
}

/// A line of the record, if it tells of what was done at `position`.
fn done_line(line: &[u8], position: &Position) -> Option<Value> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let number = |key: &str| value[key].as_u64().unwrap_or(0);
    let done = match value["kind"].as_str() {
        Some("step") => number("step") <= position.step,
        Some("epoch") => number("epoch") < position.epoch,
        _ => true,
    };
    done.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_run_keeps_what_was_done() {
        let lines = [
            "{\"kind\":\"step\",\"step\":1,\"epoch\":1}\n",
            "{\"kind\":\"epoch\",\"epoch\":1,\"step\":1,\"train_loss\":2.0}\n",
            "{\"kind\":\"step\",\"step\":2,\"epoch\":2}\n",
            "{\"kind\":\"epoch\",\"epoch\":2,\"step\":2,\"train_loss\":1.0}\n",
        ];
        let record = lines.concat();
        // The second epoch's evaluation is done again.
        let position = Position { step: 2, epoch: 2, ..Position::default() };
        let kept = Kept::of(record.as_bytes(), &position).unwrap();
        assert_eq!(kept.length as usize, lines[..3].concat().len());
        assert_eq!(kept.epochs.iter().map(|epoch| epoch.number).collect::<Vec<_>>(), [1]);
        assert_eq!(kept.of_last_step, [json!({ "kind": "step", "step": 2, "epoch": 2 })]);
        assert_eq!(Kept::of(record.as_bytes(), &Position::default()).unwrap(), Kept::default());
        let torn = &record.as_bytes()[..lines[..3].concat().len() - 1];
        assert_eq!(Kept::of(torn, &position).unwrap().length as usize, lines[..2].concat().len());
    }
    #[test]
    fn a_number_that_is_read_back_is_the_same_to_the_last_bit() {
        // Parsed in two steps, digits and power of ten, about one number in ten is not.
        let mut different = Vec::new();
        for step in 0..1000 {
            let time = 1_795_603_060.0 + f64::from(step) / 997.0;
            let line = format!("{}\n", json!({ "kind": "step", "step": 0, "time": time }));
            let kept = Kept::of(line.as_bytes(), &Position::default()).unwrap();
            if kept.of_last_step[0]["time"].as_f64() != Some(time) {
                different.push(time);
            }
        }
        assert_eq!(different, [0.0; 0]);
    }
}
