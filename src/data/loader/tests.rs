//! What a training run relies on: every example once, the same numbers however they are shared, and no silent end.

use super::*;
use crate::data::{Augmentation, Mask, Noise};
use crossbeam::channel::Sender;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So that a test of a loader that hangs fails; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Twelve examples of 2 x 2 pixels; example i has label i and pixels i. Reading `bad` fails as `failure` has it.
struct Counting {
    bad: Range<usize>,
    /// Whether it is like a folder of files: slow, and with stand-ins.
    files: bool,
    failure: fn() -> Error,
    reads: Arc<AtomicUsize>,
    /// Dropped with the source, that is with the loader's thread.
    _alive: Option<Sender<()>>,
}

impl Default for Counting {
    fn default() -> Self {
        Self { bad: 0..0, files: false, failure: || Error::failed("unread"), reads: Arc::default(), _alive: None }
    }
}

impl Source for Counting {
    fn len(&self) -> usize {
        12
    }

    fn shape(&self) -> [usize; 3] {
        [1, 2, 2]
    }

    fn classes(&self) -> usize {
        12
    }

    fn is_slow(&self) -> bool {
        self.files
    }

    fn has_stand_ins(&self) -> bool {
        self.files
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.bad.contains(&index) {
            return Err((self.failure)());
        }
        pixels.fill(index as f32);
        Ok(index as i64)
    }
}

fn options(batch_size: usize) -> LoaderOptions {
    LoaderOptions { seed: 3, batch_size, ..LoaderOptions::default() }
}

fn begin(source: impl Source + 'static, options: &LoaderOptions) -> Vec<Receiver<Delivery>> {
    start(Arc::new(source), options.clone()).unwrap()
}

/// What each rank is handed until its channel closes.
fn epoch(source: impl Source + 'static, options: &LoaderOptions) -> Vec<Vec<Delivery>> {
    let ranks =
        begin(source, options).into_iter().map(|receiver| std::thread::spawn(move || receiver.iter().collect()));
    // All threads are started before the first is waited for, as the ranks of a run are.
    ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
}

/// The global batches of an epoch, put together from the shares of all data ranks.
fn global_batches(source: impl Source + 'static, options: &LoaderOptions) -> Vec<Batch> {
    let ranks = epoch(source, options);
    assert!(ranks.iter().all(|rank| rank.len() == ranks[0].len()));
    (0..ranks[0].len())
        .map(|step| {
            let shares = ranks.iter().step_by(options.replicas).map(|rank| rank[step].clone().unwrap());
            shares.map(|share| Batch::clone(&share)).reduce(joined).unwrap()
        })
        .collect()
}

fn joined(mut left: Batch, right: Batch) -> Batch {
    assert_eq!((left.step, left.global_examples), (right.step, right.global_examples));
    left.pixels.extend(right.pixels);
    left.labels.extend(right.labels);
    for (mask, more) in left.masks.iter_mut().zip(right.masks) {
        mask.keep.extend(more.keep);
    }
    left
}

fn masks() -> Vec<MaskSpec> {
    vec![MaskSpec { layer: 4, features: 5, probability: 0.5 }, MaskSpec { layer: 6, features: 3, probability: 0.1 }]
}

fn changed() -> Preparation {
    Preparation { augmentation: Augmentation { flip: true, crop: 1 }, ..Preparation::default() }
}

fn training(data_ranks: usize) -> LoaderOptions {
    LoaderOptions {
        order: Order::Shuffled { epoch: 2 },
        first_step: 40,
        data_ranks,
        masks: masks(),
        preparation: changed(),
        ..options(8)
    }
}

fn noise() -> Noise {
    Noise::new(1, 37, [2, 3, 4], 10).unwrap()
}

#[test]
fn a_batch_holds_the_examples_their_labels_and_their_masks() {
    let batches = global_batches(Counting::default(), &LoaderOptions { masks: masks(), first_step: 7, ..options(5) });
    let labels: Vec<_> = batches.iter().map(|batch| batch.labels.clone()).collect();
    assert_eq!(labels, [vec![0, 1, 2, 3, 4], vec![5, 6, 7, 8, 9], vec![10, 11]]);
    for (k, batch) in batches.iter().enumerate() {
        let count = batch.labels.len();
        assert_eq!((batch.step, batch.global_examples), (7 + k as u64, count));
        assert!(batch.pixels.chunks_exact(4).zip(&batch.labels).all(|(image, &label)| image == [label as f32; 4]));
        let expected: Vec<Mask> = masks().iter().map(|spec| spec.mask(3, batch.step, 0..count)).collect();
        assert_eq!(batch.masks, expected);
    }
}

#[test]
fn a_batch_does_not_depend_on_how_many_ranks_share_it() {
    let whole = global_batches(noise(), &training(1));
    for ranks in [2, 3, 11] {
        assert_eq!(global_batches(noise(), &training(ranks)), whole, "{ranks} ranks");
    }
    let balanced = epoch(noise(), &training(3));
    let sizes = |step: usize| balanced.iter().map(|rank| rank[step].as_ref().unwrap().labels.len()).collect::<Vec<_>>();
    assert_eq!((sizes(0), sizes(4)), (vec![3, 3, 2], vec![2, 2, 1]));
}

