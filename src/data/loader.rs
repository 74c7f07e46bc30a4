//! The prefetching loader: a thread makes batches ahead of the ranks and hands each rank its share. Where examples are slow to
//! read, others help it.

use super::batch::{Batch, MaskSpec};
use super::counts::Counts;
use super::outlet::Outlet;
use super::prepare::Preparation;
use super::source::Source;
use crate::error::{Error, Result};
use crate::model::ranges::share;
use crate::random::{Purpose, Stream};
use crossbeam::channel::{Receiver, bounded};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// So many examples after one that cannot be read are tried in its place.
const MOST_STAND_INS: u32 = 1000;

/// The order in which an epoch goes through the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A random order, another one in each epoch: the permutation of [`Purpose::Shuffle`], layer 0 and time `epoch`.
    Shuffled {
        /// The epoch; it keys the augmentation too.
        epoch: u64,
    },
    /// The order of the data set, for evaluation. Augmentation, if it is on, is that of epoch 0.
    InOrder,
}

/// What a loader hands out.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// The seed of the run.
    pub seed: u64,
    /// Examples in a global batch. The last batch of an epoch has what is left.
    pub batch_size: usize,
    /// The order of the examples.
    pub order: Order,
    /// The training step of the first batch that is handed out; it keys the dropout masks.
    pub first_step: u64,
    /// Ranks along the data axis: they share each global batch.
    pub data_ranks: usize,
    /// Model ranks of each data rank: they get the same batch.
    pub replicas: usize,
    /// The dropout layers that need a mask in each step.
    pub masks: Vec<MaskSpec>,
    /// What is done to the images. Each view of an image is an example of its batch, the views of one after the other.
    pub preparation: Preparation,
    /// Batches at the start of the epoch that are left out: where a resumed run goes on.
    pub skip_batches: u64,
    /// How many batches may wait for each rank.
    pub prefetch: usize,
    /// How many threads read, where examples are slow to read; 0: one for each core.
    pub threads: usize,
    /// Where it counts what it makes.
    pub counts: Arc<Counts>,
}

impl Default for LoaderOptions {
    /// Batches of 128 in order for one rank, four ahead, with neither masks nor augmentation.
    fn default() -> Self {
        Self {
            seed: 0,
            batch_size: 128,
            order: Order::InOrder,
            first_step: 0,
            data_ranks: 1,
            replicas: 1,
            masks: Vec::new(),
            preparation: Preparation::default(),
            skip_batches: 0,
            prefetch: 4,
            threads: 0,
            counts: Arc::default(),
        }
    }
}

/// What a rank receives: its share of the next batch, or why there is none.
pub type Delivery = Result<Arc<Batch>>;

/// Starts the loader's thread for one epoch of `source`. Returns a channel for each rank, ranks being
/// data rank * `replicas` + model rank. Each rank gets one batch a step, an empty one where it has no share. A channel
/// that closes says that the epoch is over; the thread ends early, without a word, once every channel is dropped.
///
/// # Errors
/// A usage error where the options or the source leave nothing to hand out. Later failures (an example that cannot be
/// read, a panic in the thread) reach every rank through its channel, as the last thing in it.
pub fn start(source: Arc<dyn Source>, options: LoaderOptions) -> Result<Vec<Receiver<Delivery>>> {
    let examples = check(source.as_ref(), &options)?;
    let mut receivers = Vec::with_capacity(options.data_ranks * options.replicas);
    let outlets = (0..options.data_ranks).map(|data_rank| {
        let (here, listening): (Vec<_>, Vec<_>) = (0..options.replicas).map(|_| bounded(options.prefetch)).unzip();
        receivers.extend(listening);
        Outlet { data_rank, here, elsewhere: None }
    });
    let outlets = outlets.collect();
    run(source, options, examples, outlets)?;
    Ok(receivers)
}

/// Starts the loader's thread for one epoch of the `examples` of `source`, for those ranks that `outlets` lead to.
///
/// # Errors
/// The thread cannot be started.
pub fn run(source: Arc<dyn Source>, options: LoaderOptions, examples: u32, mut outlets: Vec<Outlet>) -> Result<()> {
    // Bounded outlets, served in order, are enough: ranks may drift apart by what they hold, then the loader waits for the
    // slowest. Nobody waits in a circle: while the loader waits to hand batch k to a rank, every rank has been handed all
    // batches before k, so that rank and whoever it exchanges with can finish all steps before k.
    let work = move || {
        let epoch = || Epoch::new(source.as_ref(), &options, examples).deliver(&mut outlets);
        let result = catch_unwind(AssertUnwindSafe(epoch)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        for outlet in &mut outlets {
            match &result {
                Ok(()) => outlet.end(),
                Err(error) => {
                    outlet.hand(&Err(error.clone()));
                }
            }
        }
    };
    thread::Builder::new()
        .name("loader".into())
        .spawn(work)
        .map_err(|error| Error::failed(format!("cannot start the data loader's thread: {error}")))?;
    Ok(())
}

/// Refuses what a loader cannot serve. Returns the number of examples.
///
/// # Errors
/// A usage error where the options or the source leave nothing to hand out.
pub fn check(source: &dyn Source, options: &LoaderOptions) -> Result<u32> {
    let examples = u32::try_from(source.len()).map_err(|_| {
        Error::usage(format!("the data set has {} examples and mpt can order {}; split it", source.len(), u32::MAX))
    })?;
    let positive = [
        ("the number of examples in the data set", source.len()),
        ("the batch size", options.batch_size),
        ("the number of data ranks", options.data_ranks),
        ("the number of model ranks", options.replicas),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, number)| *number == 0) {
        return Err(Error::usage(format!("{name} is 0; it must be at least 1")));
    }
    if let Some(spec) = options.masks.iter().find(|spec| !(0.0..=1.0).contains(&spec.probability)) {
        return Err(Error::usage(format!(
            "the dropout probability of layer {} is {}; it must be between 0 and 1",
            spec.layer, spec.probability
        )));
    }
    Ok(examples)
}

