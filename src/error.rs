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
        Self::Usage(sentence(message.into()))
    }

    /// A failure while a sound request was carried out.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(sentence(message.into()))
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
        let longer = |message| sentence(format!("{context}: {message}"));
        match self {
            Self::Usage(message) => Self::Usage(longer(message)),
            Self::Failed(message) => Self::Failed(longer(message)),
            Self::PeerGone(message) => Self::PeerGone(longer(message)),
        }
    }
}

/// The most bytes of a message, far above what anyone reads, and how many of them its end has, where the remedy stands.
const MOST_BYTES: usize = 4000;
const OF_END: usize = 500;

/// A message as one line that a terminal can show: it may repeat what a file says, which may be anything, and much of it.
fn sentence(message: String) -> String {
    let message = if message.contains(char::is_control) { message.replace(char::is_control, " ") } else { message };
    if message.len() <= MOST_BYTES {
        return message;
    }
    let begin = message.floor_char_boundary(MOST_BYTES - OF_END);
    let end = message.ceil_char_boundary(message.len() - OF_END);
    format!("{} ... {}", &message[..begin], &message[end..])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_message_repeats_it_is_one_line_of_bounded_length() {
        let told = Error::usage("in x\n\u{1b}[2Jy: no\u{9b}way").within("a\tb").to_string();
        assert_eq!(told, "a b: in x  [2Jy: no way");
        let long = Error::failed(format!("begin {}; do this", "é".repeat(100_000))).to_string();
        assert!(long.len() < 4100 && long.starts_with("begin éé") && long.ends_with("éé; do this"), "{long}");
    }
}
