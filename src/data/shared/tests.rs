//! Ranks that share a loader, here as threads of one process: they get what loaders of their own would give them, and none
//! waits for ever.

use super::*;
use crate::data::{Augmentation, Batch, MaskSpec, Noise, Order, Preparation};
use crate::error::Error;
use crossbeam::channel::{RecvTimeoutError, Sender};
use std::sync::atomic::{AtomicUsize, Ordering};

/// So that a test of something that hangs fails; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The supplies of the ranks of a host, which follow each other from rank 0.
fn supplies(ranks: usize, patience: Duration) -> Vec<Supply> {
    let (near, far): (Vec<_>, Vec<_>) = (1..ranks).map(|_| UnixStream::pair().unwrap()).unzip();
    let first = Supply::First { rank: 0, others: (1..).zip(near).collect() };
    let others = far.into_iter().map(|link| Supply::Other { first: 0, link, patience });
    std::iter::once(first).chain(others).collect()
}

/// Starts a stream of every supply; each has the source of its rank.
fn begin(
    supplies: &[Supply],
    source: impl Fn(usize) -> Arc<dyn Source>,
    options: &LoaderOptions,
) -> Vec<Receiver<Delivery>> {
    let of_rank = |(rank, supply): (usize, &Supply)| supply.stream(&source(rank), options.clone()).unwrap().remove(0);
    supplies.iter().enumerate().map(of_rank).collect()
}

/// All that comes through a channel until it closes.
fn all(stream: &Receiver<Delivery>) -> Vec<Delivery> {
    let next = || match stream.recv_timeout(PATIENCE) {
        Ok(delivery) => Some(delivery),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("the loader hangs"),
    };
    std::iter::from_fn(next).collect()
}

