//! Data sets in the files of MNIST (Y. LeCun, C. Cortes and C. Burges) and its likes, such as Fashion-MNIST (H. Xiao,
//! K. Rasul and R. Vollgraf, 2017): one file of grey images and one of labels for each subset, kept in memory.

use super::idx_file::{Content, IdxFile, damaged};
use super::images::decode::to_values;
use super::names::unreadable;
use super::source::{Source, Subset};
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// One subset of such a data set: grey images, [N, 1, H, W].
#[derive(Debug)]
pub struct IdxDataset {
    /// [N, H, W], 0 is black and 255 is white.
    images: Vec<u8>,
    /// One for each image.
    labels: Vec<u8>,
    height: usize,
    width: usize,
    classes: usize,
}

impl IdxDataset {
    /// Reads `subset` of the data set in the folder `dir`: the files `{train,t10k}-images-idx3-ubyte` and
    /// `{train,t10k}-labels-idx1-ubyte`, with or without `.gz`.
    ///
    /// # Errors
    /// A usage error that names the file and says what to do where one is missing, cannot be read, is damaged or
    /// empty, or where images and labels do not match.
    pub fn open(dir: &Path, subset: Subset) -> Result<Self> {
        let prefix = match subset {
            Subset::Train => "train",
            Subset::Test => "t10k",
        };
        let images_path = locate(dir, &format!("{prefix}-images-idx3-ubyte"))?;
        let labels_path = locate(dir, &format!("{prefix}-labels-idx1-ubyte"))?;
        let images = IdxFile::read(&images_path, Content::Images)?;
        let labels = IdxFile::read(&labels_path, Content::Labels)?.bytes;
        let (examples, height, width) = (images.dimensions[0], images.dimensions[1], images.dimensions[2]);
        if labels.len() != examples {
            let problem =
                format!("holds {} labels for the {examples} images of {}", labels.len(), images_path.display());
            return Err(damaged(&labels_path, &problem));
        }
        let classes = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
        Ok(Self { images: images.bytes, labels, height, width, classes })
    }
}

impl Source for IdxDataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        [1, self.height, self.width]
    }

    /// The largest label and one.
    fn classes(&self) -> usize {
        self.classes
    }

    /// Of every image and label.
    fn checksum(&self) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.images);
        checksum.update(&self.labels);
        checksum.finalize()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let size = self.height * self.width;
        to_values(&self.images[index * size..][..size], pixels);
        Ok(i64::from(self.labels[index]))
    }
}

/// The path of `name` or `name`.gz in `dir`.
fn locate(dir: &Path, name: &str) -> Result<PathBuf> {
    let compressed = format!("{name}.gz");
    for path in [dir.join(name), dir.join(&compressed)] {
        match path.metadata() {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    let absent = if dir.exists() { "" } else { ", which does not exist" };
    Err(Error::usage(format!(
        "neither {name} nor {compressed} is in the folder {}{absent}; run `scripts/mpt train`, which fetches \
         Fashion-MNIST, or name the data set's folder with --data-dir, or make data up with --set \
         data.source=synthetic",
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::super::idx_file::tests::{gzip, idx};
    use super::*;
    use tempfile::TempDir;

    /// A folder with these files.
    fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    fn refusal(files: &[(&str, Vec<u8>)]) -> String {
        let dir = folder(files);
        let error = IdxDataset::open(dir.path(), Subset::Train).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(&dir.path().display().to_string(), "DIR")
    }

    fn images() -> Vec<u8> {
        idx(&[3, 2, 2], &[0, 51, 102, 153, 204, 255, 0, 0, 1, 2, 3, 4])
    }

    #[test]
    fn images_and_labels_are_read_as_they_were_written() {
        let dir = folder(&[
            ("train-images-idx3-ubyte", images()),
            ("train-labels-idx1-ubyte.gz", gzip(&idx(&[3], &[4, 0, 6]))),
            ("t10k-images-idx3-ubyte.gz", gzip(&idx(&[1, 1, 1], &[255]))),
            ("t10k-labels-idx1-ubyte", idx(&[1], &[2])),
        ]);
        let train = IdxDataset::open(dir.path(), Subset::Train).unwrap();
        assert_eq!((train.len(), train.shape(), train.classes()), (3, [1, 2, 2], 7));
        let mut pixels = [0.0; 4];
        assert_eq!(train.read(0, &mut pixels).unwrap(), 4);
        assert_eq!(pixels, [0.0, 0.2, 0.4, 0.6]);
        assert_eq!(train.read(1, &mut pixels).unwrap(), 0);
        assert_eq!(pixels, [0.8, 1.0, 0.0, 0.0]);
        let test = IdxDataset::open(dir.path(), Subset::Test).unwrap();
        assert_ne!(train.checksum(), test.checksum());
        assert_eq!((test.len(), test.shape(), test.classes()), (1, [1, 1, 1], 3));
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let expected = |name: &str| {
            format!(
                "neither {name} nor {name}.gz is in the folder DIR; run `scripts/mpt train`, which fetches \
                 Fashion-MNIST, or name the data set's folder with --data-dir, or make data up with --set \
                 data.source=synthetic"
            )
        };
        assert_eq!(refusal(&[]), expected("train-images-idx3-ubyte"));
        assert_eq!(refusal(&[("train-images-idx3-ubyte", images())]), expected("train-labels-idx1-ubyte"));
    }

    #[test]
    fn a_missing_folder_and_a_file_given_as_the_folder_are_said_so() {
        let dir = folder(&[("file", vec![])]);
        let message = |name| IdxDataset::open(&dir.path().join(name), Subset::Test).unwrap_err().to_string();
        assert!(message("absent").contains("/absent, which does not exist; run"), "{}", message("absent"));
        let not_a_folder = message("file");
        assert!(not_a_folder.starts_with("cannot read ") && not_a_folder.contains("Not a directory"), "{not_a_folder}");
        assert!(not_a_folder.ends_with("; make it readable or name another folder with --data-dir"), "{not_a_folder}");
    }

    #[test]
    fn unequal_numbers_of_images_and_labels_are_refused() {
        let message =
            refusal(&[("train-images-idx3-ubyte", images()), ("train-labels-idx1-ubyte", idx(&[2], &[1, 2]))]);
        let expected =
            "DIR/train-labels-idx1-ubyte holds 2 labels for the 3 images of DIR/train-images-idx3-ubyte; replace";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn a_labels_file_given_as_images_is_refused() {
        let labels = idx(&[2], &[1, 2]);
        let message = refusal(&[("train-images-idx3-ubyte", labels.clone()), ("train-labels-idx1-ubyte", labels)]);
        assert!(message.starts_with("DIR/train-images-idx3-ubyte is an idx1 file of labels"), "{message}");
    }
}
