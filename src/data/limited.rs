//! The first examples of a data set.

use super::Source;
use crate::error::Result;

/// A data set cut to its first examples.
pub struct Limited<S> {
    inner: S,
    length: usize,
}

impl<S: Source> Limited<S> {
    /// The first `length` examples of `inner`, or all of them if it has fewer.
    pub fn new(inner: S, length: usize) -> Self {
        let length = length.min(inner.len());
        Self { inner, length }
    }
}

impl<S: Source> Source for Limited<S> {
    fn len(&self) -> usize {
        self.length
    }

    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }

    fn checksum(&self) -> u32 {
        self.inner.checksum() ^ self.length as u32
    }

    fn remarks(&self) -> &[String] {
        self.inner.remarks()
    }

    fn is_slow(&self) -> bool {
        self.inner.is_slow()
    }

    fn has_stand_ins(&self) -> bool {
        self.inner.has_stand_ins()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        self.inner.read(index, pixels)
    }
}
