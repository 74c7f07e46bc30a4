//! Where a run stands, and what a checkpoint says of itself: the file `state.json`.

use super::tensors::{FileSum, shown};
use crate::error::{Error, Result};
use crate::file;
use crate::layers::Outcome;
use crate::optim::Plateau;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// The format of a checkpoint that this version writes and reads.
pub const FORMAT: u32 = 1;

/// The most steps or examples that are believed: up to here a number of a file is the same as a float.
const MOST_COUNTED: u64 = 1 << 53;

/// What a run has done: all that it needs, besides weights and velocities, to go on as if it had not stopped. (Random
/// numbers are counter-based: seed, epoch and step give them all.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// The epoch at hand, from 1. It is at hand until its evaluation is over.
    pub epoch: u64,
    /// Steps of the epoch that are done.
    pub steps_in_epoch: u64,
    /// Examples trained on, each counted each time.
    pub examples: u64,
    /// Sums over the epoch's steps so far.
    #[serde(with = "outcome")]
    pub epoch_outcome: Outcome,
    /// The time of the epoch's steps so far, without waiting for the loader.
    #[serde(rename = "epoch_train_seconds", with = "seconds")]
    pub epoch_train_time: Duration,
    /// The time that the first rank has waited for the loader in this epoch.
    #[serde(rename = "epoch_loader_wait_seconds", with = "seconds")]
    pub epoch_loader_wait: Duration,
    /// The time of all steps, without waiting for the loader.
    #[serde(rename = "train_seconds", with = "seconds")]
    pub train_time: Duration,
    /// The time of the run, with loading, evaluation and checkpoints.
    #[serde(rename = "whole_seconds", with = "seconds")]
    pub whole_time: Duration,
    /// How evaluations went, before that of the epoch at hand. Older checkpoints do not tell.
    #[serde(default)]
    pub plateau: Plateau,
}

impl Default for Position {
    /// The start of a run.
    fn default() -> Self {
        Self {
            step: 0,
            epoch: 1,
            steps_in_epoch: 0,
            examples: 0,
            epoch_outcome: Outcome::default(),
            epoch_train_time: Duration::ZERO,
            epoch_loader_wait: Duration::ZERO,
            train_time: Duration::ZERO,
            whole_time: Duration::ZERO,
            plateau: Plateau::default(),
        }
    }
}

impl Position {
    /// The start of the next epoch.
    #[must_use]
    pub fn next_epoch(self) -> Self {
        Self {
            epoch: self.epoch + 1,
            steps_in_epoch: 0,
            epoch_outcome: Outcome::default(),
            epoch_train_time: Duration::ZERO,
            epoch_loader_wait: Duration::ZERO,
            ..self
        }
    }

    /// A count that no run comes to, if there is one: sums of it with another could overflow.
    fn impossible(&self) -> Option<u64> {
        let Self { step, epoch, steps_in_epoch, examples, epoch_outcome: ref outcome, .. } = *self;
        let counts = [step, epoch, steps_in_epoch, examples, outcome.correct, outcome.examples];
        counts.into_iter().find(|&count| count > MOST_COUNTED)
    }
}

/// The checkpoint that evaluated best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its steps.
    pub step: u64,
    /// The share of right answers on the test set.
    pub test_accuracy: f64,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// See [`FORMAT`].
    pub format: u32,
    /// The version of mpt that wrote it.
    pub mpt: String,
    /// Where the run stands.
    #[serde(flatten)]
    pub position: Position,
    /// The learning rate of its next step, as the schedule has it. Older checkpoints do not tell.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// The best checkpoint before this one, whose epoch is evaluated later. Older checkpoints do not tell.
    #[serde(default)]
    pub best: Option<Best>,
    /// What was run, for people.
    pub run: About,
    /// The files that belong to it, by name.
    pub files: BTreeMap<String, FileSum>,
}

