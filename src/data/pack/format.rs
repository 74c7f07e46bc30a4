//! What a pack looks like: a file in the format safetensors, so that other programs can read it too, with these tensors.
//!
//! | name | type | shape | |
//! | --- | --- | --- | --- |
//! | `train.labels`, `test.labels` | I64 | `[N]` | classes, from 0 |
//! | `train.checksums`, `test.checksums` | U32 | `[N]` | the CRC-32 of each image's bytes |
//! | `train.images`, `test.images` | U8 | [N, C, H, W] | 0 to 255 |
//!
//! They lie in this order, and a line in the header's metadata says of which version the pack is, what its classes are, and the
//! CRC-32 of labels and checksums.

use crate::checkpoint::tensors::header;
use crate::data::source::Subset;
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The key of the line in the metadata.
const KEY: &str = "mpt data pack";
/// The version of the format.
const VERSION: u32 = 1;
/// The bytes of a label and of a checksum.
pub const INDEX_BYTES: usize = 12;
/// The most characters of what is wrong with a header that a message shows.
const MOST_TOLD: usize = 200;

/// What a pack says of itself.
#[derive(Debug)]
pub struct Head {
    /// How many classes there are.
    pub classes: usize,
    /// Their names; none if they are not known.
    pub names: Vec<String>,
    /// The training set.
    pub train: Part,
    /// The test set.
    pub test: Part,
}

/// A subset in a pack.
#[derive(Debug)]
pub struct Part {
    /// Channels, height, width of each image.
    pub shape: [usize; 3],
    /// The class of each image.
    pub labels: Vec<i64>,
    /// The CRC-32 of each image.
    pub checksums: Vec<u32>,
    /// Where the first image begins in the file.
    pub images: u64,
}

/// The line in the metadata.
#[derive(Serialize, Deserialize)]
struct About {
    version: u32,
    classes: usize,
    names: Vec<String>,
    crc32: u32,
}

/// What is found in a pack, or the end of a sentence that begins with its name.
type Found<T> = std::result::Result<T, String>;

/// The name of a subset in a pack.
pub fn name_of(subset: Subset) -> &'static str {
    match subset {
        Subset::Train => "train",
        Subset::Test => "test",
    }
}

/// The labels and checksums of both subsets as they stand in the file.
pub fn index(parts: [(&[i64], &[u32]); 2]) -> Vec<u8> {
    let labels = parts.iter().flat_map(|(labels, _)| labels.iter().flat_map(|label| label.to_le_bytes()));
    let checksums = parts.iter().flat_map(|(_, checksums)| checksums.iter().flat_map(|sum| sum.to_le_bytes()));
    labels.chain(checksums).collect()
}

/// What stands before that: a header of `bytes` bytes, its length included, for so many images of a shape in each subset.
///
/// # Errors
/// It needs more bytes.
pub fn head(
    counts: [usize; 2],
    [channels, height, width]: [usize; 3],
    classes: (usize, Vec<String>),
    index: &[u8],
    bytes: usize,
) -> io::Result<Vec<u8>> {
    let (classes, names) = classes;
    let about = About { version: VERSION, classes, names, crc32: crc32fast::hash(index) };
    let (mut tensors, mut at) = (Vec::new(), 0);
    for (what, dtype, size) in
        [("labels", Dtype::I64, 8), ("checksums", Dtype::U32, 4), ("images", Dtype::U8, channels * height * width)]
    {
        for (subset, count) in [Subset::Train, Subset::Test].into_iter().zip(counts) {
            let shape = if what == "images" { vec![count, channels, height, width] } else { vec![count] };
            let end = at + count * size;
            tensors.push((format!("{}.{what}", name_of(subset)), TensorInfo { dtype, shape, data_offsets: (at, end) }));
            at = end;
        }
    }
    let about = [(KEY.to_owned(), serde_json::to_string(&about)?)].into_iter().collect();
    let header = serde_json::to_vec(&Metadata::new(Some(about), tensors).map_err(io::Error::other)?)?;
    let length = bytes.checked_sub(8).filter(|&length| length >= header.len());
    let length = length.ok_or_else(|| io::Error::other("the names of the classes are too long"))?;
    let mut head = (length as u64).to_le_bytes().to_vec();
    head.extend(header);
    head.resize(bytes, b' ');
    Ok(head)
}

