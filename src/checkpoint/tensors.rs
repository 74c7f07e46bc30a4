//! A file of whole tensors of one type, in the format safetensors: a header that says where each lies, then the values.
//!
//! The crate `safetensors` reads, checks and writes the header. The values go past it, some at a time,
//! so that no second copy of a tensor need fit into memory; and each rank reads only the part that it holds.

use crate::error::{Error, Result};
use crate::file;
use crc32fast::Hasher;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// The values begin at a multiple of this in the file, so that a program may map it into memory.
const ALIGNMENT: usize = 8;
/// The bytes that tell the header's length.
const LENGTH: usize = 8;
/// The longest header that is read: more than any network needs, and no reason to run out of memory.
const LONGEST_HEADER: u64 = 100_000_000;
/// The most characters of what is wrong with a header that a message shows.
const MOST_TOLD: usize = 200;
/// Bytes that are read at once to check a file.
const CHECKED_AT_ONCE: usize = 1 << 20;

/// Values that are written, or read, at once: 2 MiB at most.
const VALUES_AT_ONCE: usize = 1 << 18;

/// A tensor's name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// `conv1.weight`.
    pub name: String,
    /// Its shape, as in PyTorch.
    pub shape: Vec<usize>,
}

/// How a file is known to be whole. The checksum is to find damage, not malice: CRC-32, which costs less time than
/// reading the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its length.
    pub bytes: u64,
    /// The CRC-32 of its bytes, in hexadecimal.
    pub crc32: String,
}

impl Described {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What stands in a file before the values: the header, which describes tensors in the order of their values, and its length
/// before it.
///
/// # Errors
/// The tensors do not lie side by side from 0 on.
pub(super) fn start_of_file(tensors: Vec<(String, TensorInfo)>) -> io::Result<Vec<u8>> {
    // PyTorch's own programs look for this word.
    let about = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    let header = Metadata::new(Some(about), tensors).map_err(io::Error::other)?;
    let header = serde_json::to_vec(&header)?;
    let length = header.len().next_multiple_of(ALIGNMENT);
    let mut start = (length as u64).to_le_bytes().to_vec();
    start.extend(header);
    start.resize(LENGTH + length, b' ');
    Ok(start)
}

/// Indices in pieces of which each is few enough values to be held besides everything else.
pub fn pieces(indices: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    indices.clone().step_by(VALUES_AT_ONCE).map(move |begin| begin..(begin + VALUES_AT_ONCE).min(indices.end))
}

/// A sum as checkpoints write it.
pub(super) fn shown(crc32: u32) -> String {
    format!("{crc32:08x}")
}

/// A file that was found whole. It is not kept open: a checkpoint that is removed should free the disk.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    header: Metadata,
    /// Where the values begin.
    begin: u64,
}

