//! Files of MNIST's format, plain and gzip.

use super::{Entry, accepted, emptied, measured};
use flate2::Compression;
use flate2::write::GzEncoder;
use mpt::data::{IdxDataset, Source, Subset};
use std::fs;
use std::io::Write;
use std::path::Path;

/// A file of images or of labels.
pub const IDX: Entry = Entry { name: "idx", run: idx, seeds, tokens: &TOKENS };

const TOKENS: [&str; 8] = [
    "\0\0\u{8}\u{3}",
    "\0\0\u{8}\u{1}",
    "\0\0\0\u{2}",
    "\0\u{10}\0\0",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
    "\u{1f}",
    "\0\0\0\0",
    "\u{8}\u{8}",
];
const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

/// As images and as labels, beside a sound file of the other kind, as it is and packed, so that a change reaches the reader
/// behind the decoder.
fn idx(bytes: &[u8]) {
    for packed in [false, true] {
        let file = if packed { gzip(bytes) } else { bytes.to_vec() };
        for (name, other, beside) in [(IMAGES, LABELS, labels()), (LABELS, IMAGES, images())] {
            let folder = emptied("idx");
            fs::write(folder.join(name), &file).expect("a file can be written");
            fs::write(folder.join(other), beside).expect("a file can be written");
            measured(bytes, || read(&folder));
        }
    }
}

fn read(folder: &Path) {
    let Some(found) = accepted(IdxDataset::open(folder, Subset::Train)) else { return };
    let [channels, height, width] = found.shape();
    let mut pixels = vec![0.0; channels * height * width];
    for example in 0..found.len() {
        let label = accepted(found.read(example, &mut pixels)).expect("every example can be read");
        assert!((0..found.classes() as i64).contains(&label), "label {label} of {} classes", found.classes());
        assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
    }
    found.checksum();
}

fn file(dimensions: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes = dimensions.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, 8, dimensions.len() as u8].into_iter().chain(sizes).chain(bytes.iter().copied()).collect()
}

fn images() -> Vec<u8> {
    file(&[3, 2, 2], &[0, 51, 102, 153, 204, 255, 0, 0, 1, 2, 3, 4])
}

fn labels() -> Vec<u8> {
    file(&[3], &[4, 0, 6])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written")
}

/// Sound ones, headers that promise much, and few bytes that unpack to many.
fn seeds() -> Vec<Vec<u8>> {
    let promises =
        [file(&[u32::MAX, u32::MAX, u32::MAX], &[]), file(&[1 << 20, 1 << 6, 1 << 6], &[1]), file(&[1 << 31], &[])];
    // Too few images or labels; sizes whose product is small in 64 bits.
    let wrapped = file(&[3, 2_593_811_966, 2_370_609_270], &[7; 22_844]);
    let refused = [file(&[2, 2, 2], &[9; 8]), file(&[4], &[0, 1, 2, 3]), wrapped];
    let bomb = gzip(&file(&[1 << 12, 1 << 5, 1 << 5], &vec![0; 1 << 22]));
    let two_members = [gzip(&images()[..9]), gzip(&images()[9..])].concat();
    let sound = [images(), labels(), gzip(&images()), gzip(&labels()), bomb, two_members];
    sound.into_iter().chain(promises).chain(refused).collect()
}
