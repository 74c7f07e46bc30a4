//! Data sets of image files: a folder of class folders, as ImageNet and most collections of pictures come.
//!
//! * [`listing`] which files there are, and of which class each is
//! * [`mod@decode`] one file's bytes as a square of pixels
//! * [`files`] any data set as such a folder
//!
//! Files are listed once, when the data set is opened, and read and decoded one by one, whenever an example is asked for.

pub mod decode;
pub mod files;
pub mod listing;

use super::names::MOST_BYTES;
use super::source::{Source, Subset};
use crate::error::{Error, Result};
use decode::{Form, decode, to_values};
use listing::Listing;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// One subset of a folder of image files, each decoded when it is read: [C, side, side].
#[derive(Debug)]
pub struct ImageFolder {
    listing: Listing,
    form: Form,
}

impl ImageFolder {
    /// Lists `subset` of the folder `dir`, at most `wanted` images spread evenly over it (0: all), to be made into images of
    /// this form.
    ///
    /// # Errors
    /// A usage error that names the folder and says what to do where it is not laid out as [`Listing::of`] expects.
    pub fn open(dir: &Path, subset: Subset, wanted: usize, form: Form) -> Result<Self> {
        let mut listing = Listing::of(dir, subset)?;
        listing.thin_out(wanted);
        Ok(Self { listing, form })
    }
}

impl Source for ImageFolder {
    fn len(&self) -> usize {
        self.listing.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.form.shape()
    }

    fn classes(&self) -> usize {
        self.listing.classes.len()
    }

    /// Of the names and sizes of all files, and of what is made of them. Contents are not read for it.
    fn checksum(&self) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(format!("{:?}", self.form).as_bytes());
        self.listing.add_to(&mut checksum);
        checksum.finalize()
    }

    fn remarks(&self) -> &[String] {
        &self.listing.left_out
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn has_stand_ins(&self) -> bool {
        true
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let path = self.listing.path(index);
        let image = read_file(&path).and_then(|bytes| decode(&bytes, self.form));
        let image = image.map_err(|error| error.within(path.display()))?;
        to_values(&image, pixels);
        Ok(i64::from(self.listing.files[index].class))
    }
}

/// The bytes of a file of bearable size.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::with_capacity(length.min(MOST_BYTES) as usize + 1);
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MOST_BYTES => {
            Err(Error::failed(format!("has more than the {} MiB that an image file may have", MOST_BYTES >> 20)))
        }
        read => read.map_err(|error: std::io::Error| Error::failed(format!("cannot be read: {error}"))),
    }
}

#[cfg(test)]
mod tests;
