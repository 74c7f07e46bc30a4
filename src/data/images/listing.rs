//! Which image files a folder holds. The classes are the folders in its `train`, in the order of their names; the examples
//! of a class are the files in its folder and in folders below, in the order of their paths.

use crate::data::cores::on_all_cores;
use crate::data::names::{ENDINGS, shorten, shown, unreadable};
use crate::data::source::Subset;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

/// Folders within the folder of a class.
const DEEPEST: usize = 16;

/// The image files of one subset.
#[derive(Debug)]
pub struct Listing {
    folder: PathBuf,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The files, by class and path.
    pub files: Vec<Listed>,
    /// What was left out, and why, in sentences.
    pub left_out: Vec<String>,
}

/// A file.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its class, from 0.
    pub class: u32,
    /// Its path, from the subset's folder on.
    pub path: Box<Path>,
    bytes: u64,
}

/// What was found in the folder of a class.
#[derive(Default)]
struct Found {
    /// Paths from the folder of the subset on, with sizes.
    files: Vec<(Box<Path>, u64)>,
    empty: Vec<PathBuf>,
    /// How much there is of what else.
    others: BTreeMap<String, usize>,
}

impl Listing {
    /// The files of `subset` in the folder `dir`: those below `train`, or below `val` or else `test`.
    ///
    /// # Errors
    /// A usage error where a folder is missing or cannot be read, a class has no file or is one that is not trained on.
    pub fn of(dir: &Path, subset: Subset) -> Result<Self> {
        let classes = class_names(dir)?;
        let folder = folder_of(dir, subset, LAYOUT)?;
        let names = match subset {
            Subset::Train => classes.clone(),
            Subset::Test => folders_in(&folder)?,
        };
        if let Some(unknown) = names.iter().find(|name| classes.binary_search(name).is_err()) {
            let train = folder_of(dir, Subset::Train, LAYOUT)?;
            return Err(Error::usage(format!(
                "{} is the folder of a class that is not trained on: {} has none of that name",
                folder.join(unknown).display(),
                train.display()
            )));
        }
        // By all cores: on most disks each answer takes its time.
        let found = on_all_cores(names.len(), |at| searched_class(&folder, &names[at]));
        let found = found.into_iter().collect::<Result<Vec<_>>>()?;
        let mut listing = Self { folder, classes, files: Vec::new(), left_out: Vec::new() };
        let mut others: BTreeMap<String, usize> = BTreeMap::new();
        for (name, found) in names.iter().zip(found) {
            let class = listing.classes.binary_search(name).unwrap_or_default() as u32;
            if found.files.is_empty() && subset == Subset::Train {
                let folder = listing.folder.join(name);
                return Err(Error::usage(format!(
                    "the class folder {} holds no JPEG or PNG image; fill it, or remove it",
                    folder.display()
                )));
            }
            listing.files.extend(found.files.into_iter().map(|(path, bytes)| Listed { class, path, bytes }));
            listing.left_out.extend(
                found
                    .empty
                    .iter()
                    .map(|path| format!("left out: {} is empty", shown(path.as_os_str().as_encoded_bytes()))),
            );
            found.others.into_iter().for_each(|(what, count)| *others.entry(what).or_default() += count);
        }
        if listing.files.is_empty() {
            let shown = listing.folder.display();
            return Err(Error::usage(format!("{shown} holds no JPEG or PNG image in folders of classes")));
        }
        // First what stands for many.
        let others =
            others.iter().map(|(what, count)| format!("left out: {count} {what} in {}", listing.folder.display()));
        listing.left_out.splice(0..0, others);
        shorten(&mut listing.left_out, &listing.folder);
        Ok(listing)
    }

    /// Where a file lies.
    pub fn path(&self, index: usize) -> PathBuf {
        self.folder.join(&self.files[index].path)
    }

    /// Keeps so many files, evenly spread over all, so that each class keeps its share; 0 keeps all.
    pub fn thin_out(&mut self, wanted: usize) {
        thin_out(&mut self.files, wanted);
    }

    /// Adds what the listing says to a checksum.
    pub fn add_to(&self, checksum: &mut crc32fast::Hasher) {
        for name in &self.classes {
            checksum.update(format!("{name}\n").as_bytes());
        }
        for Listed { class, path, bytes } in &self.files {
            checksum.update(path.as_os_str().as_encoded_bytes());
            checksum.update(format!("\n{class} {bytes}\n").as_bytes());
        }
    }
}

