//! What others may have written or may send, changed at random, to the readers that `tests/fuzz/entries` names. The number
//! of executions is fixed, and so are the inputs. An input that a reader does not stand is left in the folder for temporary
//! files of the build, under the reader's name.

#[path = "../fuzz/entries/mod.rs"]
mod entries;
mod mutate;

use entries::{ALL, Entry, http, meter::Meter};
use mutate::{Draws, mutated};
use std::fs;
use std::io::{Read, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

#[global_allocator]
static METER: Meter = Meter;

/// Far longer than one execution takes: a reader that does not come to an end fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// Mutations of each reader's seeds: few, and many. Those that train for each take longer.
const EXECUTIONS: [(&str, u64, u64); 11] = [
    ("state", 200, 4_000),
    ("tensors", 200, 4_000),
    ("folder", 20, 400),
    ("recipe", 400, 10_000),
    ("model", 200, 5_000),
    ("idx", 1_000, 20_000),
    ("archive", 500, 10_000),
    ("pack", 500, 10_000),
    ("picture", 200, 3_000),
    ("record", 200, 4_000),
    ("http", 200, 4_000),
];

fn entry(name: &str) -> &'static Entry {
    ALL.iter().find(|entry| entry.name == name).expect("an entry of this name")
}

/// Where the input at hand is kept.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{name}"))
}

/// Tries an entry with its seeds and with so many mutations of them.
fn try_with(entry: &'static Entry, mutations: u64) {
    let (done, progress) = channel();
    let worker = thread::spawn(move || work(entry, mutations, &done));
    let mut executions = 0;
    loop {
        match progress.recv_timeout(PATIENCE) {
            Ok(()) => executions += 1,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: no end with the input in {}", entry.name, kept(entry.name).display())
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(panic) = worker.join() {
        eprintln!("{}: execution {executions} failed; its input is in {}", entry.name, kept(entry.name).display());
        resume_unwind(panic);
    }
    println!("{}: {executions} executions", entry.name);
}

fn work(entry: &Entry, mutations: u64, done: &Sender<()>) {
    let (seeds, mut draws) = ((entry.seeds)(), Draws(mutations));
    let run = |input: &[u8]| {
        // To write over a file is to wait for the disk, on file systems that think of a crash.
        let _ = fs::remove_file(kept(entry.name));
        fs::write(kept(entry.name), input).expect("the folder for temporary files can be written");
        (entry.run)(input);
        done.send(()).expect("the test waits");
    };
    seeds.iter().for_each(|seed| run(seed));
    (0..mutations).for_each(|_| run(&mutated(&mut draws, &seeds, entry.tokens)));
    fs::remove_file(kept(entry.name)).expect("it was written");
}

macro_rules! few {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let (_, few, _) = EXECUTIONS.into_iter().find(|(name, ..)| *name == stringify!($name)).expect("a number");
            try_with(entry(stringify!($name)), few);
        }
    )* };
}

few!(state tensors folder recipe model idx archive pack picture record http);

/// Every reader with many mutations, one after the other.
#[test]
#[ignore = "takes a minute: cargo test --release --test hostile -- --ignored --nocapture"]
fn many() {
    for (name, _, many) in EXECUTIONS {
        try_with(entry(name), many);
    }
}

/// Clients that send no end of a header, or half a request each, hundreds of them: the server reads little of it, and answers.
#[test]
fn clients_without_an_end() {
    let piece = [b'x'; 1 << 16];
    let mut stream = http::connect();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ");
    // Far more than lies in sockets on the way: who reads it all is found.
    let taken = (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(taken < 1024, "the server read a header of {} MiB", (taken * piece.len()) >> 20);
    let waiting: Vec<_> = (0..300)
        .map(|client: usize| {
            let mut stream = http::connect();
            let _ = stream.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: y"[..client % 37]);
            stream
        })
        .collect();
    http::answers();
    // Both ends are in this process: of the server's no more than a bounded number are open.
    let open = fs::read_dir("/proc/self/fd").expect("Linux").count();
    assert!(open < waiting.len() + 200, "{open} files are open with {} clients", waiting.len());
    drop(waiting);
    let mut slow = http::connect();
    for byte in b"GET /metrics HTTP/1.1\r\n\r\n" {
        slow.write_all(&[*byte]).expect("the server waits for the rest");
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Writes the seeds into the folders where cargo-fuzz looks for them.
#[test]
#[ignore = "for cargo-fuzz: cargo test --release --test hostile -- --ignored seeds"]
fn seeds() {
    for entry in ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(entry.name);
        fs::create_dir_all(&folder).expect("a folder can be written");
        for (number, seed) in (entry.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("a file can be written");
        }
    }
}
