//! Which examples the archives of a subset hold: members `KEY.jpg` (or `jpeg`, `png`) with a `KEY.cls`, which has the number of
//! the class, or a `KEY.json` with a `label`. Members of one example follow one another. A key is a member's path up to the first
//! dot of its last part, as WebDataset has it.

use super::archive::{Member, Members};
use crate::data::names::{ENDINGS, MOST_BYTES, MOST_NAMED, shown};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The most classes: far above those of any data set, so that a damaged label is none.
const MOST_CLASSES: u32 = 1 << 20;
/// The most bytes of a member with a label.
const MOST_LABEL: u64 = 1 << 20;

/// An image with a label.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    /// The image's name in the archive.
    pub name: Box<str>,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub bytes: u32,
    /// Its class, from 0.
    pub class: u32,
}

/// The examples of an archive.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be used, in their order.
    pub examples: Vec<Example>,
    /// What was left out, and why, each in words that follow the archive's name.
    pub left_out: Vec<String>,
    /// Members that were left out and are not named.
    unnamed: usize,
    /// How many members there are that end in what.
    others: BTreeMap<String, usize>,
}

/// What has been seen of an example.
#[derive(Default)]
struct Sample {
    /// As it is written in the archive: two that are no UTF-8 may look the same.
    key: Vec<u8>,
    image: Option<Example>,
    class: Option<Result<u32, String>>,
}

/// A member with a label in JSON.
#[derive(Deserialize)]
struct Labelled {
    label: u32,
}

impl Listing {
    /// Those of the archive at `path`.
    ///
    /// # Errors
    /// The file cannot be opened. What is wrong inside it is left out.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        let (mut listing, mut sample) = (Self::default(), Sample::default());
        for member in Members::of(&file, about.len()) {
            match member {
                Ok(member) => listing.add(&file, &member, &mut sample),
                Err(problem) => listing.leave_out(problem),
            }
        }
        listing.finish(sample);
        let Self { left_out, unnamed, others, .. } = &mut listing;
        left_out.extend(others.iter().map(|(ending, count)| format!("{count} member(s) {ending}")));
        if *unnamed > 0 {
            left_out.push(format!("{unnamed} more member(s)"));
        }
        Ok(listing)
    }

    fn add(&mut self, file: &File, member: &Member, sample: &mut Sample) {
        let base = member.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        // Hidden ones are nobody's example: some systems put one beside each member.
        if member.is_folder || base.starts_with(b".") {
            return;
        }
        let Some((key, ending)) = split(&member.name) else {
            self.count_other("without an ending");
            return;
        };
        if key != sample.key {
            let before = mem::replace(sample, Sample { key: key.to_vec(), ..Sample::default() });
            self.finish(before);
        }
        let (name, ending) = (shown(&member.name), shown(ending).to_lowercase());
        match ending.as_str() {
            _ if !member.is_file => self.count_other("that are links or devices"),
            ending if ENDINGS.contains(&ending) => self.add_image(&name, member, sample),
            "cls" => sample.class = Some(class_in(file, member, &name, number)),
            // Another label stands, if there is one.
            "json" if sample.class.is_none() => sample.class = Some(class_in(file, member, &name, label)),
            "json" => {}
            ending => self.count_other(&format!("called *.{ending}")),
        }
    }

    fn add_image(&mut self, name: &str, member: &Member, sample: &mut Sample) {
        let problem = match member.bytes {
            0 => "is empty",
            bytes if bytes > MOST_BYTES => "has more bytes than an image file may have",
            _ if sample.image.is_some() => "is a second image of its key",
            bytes => {
                let (name, offset) = (name.into(), member.offset);
                sample.image = Some(Example { name, offset, bytes: bytes as u32, class: 0 });
                return;
            }
        };
        self.leave_out(format!("{name} {problem}"));
    }

    /// Takes an example of which all has been seen.
    fn finish(&mut self, sample: Sample) {
        let key = shown(&sample.key);
        match (sample.image, sample.class) {
            (Some(image), Some(Ok(class))) => self.examples.push(Example { class, ..image }),
            (_, Some(Err(problem))) => self.leave_out(problem),
            (Some(image), None) => {
                let name = &image.name;
                self.leave_out(format!("{name} has no label: no {key}.cls and no {key}.json beside it"));
            }
            (None, Some(Ok(_))) => self.leave_out(format!("{key} has a label and no image")),
            (None, None) => {}
        }
    }

    fn leave_out(&mut self, problem: String) {
        if self.left_out.len() < MOST_NAMED {
            self.left_out.push(problem);
        } else {
            self.unnamed += 1;
        }
    }

    fn count_other(&mut self, ending: &str) {
        if self.others.len() < MOST_NAMED || self.others.contains_key(ending) {
            *self.others.entry(ending.to_owned()).or_default() += 1;
        } else {
            self.unnamed += 1;
        }
    }
}

/// The key in a member's name, and what follows the dot behind it; none where there is no dot.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let base = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].iter().position(|&byte| byte == b'.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// The class that a member tells, as `parse` finds it in its content.
fn class_in(file: &File, member: &Member, name: &str, parse: fn(&[u8]) -> Option<u32>) -> Result<u32, String> {
    let mut content = vec![0; member.bytes.min(MOST_LABEL) as usize];
    file.read_exact_at(&mut content, member.offset).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let class = parse(&content).filter(|&class| class < MOST_CLASSES);
    class.ok_or_else(|| format!("{name} tells no number of a class, from 0 to {}", MOST_CLASSES - 1))
}

fn number(content: &[u8]) -> Option<u32> {
    std::str::from_utf8(content).ok()?.trim().parse().ok()
}

fn label(content: &[u8]) -> Option<u32> {
    serde_json::from_slice::<Labelled>(content).ok().map(|found| found.label)
}