/// A panic as an error that says what it said.
pub fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::failed(format!("the data loader panicked: {}", text.unwrap_or("it left no message")))
}

/// One epoch's work.
struct Epoch<'a> {
    source: &'a dyn Source,
    options: &'a LoaderOptions,
    /// The index in the data set of each position in the epoch.
    indices: Vec<u32>,
    /// What keys the augmentation.
    epoch: u64,
}

impl<'a> Epoch<'a> {
    fn new(source: &'a dyn Source, options: &'a LoaderOptions, examples: u32) -> Self {
        let (epoch, indices) = match options.order {
            Order::Shuffled { epoch } => {
                (epoch, Stream::new(options.seed, Purpose::Shuffle, 0, epoch).permutation(examples))
            }
            Order::InOrder => (0, (0..examples).collect()),
        };
        Self { source, options, indices, epoch }
    }

    /// Hands every batch to every rank.
    fn deliver(&self, outlets: &mut [Outlet]) -> Result<()> {
        let skipped = usize::try_from(self.options.skip_batches).unwrap_or(usize::MAX);
        let batches = self.indices.chunks(self.options.batch_size).skip(skipped);
        for (step, batch) in (self.options.first_step..).zip(batches) {
            // All shares before the first is handed out: no rank begins a step that another one cannot join.
            let of = |outlet: &Outlet| share(batch.len(), self.options.data_ranks, outlet.data_rank);
            let shares = outlets.iter().map(|outlet| self.batch(step, batch, of(outlet)).map(Arc::new));
            let shares = shares.collect::<Result<Vec<_>>>()?;
            let mut listening = false;
            for (outlet, share) in outlets.iter_mut().zip(shares) {
                listening |= outlet.hand(&Ok(share));
            }
            if !listening {
                break;
            }
        }
        Ok(())
    }

    /// The share of a global batch that lies at `positions`.
    fn batch(&self, step: u64, global: &[u32], positions: Range<usize>) -> Result<Batch> {
        let Self { source, options, .. } = self;
        let (stored, views) = (source.shape(), options.preparation.views.count());
        let shape = options.preparation.shape(stored);
        let size = views * shape.iter().product::<usize>();
        let mut pixels = vec![0.0; positions.len() * size];
        let mut labels = vec![0; positions.len() * views];
        let examples =
            pixels.chunks_exact_mut(size).zip(labels.chunks_exact_mut(views)).zip(&global[positions.clone()]);
        let examples = Mutex::new(examples);
        let next = || examples.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.with_help(positions.len(), &|| {
            let mut image = vec![0.0; stored.iter().product()];
            while let Some(((seen, labels), &index)) = next() {
                labels.fill(self.read(index, &mut image)?);
                options.preparation.apply(options.seed, self.epoch, u64::from(index), stored, &mut image, seen);
            }
            Ok(())
        })?;
        let masks = options.masks.iter().map(|spec| spec.mask(options.seed, step, positions.clone())).collect();
        Ok(Batch { step, global_examples: global.len() * views, shape, pixels, labels, masks })
    }

    /// Does `work`, which takes one of `pieces` after the other until there are no more, on as many threads as are of use.
    fn with_help(&self, pieces: usize, work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
        let threads = match self.options.threads {
            _ if !self.source.is_slow() => 1,
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        thread::scope(|scope| {
            let help = |_| thread::Builder::new().name("reader".into()).spawn_scoped(scope, work);
            // With fewer threads than there might be, it takes longer.
            let helpers: Vec<_> = (1..threads.min(pieces)).map_while(|number| help(number).ok()).collect();
            let own = work();
            let helped = helpers.into_iter().map(|helper| helper.join().unwrap_or_else(|panic| Err(panicked(&*panic))));
            helped.fold(own, Result::and)
        })
    }

    /// Reads an example, or the one that stands in for it: the next one in the data set that can be read. Which that is depends
    /// on the data set alone, so that all splits and all epochs see the same.
    fn read(&self, index: u32, image: &mut [f32]) -> Result<i64> {
        let Self { source, options, .. } = self;
        let all = source.len() as u32;
        let tried = if source.has_stand_ins() { MOST_STAND_INS.min(all - 1) } else { 0 };
        let mut first = None;
        for ahead in 0..=tried {
            // The number of examples may be just below the largest.
            let other = ((u64::from(index) + u64::from(ahead)) % u64::from(all)) as usize;
            match source.read(other, image) {
                Ok(label) => {
                    options.counts.made_one();
                    return Ok(label);
                }
                Err(error) => {
                    options.counts.failed_one(&error.to_string());
                    first.get_or_insert(error);
                }
            }
        }
        let error = first.unwrap_or_else(|| Error::failed("it was not read"));
        let error = error.within(format!("example {index} of the data set"));
        Err(match tried {
            0 => error,
            _ => Error::failed(format!(
                "{error}; nor can the {tried} after it be read, one of which would stand in for it"
            )),
        })
    }
}

#[cfg(test)]
mod tests;