/// Opens a pack and reads all but its images.
///
/// # Errors
/// A usage error where it cannot be read, is no pack, or is damaged.
pub fn open(path: &Path) -> Result<(File, Head)> {
    let fault = |problem: &str| {
        Error::usage(format!("{} {problem}; `mpt data pack` writes packs, and --data-dir names one", path.display()))
    };
    let unreadable = |error: io::Error| fault(&format!("cannot be read: {error}"));
    // Before it is opened: opening a pipe waits for who writes to it.
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(fault("is no file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let (header, begin) = header(&file, about.len()).map_err(|error| {
        // It may repeat what the file says, which may be anything, and much of it.
        let problem: String = error.to_string().chars().filter(|c| !c.is_control()).take(MOST_TOLD).collect();
        fault(&format!("is no whole pack: {problem}"))
    })?;
    let head = read(&file, &header, begin).map_err(|problem| fault(&problem))?;
    Ok((file, head))
}

/// The index of a pack, checked. Errors end a sentence that begins with the pack's name.
fn read(file: &File, header: &Metadata, begin: u64) -> Found<Head> {
    let about = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).ok_or("is no pack")?;
    let About { version, classes, names, crc32 } =
        serde_json::from_str(about).map_err(|_| "is no pack of this version")?;
    if version != VERSION {
        return Err(format!("is a pack of version {version}, and this mpt reads version {VERSION}: pack it again"));
    }
    let mut index = vec![0; index_bytes(header)?];
    file.read_exact_at(&mut index, begin).map_err(|error| format!("cannot be read: {error}"))?;
    if crc32fast::hash(&index) != crc32 {
        return Err(format!("is damaged: the CRC-32 of its labels and checksums is not {crc32:08x}"));
    }
    let [train, test] =
        [Subset::Train, Subset::Test].map(|subset| part(header, begin, &index, name_of(subset), classes));
    let (train, test) = (train?, test?);
    if train.shape != test.shape {
        return Err("is damaged: its images are of two shapes".to_owned());
    }
    Ok(Head { classes, names, train, test })
}

/// A subset of a pack.
fn part(header: &Metadata, begin: u64, index: &[u8], name: &str, classes: usize) -> Found<Part> {
    let (labels, _) = tensor(header, &format!("{name}.labels"), Dtype::I64)?;
    let (checksums, _) = tensor(header, &format!("{name}.checksums"), Dtype::U32)?;
    let (images, shape) = tensor(header, &format!("{name}.images"), Dtype::U8)?;
    let &[count, channels, height, width] = shape else {
        return Err(format!("is damaged: {name}.images has {} dimensions in place of 4", shape.len()));
    };
    let labels = values(&index[labels], i64::from_le_bytes);
    let checksums = values(&index[checksums], u32::from_le_bytes);
    if [labels.len(), checksums.len()] != [count; 2] || shape.contains(&0) || u32::try_from(count).is_err() {
        return Err(format!("is damaged: it has {} labels of {count} images of {name}", labels.len()));
    }
    if let Some(label) = labels.iter().find(|label| !(0..classes as i64).contains(label)) {
        return Err(format!("is damaged: it has an image of class {label}, of {classes} classes"));
    }
    Ok(Part { shape: [channels, height, width], labels, checksums, images: begin + images.start as u64 })
}

/// How many bytes of labels and checksums stand before the images. The header is of bearable length, so its numbers may be
/// anything, but all bytes that it tells of are in the file.
fn index_bytes(header: &Metadata) -> Found<usize> {
    let (images, _) = tensor(header, "train.images", Dtype::U8)?;
    for what in ["train.labels", "test.labels", "train.checksums", "test.checksums"] {
        let dtype = if what.ends_with("labels") { Dtype::I64 } else { Dtype::U32 };
        if tensor(header, what, dtype)?.0.end > images.start {
            return Err(format!("has {what} behind its images"));
        }
    }
    Ok(images.start)
}

/// Where a tensor lies, and its shape.
fn tensor<'a>(header: &'a Metadata, name: &str, dtype: Dtype) -> Found<(Range<usize>, &'a [usize])> {
    let info = header.info(name).filter(|info| info.dtype == dtype);
    let info = info.ok_or_else(|| format!("is no pack: it has no {name} of type {dtype}"))?;
    Ok((info.data_offsets.0..info.data_offsets.1, &info.shape))
}

fn values<T, const N: usize>(bytes: &[u8], value: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}