impl TensorFile {
    /// Opens a file, after a look at every byte of it.
    ///
    /// # Errors
    /// Names the file and says what is wrong with it: it is missing, cut short, damaged, or of another format.
    pub fn open(path: &Path, expected: &FileSum) -> Result<Self> {
        let fault = |problem: String| Error::failed(format!("{} {problem}", path.display()));
        let unreadable = |error: io::Error| fault(format!("cannot be read: {error}"));
        // Before it is read, which could take for ever.
        let bytes = file::in_place(path).map_err(unreadable)?.len();
        if bytes != expected.bytes {
            return Err(fault(format!("is damaged: it has {bytes} bytes and should have {}", expected.bytes)));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let found = sum(&mut file).map_err(unreadable)?;
        if found.crc32 != expected.crc32 {
            return Err(fault(format!("is damaged: its CRC-32 is {}, not {}", found.crc32, expected.crc32)));
        }
        let (header, begin) = header(&file, found.bytes).map_err(|error| fault(format!("has no header: {error}")))?;
        Ok(Self { path: path.to_owned(), header, begin })
    }

    /// Opens a file that came from elsewhere, of which nothing is known but what it says. Only its header is read.
    ///
    /// # Errors
    /// Names the file: it cannot be read, or is no whole file of tensors.
    pub fn of_others(path: &Path) -> Result<Self> {
        let fault = |problem: String| Error::usage(format!("{} {problem}", path.display()));
        let unreadable = |error: io::Error| fault(format!("cannot be read: {error}"));
        // Before it is opened: opening a pipe waits for who writes to it.
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() {
            return Err(fault("is no file".to_owned()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let (header, begin) = header(&file, about.len()).map_err(|error| {
            // It may repeat what the file says, which may be anything, and much of it.
            let problem: String = error.to_string().chars().filter(|c| !c.is_control()).take(MOST_TOLD).collect();
            let remedy = "PyTorch writes one with safetensors.torch.save_file(network.state_dict(), FILE)";
            fault(format!("is no whole file in the format safetensors: {problem}; {remedy}"))
        })?;
        Ok(Self { path: path.to_owned(), header, begin })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors, in the order of their values.
    pub fn tensors(&self) -> Vec<Described> {
        let described = |name: String| {
            let shape = self.header.info(&name)?.shape.clone();
            Some(Described { name, shape })
        };
        self.header.offset_keys().into_iter().filter_map(described).collect()
    }

    /// What it says of its tensors, and where in the file their values begin.
    pub(super) fn header(&self) -> (&Metadata, u64) {
        (&self.header, self.begin)
    }

    /// Whether the file holds these tensors, of this type or, if none is named, of any that can be read, and no others.
    ///
    /// # Errors
    /// Names the tensor that is missing, too many or does not fit, with both shapes.
    pub fn check(&self, tensors: &[Described], kind: Option<Kind>) -> Result<()> {
        let path = self.path.display();
        for Described { name, shape } in tensors {
            let Some(found) = self.header.info(name) else {
                return Err(Error::usage(format!("{path} has no tensor {name}, which the model has as {shape:?}")));
            };
            if found.shape != *shape {
                let held = &found.shape;
                return Err(Error::usage(format!("{path} has {name} as {held:?}, but the model has it as {shape:?}")));
            }
            let (held, read) = (found.dtype, kind_of(found.dtype));
            match kind {
                Some(kind) if read != Some(kind) => {
                    return Err(Error::usage(format!(
                        "{path} has {name} in {held}, but this run keeps it in {kind:?}"
                    )));
                }
                None if read.is_none() => return Err(Error::usage(format!("{path} has {name} in {held}"))),
                _ => {}
            }
        }
        let known = |name: &String| tensors.iter().any(|tensor| tensor.name == *name);
        match self.header.offset_keys().into_iter().find(|name| !known(name)) {
            Some(extra) => Err(Error::usage(format!("{path} has a tensor {extra}, which the model has not"))),
            None => Ok(()),
        }
    }

    /// Opens the file to read from it.
    ///
    /// # Errors
    /// It has gone.
    pub fn reader(&self) -> Result<Reader<'_>> {
        let fault = |error| Error::failed(format!("{} cannot be read: {error}", self.path.display()));
        Ok(Reader { header: self, file: File::open(&self.path).map_err(fault)? })
    }
}

/// A file of tensors, open for reading.
pub struct Reader<'h> {
    header: &'h TensorFile,
    file: File,
}

impl Reader<'_> {
    /// Some values of a tensor, by their indices in row-major order: `[indices]`, of the file's type.
    ///
    /// # Errors
    /// The file has no such values, or cannot be read.
    pub fn values(&self, name: &str, indices: Range<usize>) -> Result<Tensor> {
        let TensorFile { path, header, begin } = self.header;
        let fault = |problem: String| Error::failed(format!("{}: {problem}", path.display()));
        let info = header.info(name).ok_or_else(|| fault(format!("there is no tensor {name}")))?;
        let kind = kind_of(info.dtype).ok_or_else(|| fault(format!("{name} is in {}", info.dtype)))?;
        let (first, last) = info.data_offsets;
        let (from, to) =
            (first + indices.start * kind.elt_size_in_bytes(), first + indices.end * kind.elt_size_in_bytes());
        if to > last {
            return Err(fault(format!("{name} ends before value {}", indices.end)));
        }
        let mut bytes = vec![0; to - from];
        self.file
            .read_exact_at(&mut bytes, begin + from as u64)
            .map_err(|error| fault(format!("{name} cannot be read: {error}")))?;
        Ok(Tensor::f_from_data_size(&bytes, &[indices.len() as i64], kind)?)
    }
}

/// libtorch's name of a type that weights may have.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F64 => Some(Kind::Double),
        // Others write these; mpt does not.
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// The header of a file of so many bytes in the format safetensors, and where the values begin.
///
/// # Errors
/// It cannot be read, or is of no whole file.
pub(crate) fn header(file: &File, bytes: u64) -> io::Result<(Metadata, u64)> {
    let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem);
    let mut length = [0; LENGTH];
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(bytes.saturating_sub(LENGTH as u64)) {
        return Err(invalid("its length is impossible"));
    }
    let mut text = vec![0; length as usize];
    file.read_exact_at(&mut text, LENGTH as u64)?;
    let header: Metadata = serde_json::from_slice(&text)?;
    let begin = LENGTH as u64 + length;
    let described = begin.checked_add(header.data_len() as u64);
    if described != Some(bytes) {
        let described = described.unwrap_or(u64::MAX);
        return Err(invalid(&format!("its header tells of {described} bytes, but it has {bytes}")));
    }
    Ok((header, begin))
}

/// How long a file is, and its checksum.
pub(super) fn sum(file: &mut File) -> io::Result<FileSum> {
    let (mut sum, mut bytes, mut buffer) = (Hasher::new(), 0, vec![0; CHECKED_AT_ONCE]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(FileSum { bytes, crc32: shown(sum.finalize()) }),
            read => {
                sum.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}
