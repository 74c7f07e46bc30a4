//! Ranks of a host that share one loader, as processes: what one of them sees when the one that makes the batches is killed,
//! and that the ranks of a run do share.

use crossbeam::channel::Receiver;
use mpt::data::{self, Delivery, LoaderOptions, MaskSpec, Noise, Source, Supply};
use mpt::error::Error;
use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Tells this program that it is the first rank.
const FIRST: &str = "SHARED_LOADER_TEST_FIRST";

fn noise() -> Arc<dyn Source> {
    Arc::new(Noise::new(1, 1 << 20, [3, 16, 16], 10).unwrap())
}

fn options() -> LoaderOptions {
    let masks = vec![MaskSpec { layer: 4, features: 50, probability: 0.5 }];
    LoaderOptions { batch_size: 32, replicas: 2, masks, ..LoaderOptions::default() }
}

fn next(stream: &Receiver<Delivery>) -> Delivery {
    stream.recv_timeout(PATIENCE).expect("a batch, or why there is none")
}

/// The first rank of the test below, in a process of its own, until that kills it.
#[test]
#[ignore = "is started by another test"]
fn first_rank() {
    if env::var_os(FIRST).is_some() {
        let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
        let supply = Supply::First { rank: 0, others: vec![(1, link)] };
        let own = supply.stream(&noise(), options()).unwrap().remove(0);
        own.iter().for_each(drop);
    }
}

#[test]
fn a_loading_rank_that_is_killed_is_told_in_a_sentence_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (link, far) = UnixStream::pair().unwrap();
    let mut first = Command::new(env::current_exe().unwrap());
    first.args(["--ignored", "--exact", "shared_loader::first_rank"]).env(FIRST, "1").env("TMPDIR", folder.path());
    first.stdin(OwnedFd::from(far)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = first.spawn().unwrap();
    // Its copy of the other end.
    drop(first);
    let supply = Supply::Other { first: 0, link, patience: PATIENCE };
    let shared = supply.stream(&noise(), options()).unwrap().remove(0);
    let own = data::start(noise(), options()).unwrap().remove(1);
    for _ in 0..20 {
        assert_eq!(next(&shared).unwrap(), next(&own).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had handed over is good; then comes why there is no more.
    let gone = loop {
        match next(&shared) {
            Ok(batch) => assert_eq!(batch, next(&own).unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(gone, Error::PeerGone("the loader of rank 0, which makes the batches of this host, has gone".into()));
    assert!(shared.recv_timeout(PATIENCE).is_err());
    assert!(supply.stream(&noise(), options()).is_err(), "there is nobody to open another stream");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let left = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains("mpt-loader");
    assert_eq!(fs::read_dir("/dev/shm").unwrap().flatten().filter(left).count(), 0);
}
