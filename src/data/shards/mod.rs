//! Data sets of image files in tar archives, in the manner of WebDataset: a folder for each subset, with any number of archives.
//!
//! * [`archive`] the members of an archive
//! * [`listing`] which of them make examples
//!
//! Each archive is gone through once, by its headers, when the data set is opened. Then an example is read by its place, so that
//! orders, splits and resumed runs are those of a folder of the same images.

pub mod archive;
pub mod listing;

use super::cores::on_all_cores;
use super::images::decode::{Form, decode, to_values};
use super::images::listing::{entries, folder_of, thin_out};
use super::names::{shorten, unreadable};
use super::source::{Source, Subset};
use crate::error::{Error, Result};
use crate::file;
use listing::{Example, Listing};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const LAYOUT: &str = "a folder of shards holds train/NAME.tar and val/NAME.tar (or test in place of val)";
/// The file with the names of the classes, a line each, in a folder of shards.
const NAMES: &str = "classes.txt";

/// One subset of a folder of tar archives of image files, each image decoded when it is read: [C, side, side].
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    /// The names of the archives, in order.
    archives: Vec<String>,
    /// The examples, each with the index of its archive.
    examples: Vec<(u32, Example)>,
    classes: usize,
    left_out: Vec<String>,
    form: Form,
}

impl Shards {
    /// Goes through the archives of `subset` in the folder `dir`, in the order of their names, and keeps at most `wanted` images
    /// spread evenly over them (0: all), to be made into images of this form.
    ///
    /// # Errors
    /// A usage error where a folder is missing, an archive cannot be opened, or there is no example.
    pub fn open(dir: &Path, subset: Subset, wanted: usize, form: Form) -> Result<Self> {
        let folder = folder_of(dir, subset, LAYOUT)?;
        let (archives, mut left_out) = archives_in(&folder)?;
        let named = class_names(dir)?.map(|names| names.len());
        let found = on_all_cores(archives.len(), |at| Listing::of(&folder.join(&archives[at])));
        let mut examples = Vec::new();
        for (index, (name, found)) in archives.iter().zip(found).enumerate() {
            let path = folder.join(name);
            let listing = found.map_err(|error| unreadable(&path, &error))?;
            let named = named.unwrap_or(usize::MAX);
            let (known, unknown): (Vec<_>, Vec<_>) =
                listing.examples.into_iter().partition(|example| (example.class as usize) < named);
            let unknown = unknown.first().map(|Example { name, class, .. }| {
                format!("{} of a class that {NAMES} does not name, as {name} of class {class}", unknown.len())
            });
            let problems = listing.left_out.into_iter().chain(unknown);
            left_out.extend(problems.map(|problem| format!("left out: {}: {problem}", path.display())));
            examples.extend(known.into_iter().map(|example| (index as u32, example)));
        }
        if examples.is_empty() {
            let why = left_out.first().map_or_else(String::new, |first| format!(" ({first})"));
            return Err(Error::usage(format!("the archives in {} hold no example{why}", folder.display())));
        }
        let largest = examples.iter().map(|(_, example)| example.class as usize).max().unwrap_or_default();
        thin_out(&mut examples, wanted);
        shorten(&mut left_out, &folder);
        Ok(Self { folder, archives, examples, classes: named.unwrap_or(largest + 1), left_out, form })
    }

    fn read_bytes(&self, archive: &Path, example: &Example) -> Result<Vec<u8>> {
        // Not kept open: a data set may have more archives than a process may have files.
        let read = || {
            let mut bytes = vec![0; example.bytes as usize];
            File::open(archive)?.read_exact_at(&mut bytes, example.offset)?;
            Ok(bytes)
        };
        read().map_err(|error: std::io::Error| Error::failed(format!("cannot be read: {error}")))
    }
}

/// How many classes a folder of shards has: as many as `classes.txt` names, or else up to the largest label in `train`.
///
/// # Errors
/// Those of [`Shards::open`].
pub fn classes(dir: &Path) -> Result<usize> {
    match class_names(dir)? {
        Some(names) => Ok(names.len()),
        None => Ok(Shards::open(dir, Subset::Train, 0, Form { channels: 1, side: 1 })?.classes),
    }
}

/// The names of the classes, where a folder of shards has a file of them.
///
/// # Errors
/// A usage error where it cannot be read or names none.
pub fn class_names(dir: &Path) -> Result<Option<Vec<String>>> {
    let path = dir.join(NAMES);
    if !path.exists() {
        return Ok(None);
    }
    let text = file::text(&path).map_err(|error| unreadable(&path, &error))?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::usage(format!("{} names no class; give each a line, or remove it", path.display())));
    }
    Ok(Some(names))
}

/// The names of the archives in a folder, in order, and a word about other files.
fn archives_in(folder: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut names, mut others) = (Vec::new(), 0);
    for entry in entries(folder)? {
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".");
        match name.into_string() {
            Ok(name) if !hidden && name.to_lowercase().ends_with(".tar") && entry.path().is_file() => names.push(name),
            _ if !hidden => others += 1,
            _ => {}
        }
    }
    names.sort_unstable();
    let shown = folder.display();
    if names.is_empty() {
        return Err(Error::usage(format!(
            "{shown} holds no tar archive: {LAYOUT}; packed ones are to be unpacked first"
        )));
    }
    let said = format!("left out: {others} file(s) or folder(s) in {shown} that are not called *.tar");
    Ok((names, if others > 0 { vec![said] } else { Vec::new() }))
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.form.shape()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    /// Of the names, sizes and labels of all images, and of what is made of them. Their contents are not read for it.
    fn checksum(&self) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(format!("{:?} {}", self.form, self.classes).as_bytes());
        for (archive, Example { name, bytes, class, .. }) in &self.examples {
            let archive = &self.archives[*archive as usize];
            checksum.update(format!("{archive}\n{name}\n{class} {bytes}\n").as_bytes());
        }
        checksum.finalize()
    }

    fn remarks(&self) -> &[String] {
        &self.left_out
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn has_stand_ins(&self) -> bool {
        true
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let (archive, example) = &self.examples[index];
        let path = self.folder.join(&self.archives[*archive as usize]);
        let image = self.read_bytes(&path, example).and_then(|bytes| decode(&bytes, self.form));
        let image = image.map_err(|error| error.within(format!("{}: {}", path.display(), example.name)))?;
        to_values(&image, pixels);
        Ok(i64::from(example.class))
    }
}

#[cfg(test)]
mod tests;
