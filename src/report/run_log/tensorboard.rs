//! The record as TensorBoard reads it: a file of events, each a protocol buffer between two checksums.
//!
//! What lies in such a file is described by TensorFlow's `event.proto`, `summary.proto` and `record_writer.h`.

mod messages;
mod scalars;

use super::appender::Appender;
use crate::clock::time_of_day;
use messages::{Event, SessionLog, SessionStatus, Summary, Value, What};
use prost::Message;
use serde_json::Value as Json;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// What the names of all event files contain; the number that follows orders them.
const PREFIX: &str = "events.out.tfevents.";
/// The format, as the first event of a file says it.
const VERSION: &str = "brain.Event:2";
/// What keeps the checksum of something that contains checksums from being a special one.
const MASK: u32 = 0xa282_ead8;

/// An event file, which comes to be with the first line.
pub struct EventFile {
    folder: PathBuf,
    file: Option<Appender>,
    /// What stands before the next line.
    before: Vec<u8>,
}

impl EventFile {
    /// A new file in the folder of a run that goes on after `step` steps, beginning with the lines that told of the last
    /// of these. What other files there tell of that step and later ones is void: it is told again.
    pub fn new(folder: &Path, step: u64, of_last_step: &[Json]) -> Self {
        let event = |what| Event { wall_time: time_of_day(), step: step as i64, what: Some(what) };
        let start = SessionLog { status: SessionStatus::Start.into() };
        let mut before = framed(&event(What::FileVersion(VERSION.into())));
        before.extend(framed(&event(What::SessionLog(start))));
        before.extend(of_last_step.iter().flat_map(|line| framed(&event_of(line))));
        Self { folder: folder.to_owned(), file: None, before }
    }

    /// Writes the figures of a line of the record.
    ///
    /// # Errors
    /// The file system's; then nothing of them is in the file.
    pub fn append(&mut self, line: &Json) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Appender::new(File::create_new(next_in(&self.folder)?)?, 0),
        };
        let file = self.file.insert(file);
        let mut piece = self.before.clone();
        piece.extend(framed(&event_of(line)));
        file.append(&piece)?;
        self.before.clear();
        Ok(())
    }
}

/// The path of the next event file in a folder. TensorBoard reads them in the order of their names, which begin with the
/// time; two may come within a second, and clocks are set back.
fn next_in(folder: &Path) -> io::Result<PathBuf> {
    let number = |name: &str| name.split_once(PREFIX)?.1.split('.').next()?.parse::<u64>().ok();
    let entries = fs::read_dir(folder)?.flatten();
    let newest = entries.filter_map(|entry| number(entry.file_name().to_str()?)).max();
    let seconds = newest.map_or(0, |newest| newest + 1).max(time_of_day() as u64);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    Ok(folder.join(format!("{PREFIX}{seconds:010}.{host}.{}.mpt", process::id())))
}

fn event_of(line: &Json) -> Event {
    let value = |(tag, value): (String, f64)| Value { tag, simple_value: Some(value as f32) };
    let summary = Summary { value: scalars::of(line).into_iter().map(value).collect() };
    Event {
        wall_time: line["time"].as_f64().unwrap_or_default(),
        step: line["step"].as_i64().unwrap_or_default(),
        what: Some(What::Summary(summary)),
    }
}

/// An event in its frame: its length, the checksum of that, the event, its checksum.
fn framed(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), &data, &masked(&data)].concat()
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The events of a file, whose frames must be whole.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let (data, end) = (&rest[12..12 + length], 12 + length + 4);
            assert_eq!((&rest[8..12], &rest[12 + length..end]), (&masked(&rest[..8])[..], &masked(data)[..]));
            events.push(Event::decode(data).unwrap());
            rest = &rest[end..];
        }
        events
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // What TensorBoard's own RecordWriter makes of Event(wall_time=1.0, file_version="brain.Event:2").
        let expected = "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a";
        let event = Event { wall_time: 1.0, step: 0, what: Some(What::FileVersion(VERSION.into())) };
        let frame: String = framed(&event).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_resumed_run_has_a_file_of_its_own_that_voids_what_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let line = |step: u64| json!({ "kind": "epoch", "epoch": 1, "step": step, "time": 5.5, "train_loss": 2.0 });
        let mut first = EventFile::new(dir.path(), 0, &[]);
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new(), "there is no file before there is something to tell");
        first.append(&line(3)).unwrap();
        let mut second = EventFile::new(dir.path(), 3, &[line(3)]);
        second.append(&line(4)).unwrap();
        second.append(&line(5)).unwrap();
        let files = files(dir.path());
        assert_eq!(files.len(), 2);
        let names = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().split('.').nth(3).unwrap().to_owned();
        let seconds: Vec<u64> = files.iter().map(|path| names(path).parse().unwrap()).collect();
        assert!(seconds[1] > seconds[0], "the second is read after the first: {files:?}");
        let events = read(&files[1]);
        let starts = What::SessionLog(SessionLog { status: SessionStatus::Start.into() });
        assert_eq!(events[0].what, Some(What::FileVersion(VERSION.into())));
        assert_eq!((events[1].step, &events[1].what), (3, &Some(starts)));
        let told: Vec<(i64, f64)> = events[2..].iter().map(|event| (event.step, event.wall_time)).collect();
        assert_eq!(told, [(3, 5.5), (4, 5.5), (5, 5.5)]);
        let Some(What::Summary(summary)) = &events[4].what else { panic!("{:?}", events[4]) };
        assert_eq!(summary.value[0], Value { tag: "epoch/train_loss".into(), simple_value: Some(2.0) });
    }
}
