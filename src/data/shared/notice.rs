//! What the first rank of a host tells another along the line of a stream, one JSON object a line. The other answers each
//! batch with one byte when it has copied it.

use crate::error::Error;
use serde::{Deserialize, Serialize};

/// What is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The next batch lies in the next slot.
    Batch {
        /// Its step.
        step: u64,
        /// The examples of the global batch.
        global_examples: usize,
        /// The examples of this share.
        examples: usize,
    },
    /// There are no more batches, for this reason.
    Failed(Error),
    /// There are no more batches, for the stream is over.
    Over,
}

/// The answer to a batch.
pub const COPIED: u8 = b'.';
