//! Tar archives of images and labels.

use super::{Entry, accepted, emptied, measured};
use mpt::data::images::decode::Form;
use mpt::data::{Shards, Source, Subset};
use std::fs;

/// An archive.
pub const ARCHIVE: Entry = Entry { name: "archive", run: archive, seeds, tokens: &TOKENS };

const TOKENS: [&str; 10] = [
    ".png",
    ".cls",
    ".json",
    "/",
    "ustar\0",
    "ustar  \0",
    "77777777777\0",
    "x",
    "L",
    "30 path=aaaaaaaaaaaaaaaaaaaaaa\n",
];
const FORM: Form = Form { channels: 3, side: 4 };
/// The bytes of a header, and what contents are rounded up to.
const BLOCK: usize = 512;
/// Where the sum of a header's bytes stands in it.
const SUM: std::ops::Range<usize> = 148..156;

/// As it is, and with headers whose sums fit, so that a change reaches what reads the other fields.
fn archive(bytes: &[u8]) {
    for content in [bytes.to_vec(), summed(bytes)] {
        let folder = emptied("archive");
        fs::create_dir(folder.join("train")).expect("a folder can be made");
        fs::write(folder.join("train/0.tar"), content).expect("a file can be written");
        measured(bytes, || {
            let Some(found) = accepted(Shards::open(&folder, Subset::Train, 0, FORM)) else { return };
            assert!(found.remarks().iter().all(|remark| !remark.contains(char::is_control)));
            let mut pixels = [0.0; 48];
            for example in 0..found.len() {
                let Some(label) = accepted(found.read(example, &mut pixels)) else { continue };
                assert!((0..found.classes() as i64).contains(&label), "label {label} of {} classes", found.classes());
            }
            found.checksum();
        });
    }
}

/// With the right sum in each block that looks like a header.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[SUM].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// A member of a kind, with its content.
fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header.extend(content);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

/// Members of all kinds, with labels in both ways.
fn seeds() -> Vec<Vec<u8>> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 2, 2);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("memory can be written");
    writer.write_image_data(&[7; 12]).and_then(|()| writer.finish()).expect("memory can be written");
    let plain = [member("a.png", b'0', &png), member("a.cls", b'0', b"3\n")].concat();
    let json = [member("d/b.png", b'0', &png), member("d/b.json", b'0', br#"{"label": 2}"#)].concat();
    let long =
        [member("././@LongLink", b'L', b"long/c.png\0"), member("c", b'0', &png), member("long/c.cls", b'0', b"1")];
    let pax =
        [member("x", b'x', b"14 path=d.png\n12 size=100\n"), member("y", b'0', &png), member("d.cls", b'0', b"0")];
    let others = [member("d", b'5', b""), member("l.png", b'2', b""), member("e.txt", b'0', b"text")];
    let all = [&plain[..], &json, &long.concat(), &pax.concat(), &others.concat()];
    let whole = all.concat();
    all.iter().map(|seed| seed.to_vec()).chain([whole]).map(|seed| summed(&seed)).collect()
}
