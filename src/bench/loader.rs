//! Images a second, as the loader makes batches of them.

use crate::data::{Augmentation, LoaderOptions, MaskSpec, Order, Preparation, Source, start};
use crate::error::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the loader took for some batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it did besides reading images.
    pub what: &'static str,
    /// Images handed out.
    pub images: usize,
    /// Seconds by the clock.
    pub seconds: f64,
    /// Seconds of processor time of this whole process.
    pub processor_seconds: f64,
}

impl Row {
    /// Images a second.
    pub fn rate(&self) -> f64 {
        self.images as f64 / self.seconds
    }

    /// Images a second of one core that does nothing else.
    pub fn rate_per_core(&self) -> f64 {
        self.images as f64 / self.processor_seconds
    }
}

/// What the loader is asked for besides the images, from nothing to everything: the changes of a recipe, or some if it has none.
pub fn variants(masks: &[MaskSpec], prepared: &Preparation) -> Vec<(&'static str, Vec<MaskSpec>, Preparation)> {
    let plain = Preparation { augmentation: Augmentation::default(), ..prepared.clone() };
    let mut all = vec![("images", Vec::new(), plain.clone())];
    if !masks.is_empty() {
        all.push(("images, dropout masks", masks.to_vec(), plain.clone()));
    }
    let recipe = prepared.augmentation;
    let augmentation = if recipe == Augmentation::default() { Augmentation { flip: true, crop: 2 } } else { recipe };
    let what = if masks.is_empty() { "images, random changes" } else { "images, dropout masks, random changes" };
    all.push((what, masks.to_vec(), Preparation { augmentation, ..plain }));
    all
}

/// Takes one epoch of batches from a loader with so many threads that read (0: one for each core), and does nothing with them.
///
/// # Errors
/// An image cannot be read.
pub fn measure(
    source: &Arc<dyn Source>,
    batch_size: usize,
    threads: usize,
    (what, masks, preparation): (&'static str, Vec<MaskSpec>, Preparation),
) -> Result<Row> {
    let options = LoaderOptions {
        batch_size,
        order: Order::Shuffled { epoch: 0 },
        masks,
        preparation,
        threads,
        ..LoaderOptions::default()
    };
    let (begin, used) = (Instant::now(), processor_time());
    let mut images = 0;
    for stream in start(Arc::clone(source), options)? {
        for batch in stream {
            images += batch?.labels.len();
        }
    }
    let processor_seconds = (processor_time() - used).as_secs_f64();
    Ok(Row { what, images, seconds: begin.elapsed().as_secs_f64(), processor_seconds })
}

/// The processor time that this process has used so far, in its own code and in the kernel's.
fn processor_time() -> Duration {
    // SAFETY: the structure is plain numbers, for which zeros are valid, and the call fills in the one it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |spent: libc::timeval| {
        Duration::new(spent.tv_sec.unsigned_abs(), 1000 * u32::try_from(spent.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
