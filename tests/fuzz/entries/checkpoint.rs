//! The files of a checkpoint: `state.json`, and tensors in the format safetensors, which also come from elsewhere.

use super::folder::copy;
use super::training::{go_on, job, sound};
use super::{Entry, accepted, emptied, measured, scratch};
use mpt::checkpoint::{Checkpoint, TensorFile, WeightFile, export};
use mpt::engine::saving::described;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a checkpoint says of itself.
pub const STATE: Entry = Entry { name: "state", run: state, seeds: states, tokens: &STATE_TOKENS };
/// A file of tensors.
pub const TENSORS: Entry = Entry { name: "tensors", run: tensors, seeds: tensor_files, tokens: &TENSOR_TOKENS };

const STATE_TOKENS: [&str; 22] = [
    "\"files\"",
    "\"model.safetensors\"",
    "\"../../outside\"",
    "\"/etc/passwd\"",
    "\"bytes\"",
    "\"crc32\"",
    "\"format\"",
    "\"step\"",
    "\"epoch\"",
    "\"epoch_outcome\"",
    "\"loss_sum\"",
    "\"NaN\"",
    "\"train_seconds\"",
    "\"whole_seconds\"",
    "1.8e19",
    "1e308",
    "-1",
    "null",
    "{",
    "}",
    "[[[[[[[[",
    "\u{1b}]0;x\u{7}",
];
const TENSOR_TOKENS: [&str; 18] = [
    "\"__metadata__\"",
    "\"conv1.weight\"",
    "\"0.weight\"",
    "\"dtype\"",
    "\"shape\"",
    "\"data_offsets\"",
    "\"F32\"",
    "\"F64\"",
    "\"BF16\"",
    "\"F4\"",
    "\"BOOL\"",
    "[0,0]",
    "[0,18446744073709551615]",
    "[4294967296,4294967296]",
    "{",
    "}",
    "\"\u{1b}[2J\"",
    "[",
];

/// What stands in `state.json` before and after its own sum.
const BEFORE_SUM: &[u8] = b",\n  \"crc32\": \"";
const AFTER_SUM: &[u8] = b"\"\n}\n";
/// The bytes that tell a header's length.
const LENGTH: usize = 8;
/// The most values' bytes that are made for a header that speaks of them.
const MOST_MADE: u64 = 1 << 20;

/// As it is, and with the sum that it should have, beside files that are sound.
fn state(bytes: &[u8]) {
    let folder = copied("state");
    for text in [bytes.to_vec(), summed(bytes)] {
        fs::write(folder.join("state.json"), &text).expect("a file can be written");
        if let Some(checkpoint) = measured(bytes, || accepted(Checkpoint::open(&folder))) {
            go_on(checkpoint);
        }
    }
}

fn states() -> Vec<Vec<u8>> {
    let sound = fs::read(sound().join("state.json")).expect("a sound checkpoint");
    let without_sum = [&sound[..end_of_said(&sound)], b"\n}\n"].concat();
    vec![sound, without_sum]
}

/// As it is, and with the length of its header and of its values made right; each as weights from elsewhere and in a checkpoint
/// that speaks of it.
fn tensors(bytes: &[u8]) {
    let elsewhere = scratch("weights.safetensors");
    for file in [bytes.to_vec(), framed(bytes)] {
        fs::write(&elsewhere, &file).expect("a file can be written");
        measured(&file, || accepted(job().init_from(&elsewhere)));
        measured(&file, || accepted(TensorFile::of_others(&elsewhere)).map(read_all));
        let folder = copied("tensors");
        fs::write(folder.join("model.safetensors"), &file).expect("a file can be written");
        sum_up(&folder);
        if let Some(checkpoint) = measured(&file, || accepted(Checkpoint::open(&folder))) {
            let (mut job, held) = (job(), checkpoint.model.tensors());
            if accepted(job.resume(Arc::new(checkpoint))).is_some() {
                assert!(held == described(&job.assignment.plan.model), "a run would go on with {held:?}");
            }
        }
    }
}

/// A sound one; cut short; one whose header is said to be long; and one with the names of two tensors exchanged.
fn tensor_files() -> Vec<Vec<u8>> {
    let sound = fs::read(sound().join("model.safetensors")).expect("a sound checkpoint");
    let cut = sound[..sound.len() - 4].to_vec();
    let long = [&90_000_000_u64.to_le_bytes()[..], b"{}"].concat();
    let mut exchanged = sound.clone();
    let at = |name: &[u8]| sound.windows(name.len()).position(|found| found == name).expect("a name of `tiny`");
    let [first, second] = [b"conv1.bias", b"conv2.bias"].map(|name| at(name));
    exchanged[first..][..10].copy_from_slice(b"conv2.bias");
    exchanged[second..][..10].copy_from_slice(b"conv1.bias");
    vec![sound, cut, long, exchanged]
}

/// Reads all that a model finds in a file, and writes it under other names.
fn read_all(file: TensorFile) {
    let model = &job().assignment.plan.model;
    let wanted = described(model);
    let Some(file) = accepted(WeightFile::fitting(file, model, &wanted)) else { return };
    let Some(read) = accepted(file.reader()) else { return };
    for parameter in &wanted {
        drop(read(&parameter.name, 0..parameter.len()).expect("what fits can be read"));
    }
    accepted(export::export(file.file(), str::to_owned, &scratch("exported")));
}

/// A copy of a sound checkpoint.
fn copied(name: &str) -> PathBuf {
    let place = emptied(name).join("checkpoint");
    copy(&sound(), &place).expect("a folder can be written");
    place
}

/// Where what a state says ends.
fn end_of_said(state: &[u8]) -> usize {
    let sum = state.windows(BEFORE_SUM.len()).rposition(|found| found == BEFORE_SUM);
    sum.unwrap_or(state.trim_ascii_end().len().saturating_sub(2))
}

/// A state with the sum of what it says.
fn summed(state: &[u8]) -> Vec<u8> {
    let said = &state[..end_of_said(state)];
    let sum = format!("{:08x}", crc32fast::hash(said));
    [said, BEFORE_SUM, sum.as_bytes(), AFTER_SUM].concat()
}

/// Lets the state in a folder speak of its files as they are.
pub fn sum_up(folder: &Path) {
    let path = folder.join("state.json");
    let text = fs::read(&path).expect("a sound checkpoint");
    let mut state: Value = serde_json::from_slice(&text).expect("a sound checkpoint");
    state.as_object_mut().expect("a sound checkpoint").shift_remove("crc32");
    for (name, about) in state["files"].as_object_mut().expect("a sound checkpoint") {
        let Ok(file) = fs::read(folder.join(name)) else { continue };
        *about = serde_json::json!({ "bytes": file.len(), "crc32": format!("{:08x}", crc32fast::hash(&file)) });
    }
    let text = serde_json::to_vec_pretty(&state).expect("JSON");
    fs::write(&path, summed(&text)).expect("a file can be written");
}

/// A file of tensors whose first bytes tell the length of its header, and which has as many values as that speaks of. The
/// header ends with the last `}}`.
fn framed(file: &[u8]) -> Vec<u8> {
    let text = file.get(LENGTH..).unwrap_or_default();
    let end = text.windows(2).rposition(|found| found == b"}}").map_or(text.len(), |at| at + 2);
    let (header, values) = text.split_at(end);
    let tensors: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap_or_default();
    let ends = tensors.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let length = ends.max().unwrap_or(values.len() as u64).min(MOST_MADE) as usize;
    let mut values = values.to_vec();
    values.resize(length, 0x3f);
    [&(header.len() as u64).to_le_bytes()[..], header, &values].concat()
}
