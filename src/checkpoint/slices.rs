//! A file of whole tensors that is written in slices, by one process or by many at once: each writes the ranges of bytes
//! that it has to their places, and sums them up as if all other bytes were zeros. CRC-32 is linear but for a constant, so
//! that these sums give that of the whole file, which nobody need read again.

use super::tensors::{Described, FileSum, shown, start_of_file};
use crate::error::{Error, Result};
use crate::file;
use crc32fast::Hasher;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tch::Kind;

/// Bytes that are summed up and written at once, while they are in the processor's cache.
const AT_ONCE: usize = 256 << 10;

/// Where the values of tensors lie in a file.
#[derive(Clone, Debug)]
pub struct Outline {
    /// What stands before the values.
    start: Vec<u8>,
    /// Where each tensor's values begin.
    begins: Vec<u64>,
    /// Bytes of a value.
    width: u64,
    /// Bytes of the file.
    bytes: u64,
}

/// What was written of a file by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceSum {
    /// How many bytes.
    bytes: u64,
    /// The CRC-32 of the file, had it zeros in place of all others.
    crc32: u32,
}

impl Outline {
    /// The file of these tensors, of type fp32 or fp64, in this order.
    ///
    /// # Errors
    /// They are too large for a file.
    pub fn new(kind: Kind, tensors: &[Described]) -> Result<Self> {
        let (dtype, width) = (if kind == Kind::Double { Dtype::F64 } else { Dtype::F32 }, kind.elt_size_in_bytes());
        let (mut end, mut ends) = (0, Vec::with_capacity(tensors.len()));
        let describe = |tensor: &Described| {
            let begin = end;
            end += tensor.len() * width;
            ends.push(begin);
            (tensor.name.clone(), TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (begin, end) })
        };
        let infos = tensors.iter().map(describe).collect();
        let start = start_of_file(infos).map_err(|error| Error::failed(format!("a file of tensors: {error}")))?;
        let begins = ends.into_iter().map(|begin| (start.len() + begin) as u64).collect();
        let bytes = (start.len() + end) as u64;
        Ok(Self { start, begins, width: width as u64, bytes })
    }

    /// Makes the file, with all that stands before the values, and room for them.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(&self, path: &Path) -> Result<()> {
        let create = || {
            let file = file::anew(path)?;
            file.set_len(self.bytes)?;
            file.write_all_at(&self.start, 0)
        };
        create().map_err(|error| fault(path, &error))
    }

    /// The sum of the whole file from those of all who wrote to it.
    ///
    /// # Errors
    /// They did not write all of it.
    pub fn whole(&self, slices: impl IntoIterator<Item = SliceSum>) -> Result<FileSum> {
        let mut start = Sum::default();
        start.add(0, &self.start);
        let (all, none) = (start.finish(self.bytes), zeros(self.bytes).finalize());
        let join = |all: SliceSum, slice: SliceSum| SliceSum {
            bytes: all.bytes + slice.bytes,
            crc32: all.crc32 ^ slice.crc32 ^ none,
        };
        match slices.into_iter().fold(all, join) {
            SliceSum { bytes, crc32 } if bytes == self.bytes => Ok(FileSum { bytes, crc32: shown(crc32) }),
            SliceSum { bytes, .. } => {
                Err(Error::failed(format!("{bytes} bytes were written of a file of {}", self.bytes)))
            }
        }
    }
}

/// A file of an outline to which slices are being written.
pub struct Slices<'o> {
    outline: &'o Outline,
    path: PathBuf,
    file: File,
    sum: Sum,
    /// Bytes that are written together with those that follow them, and where they belong.
    waiting: (u64, Vec<u8>),
}

impl<'o> Slices<'o> {
    /// Opens a file that was made by [`Outline::create`].
    ///
    /// # Errors
    /// It is not there, or cannot be written to.
    pub fn of(path: &Path, outline: &'o Outline) -> Result<Self> {
        let file = File::options().write(true).open(path).map_err(|error| fault(path, &error))?;
        Ok(Self { outline, path: path.to_owned(), file, sum: Sum::default(), waiting: (0, Vec::new()) })
    }