/// What each of several streams delivers; they are read from at the same time, as ranks do.
fn delivered(streams: Vec<Receiver<Delivery>>) -> Vec<Vec<Delivery>> {
    let reading: Vec<_> = streams.into_iter().map(|stream| std::thread::spawn(move || all(&stream))).collect();
    reading.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn noise() -> Arc<dyn Source> {
    Arc::new(Noise::new(1, 37, [2, 3, 4], 10).unwrap())
}

fn changed() -> Preparation {
    Preparation { augmentation: Augmentation { flip: true, crop: 1 }, ..Preparation::default() }
}

fn training(data_ranks: usize, replicas: usize) -> LoaderOptions {
    LoaderOptions {
        seed: 3,
        batch_size: 4,
        order: Order::Shuffled { epoch: 2 },
        first_step: 42,
        data_ranks,
        replicas,
        masks: [(4, 5, 0.5), (6, 3, 0.1)]
            .map(|(layer, features, probability)| MaskSpec { layer, features, probability })
            .into(),
        preparation: changed(),
        ..LoaderOptions::default()
    }
}

/// Noise that says how often it was read and that its loader has ended, and may not be read at one place.
struct Watched {
    noise: Arc<dyn Source>,
    reads: Arc<AtomicUsize>,
    bad: Option<usize>,
    _alive: Option<Sender<()>>,
}

impl Watched {
    fn new() -> Self {
        Self { noise: noise(), reads: Arc::default(), bad: None, _alive: None }
    }
}

impl Source for Watched {
    fn len(&self) -> usize {
        self.noise.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.noise.shape()
    }

    fn classes(&self) -> usize {
        self.noise.classes()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.bad == Some(index) {
            return Err(Error::usage("cannot read\npixels"));
        }
        self.noise.read(index, pixels)
    }
}

fn bits(batch: &Batch) -> Vec<u32> {
    batch.pixels.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_rank_gets_what_a_loader_of_its_own_would_give_it() {
    for (data_ranks, replicas) in [(1, 2), (2, 1), (2, 2), (3, 2), (7, 1)] {
        let supplies = supplies(data_ranks * replicas, PATIENCE);
        let evaluation = LoaderOptions { order: Order::InOrder, masks: Vec::new(), ..training(data_ranks, replicas) };
        let resumed = LoaderOptions { skip_batches: 3, ..training(data_ranks, replicas) };
        // One stream after the other over the same connections.
        for options in [training(data_ranks, replicas), evaluation, resumed] {
            let expected = delivered(loader::start(noise(), options.clone()).unwrap());
            let shared = delivered(begin(&supplies, |_| noise(), &options));
            assert_eq!(expected[0].len() as u64, 10 - options.skip_batches);
            assert_eq!(shared, expected, "{data_ranks}x{replicas}");
            for (shared, expected) in shared.iter().flatten().zip(expected.iter().flatten()) {
                assert_eq!(bits(shared.as_ref().unwrap()), bits(expected.as_ref().unwrap()));
            }
        }
    }
}

#[test]
fn only_the_first_rank_reads_and_counts_and_it_does_so_once() {
    for (data_ranks, replicas) in [(1, 3), (3, 1), (2, 2)] {
        let ranks = data_ranks * replicas;
        let sources: Vec<Arc<Watched>> = (0..ranks).map(|_| Arc::new(Watched::new())).collect();
        let supplies = supplies(ranks, PATIENCE);
        let options: Vec<LoaderOptions> =
            (0..ranks).map(|_| LoaderOptions { counts: Arc::default(), ..training(data_ranks, replicas) }).collect();
        let stream = |rank: usize| {
            let source: Arc<dyn Source> = Arc::clone(&sources[rank]) as _;
            supplies[rank].stream(&source, options[rank].clone()).unwrap().remove(0)
        };
        let streams = (0..ranks).map(stream).collect();
        assert!(delivered(streams).iter().all(|rank| rank.len() == 10 && rank.iter().all(Result::is_ok)));
        for rank in 0..ranks {
            let expected = if rank == 0 { 37 } else { 0 };
            assert_eq!(sources[rank].reads.load(Ordering::SeqCst), expected, "reads of rank {rank}");
            assert_eq!(options[rank].counts.made(), expected as u64, "counts of rank {rank}");
        }
    }
}

#[test]
fn an_unreadable_example_ends_the_stream_of_every_rank_with_its_error() {
    let options = LoaderOptions { order: Order::InOrder, ..training(2, 2) };
    let source = |_| -> Arc<dyn Source> { Arc::new(Watched { bad: Some(9), ..Watched::new() }) };
    for rank in delivered(begin(&supplies(4, PATIENCE), source, &options)) {
        let error = Err(Error::usage("example 9 of the data set: cannot read\npixels"));
        assert_eq!((rank.len(), rank[..2].iter().all(Result::is_ok), &rank[2]), (3, true, &error));
    }
}

#[test]
fn a_stream_that_all_have_left_ends_its_loader_and_the_next_one_is_whole() {
    let (alive, ended) = bounded(0);
    let supplies = supplies(3, PATIENCE);
    let source = Arc::new(Watched { _alive: Some(alive), ..Watched::new() });
    let reads = Arc::clone(&source.reads);
    let left = LoaderOptions { batch_size: 3, prefetch: 1, ..training(3, 1) };
    let streams = begin(&supplies, |_| Arc::clone(&source) as _, &left);
    drop(source);
    streams.iter().for_each(|stream| drop(stream.recv_timeout(PATIENCE).unwrap().unwrap()));
    drop(streams);
    assert_eq!(ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert!(reads.load(Ordering::SeqCst) < 37, "it went on to the end");
    let next = delivered(begin(&supplies, |_| noise(), &training(3, 1)));
    assert_eq!(next, delivered(loader::start(noise(), training(3, 1)).unwrap()));
}

#[test]
fn a_rank_that_has_left_is_not_waited_for() {
    for gone in 0..3 {
        let mut streams = begin(&supplies(3, PATIENCE), |_| noise(), &training(1, 3));
        drop(streams.remove(gone));
        assert!(delivered(streams).iter().all(|rank| rank.len() == 10 && rank.iter().all(Result::is_ok)));
    }
}

#[test]
fn a_slow_rank_holds_the_loader_up() {
    let source = Arc::new(Watched::new());
    let options = LoaderOptions { prefetch: 1, batch_size: 1, ..training(1, 2) };
    let mut streams = begin(&supplies(2, PATIENCE), |_| Arc::clone(&source) as _, &options);
    let (slow, first) = (streams.remove(1), streams.remove(0));
    // Rank 1 takes nothing: a batch waits in its channel, one in its hands, the slots are full, and with the first rank a
    // batch waits and another is in the loader's hands.
    let taken = std::iter::from_fn(|| first.recv_timeout(Duration::from_millis(200)).ok()).count();
    let most = 2 + slots::SLOTS as usize + 2;
    assert!(taken <= most && source.reads.load(Ordering::SeqCst) <= most, "{taken}");
    let rest = delivered(vec![first, slow]);
    assert_eq!((rest[0].len() + taken, rest[1].len()), (37, 37));
}

#[test]
fn silence_is_no_error_while_a_rank_has_a_batch_left() {
    let moment = Duration::from_secs(1);
    let options = LoaderOptions { prefetch: 2, batch_size: 1, ..training(1, 3) };
    let streams = begin(&supplies(3, moment), |_| noise(), &options);
    // Rank 2 takes nothing: two batches wait in its channel, one in its hands, two in the slots. So rank 1 gets five, and the
    // fifth it leaves.
    for _ in 0..4 {
        let taken = streams[..2].iter().map(|stream| stream.recv_timeout(PATIENCE).unwrap());
        assert!(taken.map(|delivery| delivery.unwrap().step).all(|step| step >= 42));
    }
    // Nothing happens, and that is what is waited for.
    std::thread::sleep(moment * 5 / 2);
    assert_eq!(streams[1].len(), 1);
    assert_eq!(streams[1].recv().unwrap().unwrap().step, 46);
}

/// Cannot be read until the other end is dropped.
struct Stuck(Receiver<()>);

impl Source for Stuck {
    fn len(&self) -> usize {
        8
    }

    fn shape(&self) -> [usize; 3] {
        [2, 3, 4]
    }

    fn classes(&self) -> usize {
        10
    }

    fn read(&self, _: usize, _: &mut [f32]) -> Result<i64> {
        let _ = self.0.recv();
        Ok(0)
    }
}

#[test]
fn a_first_rank_that_is_silent_is_named() {
    let moment = Duration::from_millis(20);
    let expected = "the loader of rank 0, which makes the batches of this host, has made none for 20ms: it is stopped, or its \
                    data comes too slowly; parallel.timeout sets how long it is waited for";
    // It opens no stream.
    let silent = supplies(2, moment);
    let refused = silent[1].stream(&noise(), training(1, 2)).unwrap_err();
    assert_eq!(refused, Error::failed(expected));
    // It opens one and makes no batch.
    let (hold, held) = bounded::<()>(0);
    let stuck: Arc<dyn Source> = Arc::new(Stuck(held));
    let streams = begin(&supplies(2, moment), |_| Arc::clone(&stuck), &training(1, 2));
    let delivery = streams[1].recv_timeout(PATIENCE).unwrap();
    drop(hold);
    assert_eq!(delivery.unwrap_err(), Error::failed(expected));
}

#[test]
fn a_first_rank_that_has_gone_is_named() {
    let mut supplies = supplies(2, PATIENCE);
    let other = supplies.remove(1);
    drop(supplies);
    let gone = other.stream(&noise(), training(1, 2)).unwrap_err();
    assert_eq!(gone, Error::PeerGone("the loader of rank 0, which makes the batches of this host, has gone".into()));
}

#[test]
fn memory_of_another_size_is_refused() {
    let options = |batch_size| LoaderOptions { batch_size, ..training(1, 2) };
    let supplies = supplies(2, PATIENCE);
    let _stream = supplies[0].stream(&noise(), options(4)).unwrap();
    let refused = supplies[1].stream(&noise(), options(30)).unwrap_err().to_string();
    assert!(refused.contains("its ranks differ in their data"), "{refused}");
}
