//! The lines of ranks that are processes, filed in the run's folder: `logs/rank-N.log`. The folder is known only some time
//! after the ranks have begun to speak; until then their lines are kept.

use crate::file;
use crate::report::console;
use crate::report::run_log::LOGS;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most lines that are kept before the folder is known: ranks that say more before they begin are out of order.
const MOST_KEPT: usize = 10_000;

/// Where lines go.
pub struct RankLogs(Mutex<State>);

enum State {
    /// Lines by rank, as long as nobody knows where to.
    Early(Vec<(usize, Vec<u8>)>),
    /// The folder, and the files that have been begun.
    Open(PathBuf, BTreeMap<usize, File>),
    /// Nowhere: the run is not recorded, or its folder cannot be written.
    Closed,
}

impl Default for RankLogs {
    fn default() -> Self {
        Self(Mutex::new(State::Early(Vec::new())))
    }
}

impl RankLogs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files what a rank has said: whole lines.
    pub fn file(&self, rank: usize, lines: &[u8]) {
        let mut state = self.state();
        if let State::Early(early) = &mut *state
            && early.len() < MOST_KEPT
        {
            early.push((rank, lines.to_vec()));
        }
        append(&mut state, rank, lines);
    }

    /// From now on lines go to files in this run's folder, and those that were kept go there first; none: nowhere.
    pub fn open(&self, run: Option<&Path>) {
        let mut state = self.state();
        let next = run.map_or(State::Closed, |run| State::Open(run.join(LOGS), BTreeMap::new()));
        if let State::Early(early) = std::mem::replace(&mut *state, next) {
            for (rank, lines) in early {
                append(&mut state, rank, &lines);
            }
        }
    }
}

/// A log that cannot be written is said once, and the run goes on.
fn append(state: &mut State, rank: usize, lines: &[u8]) {
    let State::Open(folder, files) = state else { return };
    if let Err(error) = write(folder, files, rank, lines) {
        console::warn(format!("the ranks' logs in {} end here: {error}; training goes on", folder.display()));
        *state = State::Closed;
    }
}

fn write(folder: &Path, files: &mut BTreeMap<usize, File>, rank: usize, lines: &[u8]) -> io::Result<()> {
    if let Some(file) = files.get_mut(&rank) {
        return file.write_all(lines);
    }
    file::folder_in_place(folder)?;
    // A run that is resumed goes on in its folder.
    let path = folder.join(format!("rank-{rank}.log"));
    let mut file = file::open_in_place(&path, File::options().append(true).create(true))?;
    file.write_all(lines)?;
    files.insert(rank, file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lines_from_before_the_folder_was_known_are_not_lost() {
        let run = tempfile::tempdir().unwrap();
        let logs = RankLogs::default();
        logs.file(1, b"one early\n");
        logs.file(0, b"zero early\n");
        logs.open(Some(run.path()));
        logs.file(1, b"one late\n");
        let log = |rank| fs::read_to_string(run.path().join(format!("logs/rank-{rank}.log"))).unwrap();
        assert_eq!([log(0), log(1)], ["zero early\n", "one early\none late\n"]);
    }

    #[test]
    fn a_run_that_is_not_recorded_has_no_logs() {
        let logs = RankLogs::default();
        logs.file(0, b"early\n");
        logs.open(None);
        logs.file(0, b"late\n");
        assert!(matches!(*logs.state(), State::Closed));
    }
}
