//! Packs: decoded images in one file, which training reads without decoding anything.
//!
//! * [`mod@format`] what a pack looks like
//! * [`write`](mod@write) how it is made of another data set
//!
//! A pack is read by position and not mapped: the bytes come out of the same memory of the system's, and a file that shrinks or a
//! disk that fails is a sentence, where a mapped file ends the process by SIGBUS.

pub mod format;
pub mod write;

use super::images::decode::to_values;
use super::images::listing::thin_out;
use super::source::{Source, Subset};
use crate::error::{Error, Result};
use format::{Head, Part};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// From so many bytes of an image on, several threads are to read.
const SLOW: usize = 1 << 14;

/// One subset of a pack: [C, H, W] as they were packed.
#[derive(Debug)]
pub struct Pack {
    path: PathBuf,
    file: File,
    subset: Subset,
    part: Part,
    classes: usize,
    /// Which of its images are used.
    chosen: Vec<u32>,
}

impl Pack {
    /// Opens `subset` of the pack at `path`, of which at most `wanted` images are used, spread evenly over it (0: all). Header,
    /// labels and checksums are checked, and each image when it is read.
    ///
    /// # Errors
    /// A usage error where it cannot be read, is no pack, or is damaged.
    pub fn open(path: &Path, subset: Subset, wanted: usize) -> Result<Self> {
        let (file, Head { classes, train, test, .. }) = format::open(path)?;
        let part = match subset {
            Subset::Train => train,
            Subset::Test => test,
        };
        let mut chosen: Vec<u32> = (0..part.labels.len() as u32).collect();
        thin_out(&mut chosen, wanted);
        Ok(Self { path: path.to_owned(), file, subset, part, classes, chosen })
    }
}

/// How many classes a pack has.
///
/// # Errors
/// Those of [`Pack::open`].
pub fn classes(path: &Path) -> Result<usize> {
    Ok(format::open(path)?.1.classes)
}

impl Source for Pack {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.part.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    /// Of all labels, and of all images' checksums.
    fn checksum(&self) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(format!("{:?} {} {:?}", self.subset, self.classes, self.part.shape).as_bytes());
        for &index in &self.chosen {
            checksum.update(&self.part.labels[index as usize].to_le_bytes());
            checksum.update(&self.part.checksums[index as usize].to_le_bytes());
        }
        checksum.finalize()
    }

    fn is_slow(&self) -> bool {
        self.part.shape.iter().product::<usize>() >= SLOW
    }

    fn has_stand_ins(&self) -> bool {
        true
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let Self { path, file, subset, part, chosen, .. } = self;
        let index = chosen[index] as usize;
        let fault = |problem: String| {
            let name = format::name_of(*subset);
            Error::failed(format!("{}: image {index} of {name} {problem}", path.display()))
        };
        let mut image = vec![0; part.shape.iter().product()];
        let at = part.images + (index * image.len()) as u64;
        file.read_exact_at(&mut image, at).map_err(|error| fault(format!("cannot be read: {error}")))?;
        let (found, expected) = (crc32fast::hash(&image), part.checksums[index]);
        if found != expected {
            return Err(fault(format!("is damaged: its CRC-32 is {found:08x}, not {expected:08x}")));
        }
        to_values(&image, pixels);
        Ok(part.labels[index])
    }
}

#[cfg(test)]
mod tests;
