//! The slices of a checkpoint's files that the ranks of this process hold: which values of whole parameters lie where in
//! their shards.

use super::layout::{Layout, Run};
use super::rank::Shard;
use super::saving::described;
use crate::checkpoint::folder::{MODEL, OPTIMIZER};
use crate::checkpoint::slices::{Outline, SliceSum, Slices};
use crate::error::{Error, Result};
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The shard of a rank, with its number.
pub type Numbered = (usize, Shard);

/// The sums of what one process wrote of each file, by the file's name.
pub type Sums = BTreeMap<String, SliceSum>;

/// The files of a checkpoint, which lie alike: the weights, and the velocities where there are some.
pub struct Draft {
    outline: Outline,
    names: Vec<&'static str>,
}

impl Draft {
    /// The files for what shards hold.
    ///
    /// # Errors
    /// They are too large for a file.
    pub fn of(plan: &Plan, shards: &[Numbered]) -> Result<Self> {
        let first = shards.first().map(|(_, shard)| shard);
        let kind = first.and_then(|shard| shard.masters.first()).map_or(Kind::Float, Tensor::kind);
        let velocities = first.is_some_and(|shard| shard.velocities.is_some());
        let names = [MODEL].into_iter().chain(velocities.then_some(OPTIMIZER)).collect();
        Ok(Self { outline: Outline::new(kind, &described(&plan.model))?, names })
    }

    /// Makes the files in a folder, with room for all values.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(&self, folder: &Path) -> Result<()> {
        self.names.iter().try_for_each(|name| self.outline.create(&folder.join(name)))
    }

    /// Writes what shards hold to the files in a folder, and waits until it is on the disk.
    ///
    /// # Errors
    /// The file system's, as on a full disk.
    pub fn write(&self, folder: &Path, plan: &Plan, layouts: &[Layout], shards: &[Numbered]) -> Result<Sums> {
        let write = |&name: &&str| {
            let mut file = Slices::of(&folder.join(name), &self.outline)?;
            let of = |shard| parts(shard, name);
            let parameters = layouts.first().map_or(0, |layout| layout.entries.len());
            (0..parameters)
                .try_for_each(|parameter| write_parameter(&mut file, parameter, plan, layouts, shards, of))?;
            Ok((name.to_owned(), file.finish()?))
        };
        self.names.iter().map(write).collect()
    }

    /// The sums of whole files from those of all who wrote to them.
    ///
    /// # Errors
    /// They did not write all.
    pub fn whole(&self, sums: &[Sums]) -> Result<BTreeMap<String, crate::checkpoint::tensors::FileSum>> {
        let whole = |&name: &&str| {
            let of_file = sums.iter().filter_map(|sums| sums.get(name).copied());
            Ok((name.to_owned(), self.outline.whole(of_file).map_err(|error| error.within(name))?))
        };
        self.names.iter().map(whole).collect()
    }
}

fn parts<'s>(shard: &'s Shard, name: &str) -> &'s [Tensor] {
    if name == OPTIMIZER { shard.velocities.as_deref().unwrap_or_default() } else { &shard.masters }
}

/// Writes those values of a parameter that shards hold, each once, whichever ranks hold it.
fn write_parameter<'s>(
    file: &mut Slices,
    parameter: usize,
    plan: &Plan,
    layouts: &[Layout],
    shards: &'s [Numbered],
    of: impl Fn(&'s Shard) -> &'s [Tensor],
) -> Result<()> {
    let mut runs = Vec::new();
    for (rank, shard) in shards {
        let model_rank = plan.mesh.model_rank(*rank);
        let (layout, entry) = (&layouts[model_rank], &layouts[model_rank].entries[parameter]);
        // What the ranks of the model axis hold alike is the same on each: the first writes it.
        if !entry.share.is_split() && model_rank > 0 {
            continue;
        }
        for (part, values) in layout.shard(plan.mesh.data_rank(*rank)).iter().zip(of(shard)) {
            runs.extend(entry.runs(part).map(|Run { place, whole }| (whole, values, place - part.start)));
        }
    }
    runs.sort_unstable_by_key(|(whole, ..)| whole.start);
    for (whole, values, at) in runs {
        file.write(parameter, whole.start, bytes(values, at, whole.len())?)?;
    }
    Ok(())
}

/// The bytes of some values of a tensor, `[size]`, in the memory of the CPU.
fn bytes(values: &Tensor, at: usize, count: usize) -> Result<&[u8]> {
    let width = values.kind().elt_size_in_bytes();
    if values.device() != Device::Cpu || !values.is_contiguous() || at + count > values.numel() {
        return Err(Error::failed("a shard does not lie in memory as its layout says"));
    }
    // SAFETY: the tensor's values lie side by side from there on, as was just checked. Nobody writes to the copy of a shard
    // while it is being written to files.
    Ok(unsafe { std::slice::from_raw_parts(values.data_ptr().cast::<u8>().add(at * width), count * width) })
}
