//! Weights for others to read: the values of a checkpoint as they are, to the last bit, under other names.

use super::slices::{Outline, Slices};
use super::tensors::{Described, TensorFile, pieces, start_of_file};
use crate::error::{Error, Result};
use crate::file::{anew, whole_or_not};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use tch::Tensor;

/// Copies a file of tensors with each called as `name_of` says. It is written beside its place, made to reach the disk and
/// renamed: under its name it is whole. Gives its length in bytes.
///
/// # Errors
/// The file system's, as on a full disk; then what was there before is there still.
pub fn export(file: &TensorFile, name_of: impl Fn(&str) -> String, place: &Path) -> Result<u64> {
    whole_or_not(place, |unfinished| copy(file, name_of, unfinished).map_err(|error| Error::failed(error.to_string())))
}

/// Writes a file of one tensor, of fp32 or fp64, in the same way.
///
/// # Errors
/// The file system's, as on a full disk; then what was there before is there still.
pub fn write_tensor(name: &str, tensor: &Tensor, place: &Path) -> Result<()> {
    let (kind, values) = (tensor.kind(), tensor.f_reshape([-1])?);
    let shape = tensor.size().into_iter().map(|side| side as usize).collect();
    let described = Described { name: name.to_owned(), shape };
    let outline = Outline::new(kind, std::slice::from_ref(&described))?;
    whole_or_not(place, |unfinished| {
        outline.create(unfinished)?;
        let mut file = Slices::of(unfinished, &outline)?;
        for indices in pieces(0..described.len()) {
            let mut bytes = vec![0; indices.len() * kind.elt_size_in_bytes()];
            let values = values.f_narrow(0, indices.start as i64, indices.len() as i64)?;
            values.f_copy_data_u8(&mut bytes, indices.len())?;
            file.write(0, indices.start, &bytes)?;
        }
        file.finish().map(drop)
    })
}

fn copy(file: &TensorFile, name_of: impl Fn(&str) -> String, to: &Path) -> io::Result<u64> {
    let (header, begin) = file.header();
    let described = header.offset_keys().into_iter().filter_map(|name| {
        let info = header.info(&name)?.clone();
        Some((name_of(&name), info))
    });
    let start = start_of_file(described.collect())?;
    let mut output = anew(to)?;
    output.write_all(&start)?;
    let mut values = File::open(file.path())?;
    values.seek(SeekFrom::Start(begin))?;
    let length = header.data_len() as u64;
    let copied = io::copy(&mut values.take(length), &mut output)?;
    if copied != length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{} has been cut short", file.path().display()),
        ));
    }
    Ok(start.len() as u64 + copied)
}
