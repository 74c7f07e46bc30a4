//! Image files, JPEG and PNG, as folders and archives hold them.

use super::{Entry, accepted, meter};
use mpt::data::images::decode::{Form, decode};

/// An image file.
pub const PICTURE: Entry = Entry { name: "picture", run: picture, seeds, tokens: &TOKENS };

const TOKENS: [&str; 12] = [
    "\u{0}\u{0}\u{1}\u{0}",
    "\u{0}\u{8}\u{0}\u{1}",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
    "Exif\0\0",
    "MM\0*\0\0\0\u{8}",
    "JFIF\0",
    "Adobe",
    "IHDR",
    "IDAT",
    "PLTE",
    "tRNS",
    "IEND",
];

/// Bytes for each pixel that an image may have, of which there are at most 100 million: three as it is decoded, two more of each
/// while it is taken from 16 bits, and those of a decoder that keeps the coefficients of a progressive one.
const MOST: usize = 100_000_000 * 12;

fn picture(bytes: &[u8]) {
    for form in [Form { channels: 1, side: 5 }, Form { channels: 3, side: 16 }] {
        let (found, peak) = meter::peak(|| decode(bytes, form));
        assert!(peak <= MOST, "{peak} bytes were taken for an image of {} bytes", bytes.len());
        let values = accepted(found).map(|image| image.len());
        assert!(values.is_none_or(|values| values == form.channels * form.side * form.side));
    }
}

/// Sound ones in four forms, and one that promises four million pixels.
fn seeds() -> Vec<Vec<u8>> {
    let samples: [&[u8]; 3] = [
        include_bytes!("../../../src/data/images/samples/cmyk.jpg"),
        include_bytes!("../../../src/data/images/samples/progressive.jpg"),
        include_bytes!("../../../images/filters.png"),
    ];
    let mut seeds: Vec<Vec<u8>> = samples.map(<[u8]>::to_vec).to_vec();
    // The height and width of a baseline frame follow its length and precision.
    let mut promise = samples[0].to_vec();
    if let Some(frame) = promise.windows(2).position(|marker| marker == [0xff, 0xc0]) {
        promise[frame + 5..frame + 9].copy_from_slice(&[0x08, 0x00, 0x08, 0x00]);
        seeds.push(promise);
    }
    seeds
}
