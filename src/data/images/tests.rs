//! Folders as people have them: which files count, in which order, and what is said of the rest.

use super::*;
use image::{Rgb, RgbImage};
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const FORM: Form = Form { channels: 3, side: 8 };

/// Writes an image of one colour.
fn write(dir: &Path, name: &str, colour: [u8; 3]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(12, 10, Rgb(colour)).save(path).unwrap();
}

fn text(dir: &Path, name: &str, content: &[u8]) {
    fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
    fs::write(dir.join(name), content).unwrap();
}

/// Two classes, three images to train with and one to test with.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "train/dog/b.png", [20, 0, 0]);
    write(dir.path(), "train/cat/z.PNG", [10, 0, 0]);
    write(dir.path(), "train/dog/a/c.png", [30, 0, 0]);
    write(dir.path(), "val/dog/1.png", [40, 0, 0]);
    dir
}

fn open(dir: &Path, subset: Subset) -> Result<ImageFolder> {
    ImageFolder::open(dir, subset, 0, FORM)
}

/// The first value of each example, of 255, and its class.
fn examples(folder: &ImageFolder) -> Vec<(u8, i64)> {
    let read = |index| {
        let mut pixels = vec![0.0; 3 * 64];
        let label = folder.read(index, &mut pixels).unwrap();
        ((pixels[0] * 255.0).round() as u8, label)
    };
    (0..folder.len()).map(read).collect()
}