/// What was run, for whoever looks at a checkpoint alone. What older ones do not have is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The model's name.
    pub model: String,
    /// The type of the numbers that layers compute with.
    pub precision: String,
    /// The seed.
    pub seed: u64,
    /// Examples in a step, over all ranks.
    pub batch_size: usize,
    /// Steps of an epoch; 0 in older checkpoints.
    #[serde(default)]
    pub steps_per_epoch: u64,
    /// The training set: see [`crate::data::Source::identity`].
    #[serde(default)]
    pub train_set: String,
    /// The devices as a grid, like `1x2`.
    pub mesh: String,
    /// How they shared the work.
    pub mode: String,
    /// The plan in a few words.
    #[serde(default)]
    pub plan: String,
    /// The version of libtorch.
    #[serde(default)]
    pub libtorch: String,
    /// Every effective value of the recipe, by section.
    #[serde(default)]
    pub recipe: serde_json::Value,
}

/// What stands in the file between what it says and the last thing in it, the CRC-32 of all that is said.
const BEFORE_SUM: &str = ",\n  \"crc32\": \"";
const AFTER_SUM: &str = "\"\n}\n";

impl State {
    /// Writes the file and waits until it is on the disk.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
        let said = text.strip_suffix("\n}").unwrap_or(&text);
        let sum = sum_of(said);
        let write = || {
            let mut file = File::create(path)?;
            file.write_all(format!("{said}{BEFORE_SUM}{sum}{AFTER_SUM}").as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| Error::failed(format!("{}: {error}", path.display())))
    }

    /// Reads the file. One without a sum of its own is taken as it is: it was written before there was one.
    ///
    /// # Errors
    /// Names it: it cannot be read, is damaged, or another version of mpt wrote it.
    pub fn read(path: &Path) -> Result<Self> {
        let fault = |problem: String| Error::failed(format!("{} {problem}", path.display()));
        let bytes = file::in_place(path).and_then(|_| file::bytes(path));
        let bytes = bytes.map_err(|error| fault(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| fault(format!("is damaged: {error}")))?;
        if let Some((said, sum)) = text.rsplit_once(BEFORE_SUM) {
            let found = sum_of(said);
            if sum.strip_suffix(AFTER_SUM) != Some(&found) {
                return Err(fault(format!("is damaged: its CRC-32 is {found}, not what it says")));
            }
        }
        let damaged = |error: serde_json::Error| fault(format!("is damaged: {error}"));
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => {
                Err(fault(format!("is of format {format}; this version of mpt reads format {FORMAT}")))
            }
            _ => {
                let state: Self = serde_json::from_value(value).map_err(damaged)?;
                match state.position.impossible() {
                    Some(count) => Err(fault(format!("is damaged: no run counts {count}"))),
                    None => Ok(state),
                }
            }
        }
    }
}

fn sum_of(text: &str) -> String {
    let mut sum = Hasher::new();
    sum.update(text.as_bytes());
    shown(sum.finalize())
}

/// Sums, with the loss as text: so every value comes back as it was, to the last bit, and what is not a number too.
mod outcome {
    use crate::layers::Outcome;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    struct Sums {
        loss_sum: String,
        correct: u64,
        examples: u64,
    }

    pub fn serialize<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
        let &Outcome { loss_sum, correct, examples } = outcome;
        Sums { loss_sum: loss_sum.to_string(), correct, examples }.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
        let Sums { loss_sum, correct, examples } = Sums::deserialize(deserializer)?;
        let loss_sum = loss_sum.parse().map_err(|_| D::Error::custom(format!("`{loss_sum}` is no number")))?;
        Ok(Outcome { loss_sum, correct, examples })
    }
}

