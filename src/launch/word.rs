//! What a rank tells the supervisor that started it: one JSON object a line, through a socket that is the rank's standard
//! input. Under another launcher there is nobody to tell.

use super::launchers::SUPERVISED;
use serde::{Deserialize, Serialize};
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The folder of the run, whatever bytes its name has; none, if it is not recorded.
    RunFolder(Option<OsString>),
    /// The run ends, and this rank has said why.
    Ending {
        /// The rank that said so.
        rank: usize,
        /// In a few words; none: it failed itself.
        why: Option<String>,
    },
}

/// Tells the supervisor, if there is one. What cannot be told changes nothing: it is for the supervisor's own words.
pub fn tell(word: &Word) {
    if env::var_os(SUPERVISED).is_none() {
        return;
    }
    let line = || -> io::Result<UnixStream> { Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)) };
    if let (Ok(mut line), Ok(mut text)) = (line(), serde_json::to_vec(word)) {
        text.push(b'\n');
        let _ = line.write_all(&text);
    }
}

/// The two ends of a rank's line: the supervisor's, and the rank's.
///
/// # Errors
/// What the system reports.
pub fn line() -> io::Result<(UnixStream, OwnedFd)> {
    let (own, rank) = UnixStream::pair()?;
    Ok((own, rank.into()))
}

/// What comes through a line, until the rank has ended.
pub fn words(line: UnixStream) -> impl Iterator<Item = Word> {
    BufReader::new(line).lines().map_while(Result::ok).filter_map(|text| serde_json::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn words_arrive_until_the_line_is_closed() {
        let (own, rank) = line().unwrap();
        let no_text = OsString::from_vec(b"runs/\xff".to_vec());
        let said = [Word::RunFolder(Some(no_text)), Word::Ending { rank: 3, why: Some("it hung".into()) }];
        let mut rank = UnixStream::from(rank);
        for word in &said {
            writeln!(rank, "{}", serde_json::to_string(word).unwrap()).unwrap();
        }
        writeln!(rank, "what another version may say").unwrap();
        drop(rank);
        assert_eq!(words(own).collect::<Vec<_>>(), said);
    }
}
