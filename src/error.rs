//! The one error type: what went wrong, in a sentence a user can act on, and which exit code it means.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The result of anything in mpt that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as a user meets it. Each message is one clear sentence that names the thing, where it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Error {
    /// The request cannot be carried out as it was made (flags, recipe, model, files given): exit code 2.
    Usage(String),
    /// The request was sound and failed while it was carried out: exit code 1.
    Failed(String),
    /// A rank could not go on because another rank had ended; never the root cause: exit code 1.
    PeerGone(String),
}

impl Error {
    /// A request that cannot be carried out as it was made.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A failure while a sound request was carried out.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The process exit code that this error means.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::PeerGone(_) => 1,
        }
    }

    /// The same error with `context` (a file, a layer, a rank) put before its message.
    #[must_use]
    pub fn within(self, context: impl fmt::Display) -> Self {
        match self {
            Self::Usage(message) => Self::Usage(format!("{context}: {message}")),
            Self::Failed(message) => Self::Failed(format!("{context}: {message}")),
            Self::PeerGone(message) => Self::PeerGone(format!("{context}: {message}")),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) | Self::PeerGone(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<tch::TchError> for Error {
    /// Keeps the first line of libtorch's message: what follows it is a C++ stack.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        Self::Failed(format!("libtorch: {}", text.lines().next().unwrap_or("unknown error")))
    }
}