/// Keeps so many examples, evenly spread over all; 0 keeps all.
pub fn thin_out<T>(examples: &mut Vec<T>, wanted: usize) {
    let count = examples.len();
    if (1..count).contains(&wanted) {
        let mut index = 0;
        examples.retain(|_| {
            index += 1;
            // The k-th of those that are kept is the first at or after k count / wanted.
            (index - 1) * wanted % count < wanted
        });
    }
}

/// The names of the classes that a folder of images has: of the folders in its `train`.
///
/// # Errors
/// A usage error where there are none.
pub fn class_names(dir: &Path) -> Result<Vec<String>> {
    let folder = folder_of(dir, Subset::Train, LAYOUT)?;
    let names = folders_in(&folder)?;
    if names.is_empty() {
        let archives =
            entries(&folder)?.iter().any(|entry| entry.path().extension().is_some_and(|ending| ending == "tar"));
        let hint = if archives { "; for its tar archives, use --set data.source=shards" } else { "" };
        return Err(Error::usage(format!("{} holds no folders of classes: {LAYOUT}{hint}", folder.display())));
    }
    Ok(names)
}

const LAYOUT: &str = "a folder of images holds train/CLASS/NAME.jpg and val/CLASS/NAME.jpg (or test in place of val)";

/// The folder of a subset; `layout` says what should be in `dir`.
///
/// # Errors
/// A usage error where there is none.
pub fn folder_of(dir: &Path, subset: Subset, layout: &str) -> Result<PathBuf> {
    let names: &[&str] = match subset {
        Subset::Train => &["train"],
        Subset::Test => &["val", "test"],
    };
    let found = names.iter().map(|name| dir.join(name)).find(|folder| folder.is_dir());
    found.ok_or_else(|| {
        let absent = if dir.exists() { "" } else { ", which does not exist" };
        let names = names.join(" or ");
        Error::usage(format!("there is no folder {names} in {}{absent}; {layout}", dir.display()))
    })
}

/// The names of the folders in a folder but for hidden ones, in order.
fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || !entry.path().is_dir() {
            continue;
        }
        let name = name.into_string().map_err(|name| {
            let path = folder.join(name);
            Error::usage(format!("the name of the class folder {} is no UTF-8; rename it", path.display()))
        })?;
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// What is in a folder.
///
/// # Errors
/// A usage error where it cannot be read.
pub fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    fs::read_dir(folder).and_then(Iterator::collect).map_err(|error| unreadable(folder, &error))
}

fn searched_class(folder: &Path, name: &str) -> Result<Found> {
    let mut found = Found::default();
    let mut folders = vec![(PathBuf::from(name), 0)];
    while let Some((below, depth)) = folders.pop() {
        for entry in entries(&folder.join(&below))? {
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Links to files are followed and links to folders are not: those may lead in a circle.
            if kind.is_dir() && depth < DEEPEST {
                folders.push((below.join(name), depth + 1));
            } else if kind.is_dir() {
                found.other(format!("folder(s) more than {DEEPEST} deep in that of their class"));
            } else if kind.is_symlink() && path.is_dir() {
                found.other("link(s) to folders".to_owned());
            } else {
                found.file(path, below.join(name));
            }
        }
    }
    found.files.sort_unstable();
    found.empty.sort_unstable();
    Ok(found)
}

impl Found {
    /// Notes a file at `path`, called `name` from the folder of the subset on.
    fn file(&mut self, path: PathBuf, name: PathBuf) {
        let ending = name.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if !ENDINGS.contains(&ending.as_str()) {
            let ending = shown(ending.as_bytes());
            self.other(if ending.is_empty() {
                "file(s) without an ending".into()
            } else {
                format!("file(s) called *.{ending}")
            });
            return;
        }
        match fs::metadata(&path) {
            Ok(about) if about.is_file() && about.len() == 0 => self.empty.push(path),
            Ok(about) if about.is_file() => self.files.push((name.into_boxed_path(), about.len())),
            // A link to nowhere, or a device that is called like an image.
            _ => self.other(format!("thing(s) called *.{ending} that are no files")),
        }
    }

    fn other(&mut self, what: String) {
        *self.others.entry(what).or_default() += 1;
    }
}
