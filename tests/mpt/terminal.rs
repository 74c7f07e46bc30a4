//! Runs in a terminal. Ctrl-C there goes to every process of the foreground group at once: a run must end by it as if it
//! had been sent to it alone.

use crate::program::{mpt, text, tiny};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::ptr;

/// What a terminal sends for Ctrl-C.
const CTRL_C: &[u8] = b"\x03";

/// Both ends of a new terminal: where its user sits, and what programs see.
pub fn terminal() -> (File, File) {
    let (mut user, mut program) = (-1, -1);
    // SAFETY: two numbers are written to, and no name, settings or size are given.
    let made = unsafe { libc::openpty(&mut user, &mut program, ptr::null_mut(), ptr::null(), ptr::null()) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and belong to nobody else.
    unsafe { (OwnedFd::from_raw_fd(user).into(), OwnedFd::from_raw_fd(program).into()) }
}

/// Runs a command in the foreground of a terminal of its own and presses Ctrl-C after its first step; gives its exit code
/// and the lines that the terminal showed.
fn interrupted(arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let (mut user, program) = terminal();
    let mut command = mpt(arguments);
    let ends = [(); 3].map(|()| Stdio::from(program.try_clone().unwrap()));
    let [stdin, stdout, stderr] = ends;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    // SAFETY: between fork and exec only two system calls are made, which are safe there.
    unsafe {
        command.pre_exec(|| {
            // A session of its own, whose terminal is the one at its standard input.
            (libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0)
                .then_some(())
                .ok_or_else(std::io::Error::last_os_error)
        });
    }
    let mut child = command.spawn().unwrap();
    drop((command, program));
    let mut lines = BufReader::new(user.try_clone().unwrap()).lines();
    // Reading ends with an error when no program has the terminal open any more.
    let mut said: Vec<String> = Vec::new();
    for line in lines.by_ref().map_while(Result::ok) {
        let begun = line.contains("first step after");
        said.push(line);
        if begun {
            break;
        }
    }
    user.write_all(CTRL_C).unwrap();
    said.extend(lines.map_while(Result::ok));
    (child.wait().unwrap().code(), said)
}

#[test]
fn ctrl_c_ends_threads_and_a_rehearsals_processes_after_the_step_at_hand() {
    for command in ["train", "rehearse"] {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let mut arguments = tiny(&["--gpus", "2", "--mode", "model-parallel", "--run-dir", text(&run)]);
        arguments[0] = command;
        let (code, said) = interrupted(&arguments);
        assert_eq!(code, Some(75), "{command}: {said:#?}");
        let told = said.iter().filter(|line| line.contains("go on with: mpt train --resume")).count();
        assert_eq!(told, 1, "{command}: {said:#?}");
        let checkpoints: Vec<_> = std::fs::read_dir(run.join("checkpoints")).unwrap().collect();
        assert_eq!(checkpoints.len(), 1, "{command}: {said:#?}");
        assert!(checkpoints[0].as_ref().unwrap().path().join("state.json").exists());
    }
}
