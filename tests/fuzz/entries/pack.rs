//! Packs of decoded images.

use super::{Entry, accepted, measured, scratch};
use mpt::data::{Pack, Source, Subset, pack::write::write};
use mpt::error::Result;
use std::fs;

/// A pack.
pub const PACK: Entry = Entry { name: "pack", run: pack, seeds, tokens: &TOKENS };

const TOKENS: [&str; 8] = [
    "\"shape\":[",
    "\"data_offsets\":[0,",
    "18446744073709551615",
    "\"train.images\"",
    "mpt data pack",
    "\\\"classes\\\":",
    "\"U8\"",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
];

fn pack(bytes: &[u8]) {
    let path = scratch("pack");
    fs::write(&path, bytes).expect("a file can be written");
    measured(bytes, || {
        for subset in [Subset::Train, Subset::Test] {
            let Some(found) = accepted(Pack::open(&path, subset, 0)) else { continue };
            let mut pixels = vec![0.0; found.shape().iter().product()];
            for example in 0..found.len() {
                let Some(label) = accepted(found.read(example, &mut pixels)) else { continue };
                assert!((0..found.classes() as i64).contains(&label), "label {label} of {} classes", found.classes());
                assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
            }
            found.checksum();
        }
    });
}

/// Images that are bytes.
struct Few;

impl Source for Few {
    fn len(&self) -> usize {
        3
    }

    fn shape(&self) -> [usize; 3] {
        [1, 2, 2]
    }

    fn classes(&self) -> usize {
        2
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        pixels.fill(index as f32 / 255.0);
        Ok((index % 2) as i64)
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let made = |names: &[String]| {
        let path = scratch("sound");
        write(&path, [&Few, &Few], names, &mut |_| Ok(())).expect("a pack can be written");
        fs::read(path).expect("it was written")
    };
    vec![made(&[]), made(&["cat".to_owned(), "dog".to_owned()])]
}
