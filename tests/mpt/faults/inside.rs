//! Faults inside a run: of its training set, and of a device.

use crate::training::{at, recipe, tensors, trained};
use mpt::checkpoint::{Checkpoint, Checkpoints};
use mpt::data::Source;
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::error::Error;
use mpt::launch::control::Control;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The examples of an epoch of `checkpoint`'s runs, which has six steps.
const EXAMPLES: usize = 44;

/// What happens to a training set in the middle of a run.
#[derive(Clone, Copy)]
enum Fault {
    Unreadable,
    Panic,
    Shrinks,
}

/// A training set to which something happens after so many reads.
struct Faulty {
    sound: Arc<dyn Source>,
    fault: Fault,
    after: usize,
    reads: AtomicUsize,
}

impl Source for Faulty {
    fn len(&self) -> usize {
        let shrunk = matches!(self.fault, Fault::Shrinks) && self.reads.load(Ordering::Relaxed) >= self.after;
        if shrunk { self.sound.len() / 2 } else { self.sound.len() }
    }

    fn shape(&self) -> [usize; 3] {
        self.sound.shape()
    }

    fn classes(&self) -> usize {
        self.sound.classes()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> mpt::error::Result<i64> {
        let is_over = self.reads.fetch_add(1, Ordering::Relaxed) >= self.after;
        match self.fault {
            Fault::Unreadable if is_over => Err(Error::failed("Input/output error (os error 5)")),
            Fault::Panic if is_over => panic!("the reader has lost its way"),
            _ => self.sound.read(index, pixels),
        }
    }
}

/// The sentence with which a run in a folder ends, changed as `spoil` does; it goes on from a checkpoint, if one is given.
fn failed(folder: &Path, from: Option<u64>, settings: &[&str], spoil: impl FnOnce(&mut Job)) -> String {
    let recipe = recipe(settings);
    let mut job = Job::new(&recipe, Control::default()).unwrap();
    job.saving = Saving::new(&recipe, folder);
    if let Some(step) = from {
        job.resume(Arc::new(Checkpoint::open(&at(folder, step)).unwrap())).unwrap();
    }
    spoil(&mut job);
    run(job, Ranks::All, &mut |_| {}).unwrap_err().to_string()
}

/// Whether a run goes on from a checkpoint, the newest that a fault left, to the end of one that met no fault.
fn goes_on(folder: &Path, step: u64, settings: &[&str]) {
    let newest = Checkpoints::of_run(folder).newest(&mut |damage| panic!("{damage}")).unwrap().unwrap();
    assert_eq!(newest.state.position.step, step);
    trained(folder, Some(&newest.folder), settings);
    let sound = tempfile::tempdir().unwrap();
    trained(sound.path(), None, settings);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(tensors(&at(folder, 18), file), tensors(&at(sound.path(), 18), file));
    }
}

#[test]
fn a_training_set_that_fails_ends_the_run_with_its_words_and_after_its_checkpoint() {
    let two = ["parallel.devices=2", "parallel.mode=model-parallel"];
    let shared = ["parallel.devices=2", "parallel.mode=data-parallel"];
    // Into the second epoch, of which two batches of eight are whole.
    let within = EXAMPLES + 20;
    let cases = [
        (Fault::Unreadable, within, "example "),
        (Fault::Panic, within, "the data loader panicked: the reader has lost its way"),
        (Fault::Shrinks, EXAMPLES, "the training set has shrunk: it has no examples for step 10"),
    ];
    for settings in [&two[..], &shared[..]] {
        for (fault, after, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let said = failed(dir.path(), None, settings, |job| {
                let sound = Arc::clone(&job.train);
                job.train = Arc::new(Faulty { sound, fault, after, reads: AtomicUsize::new(0) });
            });
            assert!(said.starts_with(expected), "{said}");
            if matches!(fault, Fault::Unreadable) {
                assert!(said.ends_with(" of the data set: Input/output error (os error 5)"), "{said}");
            }
            goes_on(dir.path(), 6, settings);
        }
    }
}

/// One of two devices panics in its step, while the other waits for it.
#[test]
fn a_device_that_panics_ends_the_run_with_its_words() {
    static GONE: AtomicBool = AtomicBool::new(false);
    for mode in ["model-parallel", "data-parallel"] {
        GONE.store(false, Ordering::Relaxed);
        // A rate that does not depend on how long the run is.
        let settings = ["parallel.devices=2", &format!("parallel.mode={mode}"), "schedule.kind=constant"];
        let dir = tempfile::tempdir().unwrap();
        trained(dir.path(), None, &[&settings[..], &["train.steps=8"]].concat());
        let said = failed(dir.path(), Some(8), &settings, |job| {
            job.assignment.memory = Some(|| {
                assert!(GONE.swap(true, Ordering::Relaxed), "it has fallen off the bus");
                None
            });
        });
        let [first, second] = [0, 1].map(|rank| format!("rank {rank} panicked: it has fallen off the bus"));
        assert!(said == first || said == second, "{said}");
        goes_on(dir.path(), 8, &settings);
    }
}
