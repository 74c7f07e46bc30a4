//! What a data set is to the rest of mpt.

use crate::error::Result;

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    /// What the network learns from.
    Train,
    /// What it is judged on.
    Test,
}

/// Labelled images of one shape, read by index.
pub trait Source: Send + Sync {
    /// How many examples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of an image as it is stored: channels, height, width.
    fn shape(&self) -> [usize; 3];

    /// How many classes there are: labels are in `0..classes`.
    fn classes(&self) -> usize;

    /// A number that data sets of different examples do not share, or hardly ever. Where examples are computed their
    /// settings tell them apart, and this only says how many there are of which form.
    fn checksum(&self) -> u32 {
        let form = format!("{} {:?} {}", self.len(), self.shape(), self.classes());
        crc32fast::hash(form.as_bytes())
    }

    /// What tells a data set from others, for people: how many examples there are, and the checksum.
    fn identity(&self) -> String {
        format!("{} examples with checksum {:08x}", self.len(), self.checksum())
    }

    /// What is to be said about the data set before it is used, in sentences: what was left out of it.
    fn remarks(&self) -> &[String] {
        &[]
    }

    /// Whether an example takes so long to read that several threads are to read at a time.
    fn is_slow(&self) -> bool {
        false
    }

    /// Whether another example may stand in for one that cannot be read. If not, that ends the run.
    fn has_stand_ins(&self) -> bool {
        false
    }

    /// Writes the pixels of example `index` (below [`len`](Self::len)), each in `0.0..=1.0`, to `pixels`: [C, H, W] of
    /// [`shape`](Self::shape). Returns the example's label. The same index always gives the same example.
    ///
    /// # Errors
    /// Where the example cannot be read, a sentence that says why.
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64>;
}