    /// Writes values of a tensor, in the machine's (little-endian) form, from an index in row-major order on. All that is written
    /// must lie behind what was written before.
    ///
    /// # Errors
    /// The file system's, as on a full disk.
    pub fn write(&mut self, tensor: usize, index: usize, bytes: &[u8]) -> Result<()> {
        let mut at = self.outline.begins[tensor] + index as u64 * self.outline.width;
        let (from, waiting) = &self.waiting;
        if at != from + waiting.len() as u64 || waiting.len() + bytes.len() > AT_ONCE {
            self.flush()?;
            self.waiting.0 = at;
        }
        if bytes.len() <= AT_ONCE {
            self.waiting.1.extend_from_slice(bytes);
            return Ok(());
        }
        for piece in bytes.chunks(AT_ONCE) {
            self.put(at, piece)?;
            at += piece.len() as u64;
        }
        self.waiting.0 = at;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (at, bytes) = std::mem::take(&mut self.waiting);
        if bytes.is_empty() { Ok(()) } else { self.put(at, &bytes) }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.sum.add(at, bytes);
        self.file.write_all_at(bytes, at).map_err(|error| fault(&self.path, &error))
    }

    /// Waits until all that was written is on the disk; gives its sum.
    ///
    /// # Errors
    /// The file system's.
    pub fn finish(mut self) -> Result<SliceSum> {
        self.flush()?;
        self.file.sync_all().map_err(|error| fault(&self.path, &error))?;
        Ok(self.sum.finish(self.outline.bytes))
    }
}

fn fault(path: &Path, error: &io::Error) -> Error {
    Error::failed(format!("{}: {error}", path.display()))
}

/// The sum of slices in ascending order, with zeros between them.
#[derive(Default)]
struct Sum {
    sum: Hasher,
    at: u64,
    bytes: u64,
    /// The sums of zeros by their number: gaps are often alike.
    gaps: HashMap<u64, Hasher>,
}

impl Sum {
    fn add(&mut self, at: u64, bytes: &[u8]) {
        self.go_to(at);
        self.sum.update(bytes);
        self.at += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
    }

    fn go_to(&mut self, at: u64) {
        let gap = at.saturating_sub(self.at);
        if gap > 0 {
            self.sum.combine(self.gaps.entry(gap).or_insert_with(|| zeros(gap)));
            self.at = at;
        }
    }

    fn finish(mut self, length: u64) -> SliceSum {
        self.go_to(length);
        SliceSum { bytes: self.bytes, crc32: self.sum.finalize() }
    }
}

/// The sum of so many zeros, by doubling.
fn zeros(mut count: u64) -> Hasher {
    let (mut sum, mut power) = (Hasher::new(), Hasher::new());
    power.update(&[0]);
    while count > 0 {
        if count % 2 == 1 {
            sum.combine(&power);
        }
        let half = power.clone();
        power.combine(&half);
        count /= 2;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TensorFile;

    #[test]
    fn the_sum_of_zeros_is_that_of_zeros() {
        for count in [0, 1, 2, 3, 255, 256, 100_000] {
            assert_eq!(zeros(count as u64).finalize(), crc32fast::hash(&vec![0; count]), "{count}");
        }
    }

    /// Two tensors of which two write alternate values, in runs that are short and long beside what is written at once.
    #[test]
    fn what_many_write_in_turns_is_the_file_that_one_writes() {
        let dir = tempfile::tempdir().unwrap();
        let length = 3 * AT_ONCE;
        let tensors = ["first", "second"].map(|name| Described { name: name.into(), shape: vec![3, length / 3] });
        let outline = Outline::new(Kind::Float, &tensors).unwrap();
        let values: Vec<u8> = (0..4 * length).map(|byte| (byte * 7 + byte / 251) as u8).collect();
        for run in [1, 100, length / 5, length] {
            let (one, two) = (dir.path().join("one"), dir.path().join("two"));
            [&one, &two].iter().for_each(|path| outline.create(path).unwrap());
            let mut alone = Slices::of(&one, &outline).unwrap();
            let mut both = [0, 1].map(|_| Slices::of(&two, &outline).unwrap());
            for tensor in 0..2 {
                alone.write(tensor, 0, &values).unwrap();
                for (number, begin) in (0..length).step_by(run).enumerate() {
                    let end = (begin + run).min(length);
                    both[(number + tensor) % 2].write(tensor, begin, &values[4 * begin..4 * end]).unwrap();
                }
            }
            let alone = outline.whole([alone.finish().unwrap()]).unwrap();
            let [first, second] = both.map(|slices| slices.finish().unwrap());
            assert_eq!(outline.whole([second, first]).unwrap(), alone, "runs of {run}");
            assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(), "runs of {run}");
            TensorFile::open(&two, &alone).unwrap();
            let missing = outline.whole([first]).unwrap_err().to_string();
            assert!(missing.contains(" bytes were written of a file of "), "{missing}");
        }
    }
}