#[test]
fn a_rank_without_a_share_gets_an_empty_batch() {
    let ranks = epoch(noise(), &training(7));
    let last = ranks[6][4].as_ref().unwrap();
    assert_eq!((last.global_examples, last.pixels.len(), last.labels.len()), (5, 0, 0));
    assert_eq!(last.masks.iter().map(|mask| mask.keep.len()).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn model_ranks_of_a_data_rank_get_the_very_same_batch() {
    let ranks = epoch(noise(), &LoaderOptions { replicas: 2, ..training(2) });
    let batch = |rank: usize| ranks[rank][0].as_ref().unwrap();
    assert!(Arc::ptr_eq(batch(0), batch(1)) && Arc::ptr_eq(batch(2), batch(3)));
    assert_ne!(batch(0).labels, batch(2).labels);
}

#[test]
fn a_resumed_epoch_goes_on_as_the_whole_one() {
    let whole = global_batches(noise(), &training(2));
    let resumed = LoaderOptions { skip_batches: 2, first_step: 42, ..training(2) };
    assert_eq!(global_batches(noise(), &resumed), whole[2..]);
    for skip_batches in [5, u64::MAX] {
        assert_eq!(epoch(noise(), &LoaderOptions { skip_batches, ..training(1) }), [vec![]]);
    }
}

#[test]
fn epochs_shuffle_and_augment_differently_and_steps_mask_differently() {
    let batches = |epoch, first_step| {
        global_batches(noise(), &LoaderOptions { order: Order::Shuffled { epoch }, first_step, ..training(1) })
    };
    let (base, other_epoch, other_step) = (batches(2, 40), batches(3, 40), batches(2, 50));
    assert_ne!(base[0].labels, other_epoch[0].labels);
    assert_eq!(base[0].masks, other_epoch[0].masks);
    assert_eq!((&base[0].labels, &base[0].pixels), (&other_step[0].labels, &other_step[0].pixels));
    assert_ne!(base[0].masks, other_step[0].masks);
    assert_ne!(base[0].masks[0].keep[..24], base[1].masks[0].keep[..24]);
}

#[test]
fn augmentation_is_keyed_by_the_epoch_and_the_index_in_the_data_set() {
    let augmentation = Augmentation { flip: true, crop: 1 };
    let plain = global_batches(noise(), &LoaderOptions { preparation: Preparation::default(), ..training(1) });
    let mut expected = plain[1].pixels.clone();
    let order = Stream::new(3, Purpose::Shuffle, 0, 2).permutation(37);
    for (image, &index) in expected.chunks_exact_mut(24).zip(&order[8..16]) {
        augmentation.apply(3, 2, u64::from(index), [2, 3, 4], image);
    }
    assert_eq!(global_batches(noise(), &training(1))[1].pixels, expected);
    assert_ne!(plain[1].pixels, expected);
}

#[test]
fn an_unreadable_example_ends_the_epoch_of_every_rank_with_its_error() {
    let source = Counting { bad: 9..10, failure: || Error::failed("cannot read pixels"), ..Counting::default() };
    let ranks = epoch(source, &LoaderOptions { data_ranks: 2, replicas: 2, ..options(4) });
    assert_eq!(ranks.len(), 4);
    for rank in ranks {
        let error = Err(Error::failed("example 9 of the data set: cannot read pixels"));
        assert_eq!((rank.len(), rank[..2].iter().all(Result::is_ok), &rank[2]), (3, true, &error));
    }
}

#[test]
fn a_panic_in_the_loader_reaches_every_rank_as_an_error() {
    let source = Counting { bad: 6..7, failure: || panic!("the disk is on fire"), ..Counting::default() };
    for rank in epoch(source, &LoaderOptions { data_ranks: 3, ..options(4) }) {
        let error = Err(Error::failed("the data loader panicked: the disk is on fire"));
        assert_eq!((rank.len(), &rank[1]), (2, &error));
    }
}

#[test]
fn the_next_that_can_be_read_stands_in_for_an_unreadable_file_on_any_split() {
    let files = |bad| Counting { bad, files: true, failure: || Error::failed("is truncated"), ..Counting::default() };
    let labels = |bad, options: LoaderOptions| -> Vec<Vec<i64>> {
        let batches = global_batches(files(bad), &options);
        batches.into_iter().map(|batch| batch.labels).collect()
    };
    assert_eq!(labels(3..5, options(6)), [vec![0, 1, 2, 5, 5, 5], vec![6, 7, 8, 9, 10, 11]]);
    assert_eq!(labels(10..12, options(12)), [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]]);
    let shuffled = |data_ranks, threads| {
        let counts = Arc::<Counts>::default();
        let more = LoaderOptions { data_ranks, threads, counts: Arc::clone(&counts), ..training(1) };
        let batches = global_batches(files(3..5), &more);
        (batches, counts.made(), counts.failed(), counts.news(), counts.news())
    };
    let whole = shuffled(1, 1);
    // Each of the two fails once, and once more in place of the one before it.
    let told = "is truncated; the next image that can be read stands in for it".to_owned();
    assert_eq!((whole.1, whole.2, &whole.3[..], &whole.4[..]), (12, 3, &[told][..], &[][..]));
    for (data_ranks, threads) in [(1, 5), (3, 1), (3, 2)] {
        assert_eq!(shuffled(data_ranks, threads), whole, "{data_ranks} ranks, {threads} threads");
    }
}

#[test]
fn a_data_set_without_a_readable_file_ends_the_run() {
    let source = Counting { bad: 0..12, files: true, failure: || Error::failed("is gone"), ..Counting::default() };
    let expected =
        "example 0 of the data set: is gone; nor can the 11 after it be read, one of which would stand in for it";
    let more = LoaderOptions { threads: 1, ..options(4) };
    assert_eq!(epoch(source, &more), [[Err(Error::failed(expected))]]);
}

#[test]
fn a_panic_of_one_of_many_readers_reaches_every_rank() {
    let source = Counting { bad: 2..3, files: true, failure: || panic!("the disk is on fire"), ..Counting::default() };
    for rank in epoch(source, &LoaderOptions { data_ranks: 2, threads: 3, ..options(12) }) {
        assert_eq!(rank, [Err(Error::failed("the data loader panicked: the disk is on fire"))]);
    }
}

#[test]
fn the_loader_runs_ahead_by_the_prefetch_depth_and_ends_when_nobody_listens() {
    let (alive, ended) = bounded(0);
    let source = Counting { _alive: Some(alive), ..Counting::default() };
    let reads = Arc::clone(&source.reads);
    let ranks = begin(source, &LoaderOptions { prefetch: 3, ..options(2) });
    let deadline = Instant::now() + PATIENCE;
    while !ranks[0].is_full() {
        assert!(Instant::now() < deadline, "the loader does not fill the channel");
        std::thread::yield_now();
    }
    drop(ranks);
    assert_eq!(ended.recv_timeout(PATIENCE), Err(crossbeam::channel::RecvTimeoutError::Disconnected));
    // Three batches that wait, and the one in the loader's hands, if it had begun with it.
    assert!([6, 8].contains(&reads.load(Ordering::SeqCst)), "{reads:?} reads");
}

#[test]
fn a_rank_can_run_ahead_of_a_slow_one_and_outlive_a_gone_one() {
    let mut ranks = begin(Counting::default(), &LoaderOptions { data_ranks: 2, prefetch: 3, ..options(2) });
    let (gone, listening) = (ranks.remove(1), ranks.remove(0));
    let label = || listening.recv_timeout(PATIENCE).unwrap().unwrap().labels[0];
    assert_eq!([label(), label(), label()], [0, 2, 4]);
    drop(gone);
    assert_eq!([label(), label(), label()], [6, 8, 10]);
    assert!(listening.recv_timeout(PATIENCE).is_err());
}

#[test]
fn options_that_cannot_be_served_are_refused() {
    let refusal = |options: LoaderOptions| start(Arc::new(Counting::default()), options).unwrap_err().to_string();
    assert_eq!(refusal(options(0)), "the batch size is 0; it must be at least 1");
    let expected = "the number of data ranks is 0; it must be at least 1";
    assert_eq!(refusal(LoaderOptions { data_ranks: 0, ..options(1) }), expected);
    let expected = "the number of model ranks is 0; it must be at least 1";
    assert_eq!(refusal(LoaderOptions { replicas: 0, ..options(1) }), expected);
    for probability in [-0.1, 1.1, f64::NAN] {
        let masks = vec![MaskSpec { layer: 4, features: 5, probability }];
        let expected = format!("the dropout probability of layer 4 is {probability}; it must be between 0 and 1");
        assert_eq!(refusal(LoaderOptions { masks, ..options(1) }), expected);
    }
}

proptest! {
    #[test]
    fn an_epoch_holds_every_example_once(
        batch_size in 1usize..15, data_ranks in 1usize..5, replicas in 1usize..3, shuffled: bool, prefetch in 0usize..3
    ) {
        let order = if shuffled { Order::Shuffled { epoch: 1 } } else { Order::InOrder };
        let options = LoaderOptions { data_ranks, replicas, order, prefetch, ..options(batch_size) };
        let batches = global_batches(Counting::default(), &options);
        let mut labels: Vec<i64> = batches.iter().flat_map(|batch| batch.labels.clone()).collect();
        prop_assert!(batches.iter().all(|batch| batch.labels.len() == batch.global_examples));
        prop_assert_eq!(batches.len(), 12usize.div_ceil(batch_size));
        prop_assert_eq!(labels.is_sorted(), !shuffled);
        labels.sort_unstable();
        prop_assert_eq!(labels, (0..12).collect::<Vec<_>>());
    }
}