/// Spans of time as seconds.
mod seconds {
    use crate::recipe::duration::LONGEST;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(span.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let span = Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let believed = (span <= LONGEST).then_some(span);
        believed.ok_or_else(|| D::Error::custom(format!("no run lasts {} s", span.as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_written_is_read_to_the_last_bit() {
        for loss_sum in [0.1 + 0.2, 1e-300, 123_456_789.123_456_79, f64::INFINITY] {
            let epoch_outcome = Outcome { loss_sum, correct: 3, examples: 9 };
            let train_time = Duration::from_millis(1500);
            let position = Position { step: 7, epoch_outcome, train_time, ..Position::default() };
            let text = serde_json::to_string(&position).unwrap();
            assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position, "{text}");
        }
        let diverged = Outcome { loss_sum: f64::NAN, ..Outcome::default() };
        let text = serde_json::to_string(&Position { epoch_outcome: diverged, ..Position::default() }).unwrap();
        assert!(serde_json::from_str::<Position>(&text).unwrap().epoch_outcome.loss_sum.is_nan());
    }

    fn state() -> State {
        let run = About {
            model: "tiny".into(),
            precision: "fp32".into(),
            seed: 7,
            batch_size: 8,
            steps_per_epoch: 6,
            train_set: "60000 examples with checksum 00c0ffee".into(),
            mesh: "1x2".into(),
            mode: "model-parallel".into(),
            plan: "tiny, model-parallel, 1 data x 2 model".into(),
            libtorch: "2.13.0".into(),
            recipe: serde_json::json!({"seed": 7, "optimizer": {"learning_rate": 0.1}}),
        };
        let files = BTreeMap::from([("model.safetensors".into(), FileSum { bytes: 9, crc32: "00c0ffee".into() })]);
        let position = Position { step: 7, train_time: Duration::from_millis(1500), ..Position::default() };
        let best = Some(Best { step: 6, test_accuracy: 0.1 + 0.2 });
        State { format: FORMAT, mpt: "0.1.0".into(), position, learning_rate: Some(0.05), best, run, files }
    }

    #[test]
    fn no_changed_byte_changes_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        state().write(&path).unwrap();
        assert_eq!(State::read(&path).unwrap(), state());
        let sound = fs::read(&path).unwrap();
        for place in 0..sound.len() {
            for change in [1, 0x80] {
                let mut bytes = sound.clone();
                bytes[place] ^= change;
                fs::write(&path, bytes).unwrap();
                match State::read(&path) {
                    Ok(found) => assert_eq!(found, state(), "byte {place}"),
                    Err(error) => assert!(error.to_string().contains("state.json is damaged: "), "{error}"),
                }
            }
        }
    }

    #[test]
    fn a_file_from_before_there_were_sums_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, serde_json::to_string_pretty(&state()).unwrap() + "\n").unwrap();
        assert_eq!(State::read(&path).unwrap(), state());
    }

    #[test]
    fn what_older_checkpoints_do_not_tell_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let older = r#"{"format": 1, "mpt": "0.1.0", "step": 7, "epoch": 2, "steps_in_epoch": 1, "examples": 52,
            "epoch_outcome": {"loss_sum": "12.5", "correct": 3, "examples": 8}, "epoch_train_seconds": 0.5,
            "epoch_loader_wait_seconds": 0.25, "train_seconds": 1.5, "whole_seconds": 2.0,
            "run": {"model": "tiny", "precision": "fp32", "seed": 7, "batch_size": 8, "mesh": "1x2", "mode": "model-parallel"},
            "files": {"model.safetensors": {"bytes": 9, "crc32": "00c0ffee"}}}"#;
        fs::write(&path, older).unwrap();
        let State { position, learning_rate, best, run, .. } = State::read(&path).unwrap();
        assert_eq!((position.step, position.epoch, position.epoch_outcome.loss_sum), (7, 2, 12.5));
        assert_eq!((learning_rate, best), (None, None));
        let empty = About {
            steps_per_epoch: 0,
            train_set: String::new(),
            plan: String::new(),
            libtorch: String::new(),
            recipe: serde_json::Value::Null,
            ..state().run
        };
        assert_eq!(run, empty);
    }
}
