//! Archives as people make them, and as they are found.

use super::*;
use image::{ImageFormat, Rgb, RgbImage};
use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const FORM: Form = Form { channels: 3, side: 8 };

/// The bytes of a PNG file of one colour.
fn image(red: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(12, 10, Rgb([red, 0, 0])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// An archive of these members.
fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn write(dir: &TempDir, name: &str, content: &[u8]) {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A folder with this archive to train with.
fn folder(content: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "train/0.tar", content);
    dir
}

fn open(dir: &TempDir) -> Result<Shards> {
    Shards::open(dir.path(), Subset::Train, 0, FORM)
}

fn label(class: &str) -> Vec<u8> {
    class.as_bytes().to_vec()
}

/// The red of each example, and its class.
fn examples(shards: &Shards) -> Vec<(u8, i64)> {
    let read = |index| {
        let mut pixels = vec![0.0; 3 * 64];
        let label = shards.read(index, &mut pixels).unwrap();
        ((pixels[0] * 255.0).round() as u8, label)
    };
    (0..shards.len()).map(read).collect()
}

/// What was left out, without the folder.
fn left_out(dir: &TempDir, shards: &Shards) -> Vec<String> {
    shards.remarks().iter().map(|what| what.replace(&dir.path().display().to_string(), "DIR")).collect()
}

fn refusal(dir: &TempDir) -> String {
    let error = open(dir).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn examples_come_by_the_names_of_archives_and_their_order_in_them() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "train/b.tar", &archive(&[("z.cls", label("2\n")), ("z.png", image(30))]));
    let members = [
        ("d/y.PNG", image(10)),
        ("d/y.cls", label("0")),
        ("d/a.jpg", image(20)),
        ("d/a.json", label(r#"{"label": 1, "x": 2}"#)),
    ];
    write(&dir, "train/a.tar", &archive(&members));
    write(&dir, "test/0.tar", &archive(&[("k.jpeg", image(40)), ("k.cls", label("1"))]));
    let train = open(&dir).unwrap();
    assert_eq!((train.shape(), train.classes()), ([3, 8, 8], 3));
    assert_eq!(examples(&train), [(10, 0), (20, 1), (30, 2)]);
    assert!(train.remarks().is_empty());
    let test = Shards::open(dir.path(), Subset::Test, 0, FORM).unwrap();
    assert_eq!((test.classes(), examples(&test)), (2, vec![(40, 1)]));
    assert_eq!(classes(dir.path()).unwrap(), 3);
    let thinned = Shards::open(dir.path(), Subset::Train, 2, FORM).unwrap();
    assert_eq!((thinned.classes(), examples(&thinned)), (3, vec![(10, 0), (30, 2)]));
    assert_ne!(train.checksum(), thinned.checksum());
    let before = train.checksum();
    write(&dir, "train/b.tar", &archive(&[("z.cls", label("1\n")), ("z.png", image(30))]));
    assert_ne!(open(&dir).unwrap().checksum(), before, "a label");
}

#[test]
fn long_names_are_read_as_gnu_and_posix_write_them() {
    let long = format!("{}/{}.png", "folder".repeat(20), "name".repeat(40));
    let members = archive(&[(&long, image(10)), (&long.replace(".png", ".cls"), label("0"))]);
    let mut builder = Builder::new(Vec::new());
    let posix = long.replace("folder", "FOLDER");
    for (name, content) in [(posix.replace(".png", ".cls"), label("1")), (posix.clone(), image(20))] {
        builder.append_pax_extensions([("comment", &b"nothing"[..]), ("path", name.as_bytes())]).unwrap();
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_path("cut").unwrap();
        header.set_cksum();
        builder.append(&header, &content[..]).unwrap();
    }
    let dir = folder(&members);
    write(&dir, "train/1.tar", &builder.into_inner().unwrap());
    let shards = open(&dir).unwrap();
    assert_eq!(examples(&shards), [(10, 0), (20, 1)]);
    let names: Vec<&str> = shards.examples.iter().map(|(_, example)| &*example.name).collect();
    assert_eq!(names, [&long, &posix]);
}

#[test]
fn what_makes_no_example_is_left_out_and_named() {
    let members = [
        ("a.png", image(10)),
        ("a.cls", label("0")),
        ("a.txt", label("a caption")),
        ("b.png", image(20)),
        ("c.cls", label("1")),
        ("d.png", Vec::new()),
        ("d.cls", label("1")),
        ("e.png", image(20)),
        ("e.cls", label("cat")),
        ("f.png", image(20)),
        ("f.jpg", image(30)),
        ("f.cls", label("1")),
        ("._f.png", label("a Mac's")),
        ("README", label("read me")),
        ("g\n\u{1b}[2J.png", image(1)),
    ];
    let dir = folder(&archive(&members));
    write(&dir, "train/notes.txt", b"");
    write(&dir, "train/1.tar.gz", b"");
    let shards = open(&dir).unwrap();
    assert_eq!(examples(&shards), [(10, 0), (20, 1)]);
    let expected = [
        "left out: 2 file(s) or folder(s) in DIR/train that are not called *.tar",
        "left out: DIR/train/0.tar: b.png has no label: no b.cls and no b.json beside it",
        "left out: DIR/train/0.tar: c has a label and no image",
        "left out: DIR/train/0.tar: d.png is empty",
        "left out: DIR/train/0.tar: d has a label and no image",
        "left out: DIR/train/0.tar: e.cls tells no number of a class, from 0 to 1048575",
        "left out: DIR/train/0.tar: f.jpg is a second image of its key",
        "left out: DIR/train/0.tar: g\u{fffd}\u{fffd}[2J.png has no label: no g\u{fffd}\u{fffd}[2J.cls and no \
         g\u{fffd}\u{fffd}[2J.json beside it",
        "left out: DIR/train/0.tar: 1 member(s) called *.txt",
        "left out: DIR/train/0.tar: 1 member(s) without an ending",
    ];
    assert_eq!(left_out(&dir, &shards), expected);
}

/// In GBK, as Chinese systems wrote them, a dog is b9b7 and a bird c4f1.
#[test]
fn names_that_are_no_utf8_are_told_apart() {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in [
        (&b"\xb9\xb7.png"[..], image(10)),
        (b"\xb9\xb7.cls", label("0")),
        (b"\xc4\xf1.png", image(20)),
        (b"\xc4\xf1.cls", label("1")),
    ] {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, OsStr::from_bytes(name), &content[..]).unwrap();
    }
    let dir = folder(&builder.into_inner().unwrap());
    assert_eq!(examples(&open(&dir).unwrap()), [(10, 0), (20, 1)]);
}

#[test]
fn a_damaged_image_is_named_with_its_archive_when_it_is_read() {
    let dir = folder(&archive(&[("a.png", label("no image")), ("a.cls", label("0"))]));
    let error = open(&dir).unwrap().read(0, &mut [0.0; 192]).unwrap_err();
    let shown = dir.path().display();
    assert_eq!(error.to_string(), format!("{shown}/train/0.tar: a.png: is neither a JPEG nor a PNG image"));
}

#[test]
fn an_archive_that_is_cut_short_or_damaged_gives_what_stands_before() {
    let whole = archive(&[("a.png", image(10)), ("a.cls", label("0")), ("b.png", image(20)), ("b.cls", label("1"))]);
    let second = 512 * (2 + image(10).len().div_ceil(512) + 1);
    let opened = |content: &[u8]| {
        let dir = folder(content);
        let shards = open(&dir).unwrap();
        (examples(&shards), left_out(&dir, &shards))
    };
    let first = vec![(10, 0)];
    assert_eq!(opened(&whole[..second]), (first.clone(), vec![]), "no empty block at the end");
    let (found, said) = opened(&whole[..second + 100]);
    assert_eq!(
        (found, said),
        (first.clone(), vec![format!("left out: DIR/train/0.tar: is cut short in the header at byte {second}")])
    );
    let (found, said) = opened(&whole[..second + 600]);
    let expected = format!("left out: DIR/train/0.tar: is cut short: what begins at byte {second} has no end");
    assert_eq!((found, said), (first.clone(), vec![expected]));
    let mut damaged = whole.clone();
    damaged[second + 3] ^= 1;
    let expected = format!("left out: DIR/train/0.tar: has no header where one should be, at byte {second}");
    assert_eq!(opened(&damaged), (first, vec![expected]));
    let dir = folder(&whole[..100]);
    assert!(
        refusal(&dir).starts_with("the archives in DIR/train hold no example (left out: DIR/train/0.tar: is cut short")
    );
}

#[test]
fn sizes_that_no_archive_has_take_no_memory() {
    let entry = |kind: EntryType, size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let good = archive(&[("a.png", image(10)), ("a.cls", label("0"))]);
    let good = &good[..good.len() - 1024];
    for (kind, size) in
        [(EntryType::Regular, u64::MAX), (EntryType::Regular, 1 << 40), (EntryType::XHeader, u64::MAX - 600)]
    {
        let dir = folder(&[good, &entry(kind, size)].concat());
        let shards = open(&dir).unwrap();
        assert_eq!((shards.len(), shards.remarks().len()), (1, 1), "{:?}", shards.remarks());
    }
    let dir = folder(&[good, &entry(EntryType::GNULongName, 1 << 20), &vec![b'x'; 1 << 20]].concat());
    let said = left_out(&dir, &open(&dir).unwrap());
    assert!(said[0].contains("has a name or attributes of 1048576 bytes"), "{said:?}");
}

#[test]
fn the_names_of_classes_say_how_many_there_are() {
    let members = [("a.png", image(10)), ("a.cls", label("0")), ("b.png", image(20)), ("b.cls", label("3"))];
    let dir = folder(&archive(&members));
    write(&dir, "classes.txt", "cat\ndog\n\nhorse\n".as_bytes());
    let shards = open(&dir).unwrap();
    assert_eq!((shards.classes(), classes(dir.path()).unwrap(), examples(&shards)), (3, 3, vec![(10, 0)]));
    assert_eq!(
        left_out(&dir, &shards),
        ["left out: DIR/train/0.tar: 1 of a class that classes.txt does not name, as b.png of class 3"]
    );
}

#[test]
fn a_folder_without_archives_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(&dir).starts_with("there is no folder train in DIR; a folder of shards holds train/NAME.tar"));
    write(&dir, "train/cat/1.png", &image(1));
    assert!(refusal(&dir).starts_with("DIR/train holds no tar archive"));
}