fn refusal(dir: &TempDir, subset: Subset) -> String {
    let error = open(dir.path(), subset).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn examples_come_by_class_and_path() {
    let dir = folder();
    let train = open(dir.path(), Subset::Train).unwrap();
    assert_eq!((train.shape(), train.classes()), ([3, 8, 8], 2));
    assert_eq!(examples(&train), [(10, 0), (30, 1), (20, 1)]);
    let test = open(dir.path(), Subset::Test).unwrap();
    assert_eq!((test.classes(), examples(&test)), (2, vec![(40, 1)]));
    fs::rename(dir.path().join("val"), dir.path().join("test")).unwrap();
    assert_eq!(examples(&open(dir.path(), Subset::Test).unwrap()), [(40, 1)]);
}

#[test]
fn what_is_no_image_is_left_out_and_told_of() {
    let dir = folder();
    text(dir.path(), "train/cat/empty.jpg", b"");
    text(dir.path(), "train/cat/notes.txt", b"a cat");
    text(dir.path(), "train/cat/README", b"a cat");
    text(dir.path(), "train/cat/x\u{1b}[2J.jpg", b"");
    text(dir.path(), "train/cat/c.x\u{1b}[2J", b"");
    write(dir.path(), &format!("train/cat/{}/x.png", ["d"; 17].join("/")), [50, 0, 0]);
    text(dir.path(), "train/dog/more.TXT", b"a dog");
    text(dir.path(), "train/dog/.hidden.jpg", b"hidden");
    text(dir.path(), "train/.cache/x.jpg", b"hidden");
    text(dir.path(), "train/readme.jpg", b"no class");
    symlink("nowhere", dir.path().join("train/dog/lost.jpg")).unwrap();
    symlink("..", dir.path().join("train/dog/circle")).unwrap();
    symlink("b.png", dir.path().join("train/dog/link.png")).unwrap();
    let train = open(dir.path(), Subset::Train).unwrap();
    assert_eq!(examples(&train), [(10, 0), (30, 1), (20, 1), (20, 1)]);
    let folder = dir.path().join("train");
    let shown = folder.display();
    let expected = [
        format!("left out: {shown}/cat/empty.jpg is empty"),
        format!("left out: {shown}/cat/x\u{fffd}[2J.jpg is empty"),
        format!("left out: 1 thing(s) called *.jpg that are no files in {shown}"),
        format!("left out: 2 file(s) called *.txt in {shown}"),
        format!("left out: 1 file(s) without an ending in {shown}"),
        format!("left out: 1 file(s) called *.x\u{fffd}[2j in {shown}"),
        format!("left out: 1 link(s) to folders in {shown}"),
        format!("left out: 1 folder(s) more than 16 deep in that of their class in {shown}"),
    ];
    let (mut found, mut expected) = (train.remarks().to_vec(), expected.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn of_very_many_that_are_left_out_a_hundred_are_named() {
    let dir = folder();
    (0..150).for_each(|number| text(dir.path(), &format!("train/cat/{number}.jpg"), b""));
    text(dir.path(), "train/cat/notes.txt", b"a cat");
    let train = open(dir.path(), Subset::Train).unwrap();
    let (first, last) = (train.remarks().first().unwrap(), train.remarks().last().unwrap());
    assert!(first.starts_with("left out: 1 file(s) called *.txt in "), "{first}");
    assert!(last.starts_with("left out: 51 more in "), "{last}");
    assert_eq!(train.remarks().len(), 101);
}

#[test]
fn fewer_examples_keep_the_shares_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..30_u8 {
        write(dir.path(), &format!("train/{}/{number:02}.png", if number < 10 { "a" } else { "b" }), [number, 0, 0]);
    }
    let kept = |wanted| examples(&ImageFolder::open(dir.path(), Subset::Train, wanted, FORM).unwrap());
    assert_eq!(kept(6), [(0, 0), (5, 0), (10, 1), (15, 1), (20, 1), (25, 1)]);
    assert_eq!((kept(29).len(), kept(30).len(), kept(31).len(), kept(0).len()), (29, 30, 30, 30));
}

#[test]
fn the_checksum_tells_listings_and_forms_apart() {
    let dir = folder();
    let checksum = || open(dir.path(), Subset::Train).unwrap().checksum();
    let before = checksum();
    assert_eq!(checksum(), before);
    let grey = Form { channels: 1, ..FORM };
    assert_ne!(ImageFolder::open(dir.path(), Subset::Train, 0, grey).unwrap().checksum(), before);
    let path = dir.path().join("train/dog/b.png");
    fs::write(&path, [&fs::read(&path).unwrap()[..], b"!"].concat()).unwrap();
    assert_ne!(checksum(), before, "another size");
    let changed = checksum();
    fs::rename(&path, dir.path().join("train/dog/bb.png")).unwrap();
    assert_ne!(checksum(), changed, "another name");
}

#[test]
fn a_folder_that_is_laid_out_otherwise_is_refused_with_how_it_should_be() {
    let layout = "a folder of images holds train/CLASS/NAME.jpg and val/CLASS/NAME.jpg (or test in place of val)";
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(refusal(&dir, Subset::Train), format!("there is no folder train in DIR; {layout}"));
    fs::create_dir(dir.path().join("train")).unwrap();
    assert_eq!(refusal(&dir, Subset::Train), format!("DIR/train holds no folders of classes: {layout}"));
    write(dir.path(), "train/dog/1.png", [0; 3]);
    assert_eq!(refusal(&dir, Subset::Test), format!("there is no folder val or test in DIR; {layout}"));
    fs::create_dir(dir.path().join("test")).unwrap();
    assert_eq!(refusal(&dir, Subset::Test), "DIR/test holds no JPEG or PNG image in folders of classes");
    write(dir.path(), "test/wolf/1.png", [0; 3]);
    let expected = "DIR/test/wolf is the folder of a class that is not trained on: DIR/train has none of that name";
    assert_eq!(refusal(&dir, Subset::Test), expected);
    fs::create_dir(dir.path().join("train/cat")).unwrap();
    let expected = "the class folder DIR/train/cat holds no JPEG or PNG image; fill it, or remove it";
    assert_eq!(refusal(&dir, Subset::Train), expected);
    let gone = open(Path::new("/nowhere/at/all"), Subset::Train).unwrap_err().to_string();
    assert!(gone.starts_with("there is no folder train in /nowhere/at/all, which does not exist; "), "{gone}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = folder();
    let train = open(dir.path(), Subset::Train).unwrap();
    let refusal = |content: &[u8]| {
        fs::write(dir.path().join("train/dog/b.png"), content).unwrap();
        train.read(2, &mut vec![0.0; 3 * 64]).unwrap_err().to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(refusal(b"what?"), "DIR/train/dog/b.png: is neither a JPEG nor a PNG image");
    fs::remove_file(dir.path().join("train/dog/b.png")).unwrap();
    fs::create_dir(dir.path().join("train/dog/b.png")).unwrap();
    let folder = train.read(2, &mut vec![0.0; 3 * 64]).unwrap_err().to_string();
    assert!(folder.contains("/train/dog/b.png: cannot be read: "), "{folder}");
}
