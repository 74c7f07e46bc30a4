//! What is kept of a run that was ended: `flight-recorder.json` in its folder.

use super::finding::Finding;
use crate::comm::recorder::record::Flight;
use crate::file;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::{fs, io};

/// The name of the file. A rank that cannot reach the others writes `flight-recorder-rank-N.json`.
pub const FILE: &str = "flight-recorder.json";

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Why the run did not go on.
    pub finding: Finding,
    /// The same, as it was said.
    pub sentence: String,
    /// The error of the rank that reported, if it had one of its own.
    pub error: Option<String>,
    /// How long a call was allowed to keep a rank waiting.
    pub limit_seconds: f64,
    /// Each rank's last calls, by rank; null: the rank did not answer.
    pub ranks: Vec<Option<Flight>>,
}

impl Report {
    /// Writes the report, whole or not at all.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        file::replace(path, &path.with_extension("unfinished"), &text)
    }
}
