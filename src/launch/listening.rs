//! What ranks say, on its way through the supervisor: the lines of each with its number before them, but those of the
//! first rank, which speaks for all, as they come; and all of them to the logs.
//!
//! Where the supervisor speaks to a terminal the first rank gets one too, for its progress bar; of what is drawn there the
//! log keeps the lines as they stand in the end.

use super::rank_logs::RankLogs;
use crate::report::console;
use crate::report::line::{Format, Line};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};
use std::ptr;

/// The listening end of what a rank says.
pub struct Voice(File);

/// Gives a rank's process the speaking end, as its standard error; that of another than the first as its standard output
/// too, where NCCL writes what it is asked to tell.
///
/// # Errors
/// What the system reports.
pub fn speak(rank: usize, command: &mut Command) -> io::Result<Voice> {
    if rank == 0 && io::stderr().is_terminal() {
        let (listening, speaking) = terminal_like(io::stderr().as_raw_fd())?;
        command.stderr(speaking);
        return Ok(Voice(listening));
    }
    let (listening, speaking) = io::pipe()?;
    if rank > 0 {
        command.stdout(speaking.try_clone()?);
    }
    command.stderr(speaking);
    Ok(Voice(File::from(OwnedFd::from(listening))))
}

/// A terminal of the size of another: the end that sees what is written, and the end for a program.
fn terminal_like(model: RawFd) -> io::Result<(File, Stdio)> {
    let (mut listening, mut speaking) = (-1, -1);
    // SAFETY: both places are written, and the sizes and settings are valid for reading and writing; both descriptors
    // are new and have no other owner.
    unsafe {
        let mut size: libc::winsize = mem::zeroed();
        libc::ioctl(model, libc::TIOCGWINSZ, &mut size);
        if libc::openpty(&mut listening, &mut speaking, ptr::null_mut(), ptr::null(), &size) != 0 {
            return Err(io::Error::last_os_error());
        }
        let (listening, speaking) = (OwnedFd::from_raw_fd(listening), OwnedFd::from_raw_fd(speaking));
        // Every byte goes to the other terminal as it is, which does what is to be done with it.
        let mut settings: libc::termios = mem::zeroed();
        libc::tcgetattr(speaking.as_raw_fd(), &mut settings);
        settings.c_oflag &= !libc::OPOST;
        libc::tcsetattr(speaking.as_raw_fd(), libc::TCSANOW, &settings);
        for end in [&listening, &speaking] {
            libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Ok((File::from(listening), Stdio::from(speaking)))
    }
}

/// Passes on and files what a rank says, until nobody can say anything more.
pub fn listen(rank: usize, Voice(voice): Voice, logs: &RankLogs) {
    match rank {
        0 => as_it_comes(voice, logs),
        _ => line_by_line(rank, voice, logs),
    }
}

fn line_by_line(rank: usize, voice: File, logs: &RankLogs) {
    let (mut voice, mut line) = (BufReader::new(voice), Vec::new());
    while voice.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        console::say(of_rank(rank, String::from_utf8_lossy(&line).trim_end_matches('\n')));
        logs.file(rank, &standing(&line));
        line.clear();
    }
}

/// A rank's line with its number. What the rank has said as a JSON object is passed on as that object's fields.
fn of_rank(rank: usize, text: &str) -> Line {
    let said = match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(said) if console::format() == Format::Json => Value::Object(said),
        _ => Value::from(text),
    };
    Line::new("rank", format!("rank {rank}: {text}")).with("rank", rank).with("said", said)
}

fn as_it_comes(mut voice: File, logs: &RankLogs) {
    let (mut piece, mut line) = ([0; 4096], Vec::new());
    // A terminal ends in an error when the program has gone.
    while let Ok(length @ 1..) = voice.read(&mut piece) {
        let mut stderr = io::stderr();
        // Whoever listened may be gone; that ends no run.
        let _ = stderr.write_all(&piece[..length]).and_then(|()| stderr.flush());
        for &byte in &piece[..length] {
            line.push(byte);
            if byte == b'\n' {
                logs.file(0, &standing(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        logs.file(0, &standing(&line));
    }
}

/// A line as it stands in the end: what follows the last return to its beginning, without a terminal's commands.
fn standing(line: &[u8]) -> Vec<u8> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let begin = text.iter().rposition(|&byte| byte == b'\r').map_or(0, |place| place + 1);
    let (mut standing, mut bytes) = (Vec::with_capacity(text.len() + 1), text[begin..].iter().peekable());
    while let Some(&byte) = bytes.next() {
        if byte == b'\x1b' && bytes.next_if_eq(&&b'[').is_some() {
            // Its parameters, up to the letter that ends it.
            while bytes.next().is_some_and(|byte| !(0x40..=0x7e).contains(byte)) {}
        } else {
            standing.push(byte);
        }
    }
    standing.push(b'\n');
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_as_it_was_last_drawn() {
        for (drawn, stands) in [
            (&b"plain\n"[..], &b"plain\n"[..]),
            (b"dos\r\n", b"dos\n"),
            (b"\r\x1b[2Kstep 1\r\x1b[2Kstep 2\r\x1b[1A\x1b[2Kepoch \x1b[1;32m1\x1b[0m\n", b"epoch 1\n"),
            (b"cut off", b"cut off\n"),
            (b"\x1b[", b"\n"),
            (b"\xff\xfe\n", b"\xff\xfe\n"),
        ] {
            assert_eq!(standing(drawn), stands);
        }
    }
}
