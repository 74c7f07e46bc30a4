//! Packs as they are written, and as they are damaged.

use super::write::write;
use super::*;
use crate::data::Synthetic;
use std::fs;
use tempfile::TempDir;

/// Images of one value, of which some cannot be read.
struct Set {
    count: usize,
    unread: Vec<usize>,
    shape: [usize; 3],
}

impl Set {
    fn new(count: usize, unread: &[usize]) -> Self {
        Self { count, unread: unread.to_vec(), shape: [3, 4, 5] }
    }
}

impl Source for Set {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        3
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        if self.unread.contains(&index) {
            return Err(Error::failed(format!("image {index} is gone")));
        }
        let bytes: Vec<u8> = (0..pixels.len()).map(|at| (17 * index + at) as u8).collect();
        to_values(&bytes, pixels);
        Ok((index % 3) as i64)
    }
}

fn names() -> Vec<String> {
    ["cat", "dog", "Pferd \u{1f40e}"].map(str::to_owned).to_vec()
}

/// A pack of 300 images, and of 7 to test with.
fn packed() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pack");
    let packed = write(&path, [&Set::new(300, &[]), &Set::new(7, &[])], &names(), &mut |_| Ok(())).unwrap();
    assert_eq!((packed.counts, packed.bytes), ([300, 7], fs::metadata(&path).unwrap().len()));
    (dir, path)
}

fn examples(source: &dyn Source) -> Vec<(Vec<f32>, i64)> {
    let read = |index| {
        let mut pixels = vec![0.0; source.shape().iter().product()];
        let label = source.read(index, &mut pixels).unwrap();
        (pixels, label)
    };
    (0..source.len()).map(read).collect()
}

fn refusal(path: &Path) -> String {
    let error = Pack::open(path, Subset::Train, 0).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().replace(&path.display().to_string(), "PACK")
}

#[test]
fn a_pack_gives_the_same_images_as_what_it_was_made_of() {
    let (_dir, path) = packed();
    for (subset, count) in [(Subset::Train, 300), (Subset::Test, 7)] {
        let pack = Pack::open(&path, subset, 0).unwrap();
        assert_eq!((pack.shape(), pack.classes()), ([3, 4, 5], 3));
        assert_eq!(examples(&pack), examples(&Set::new(count, &[])));
    }
    let some = Pack::open(&path, Subset::Train, 3).unwrap();
    let all = examples(&Set::new(300, &[]));
    assert_eq!(examples(&some), [&all[0], &all[100], &all[200]].map(Clone::clone));
    let whole = Pack::open(&path, Subset::Train, 0).unwrap();
    assert_ne!(some.checksum(), whole.checksum());
    assert_eq!((classes(&path).unwrap(), format::open(&path).unwrap().1.names), (3, names()));
}

#[test]
fn images_that_cannot_be_read_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pack");
    let sets = [Set::new(5, &[0, 3]), Set::new(2, &[1])];
    let packed = write(&path, [&sets[0], &sets[1]], &[], &mut |_| Ok(())).unwrap();
    assert_eq!((packed.counts, packed.left_out.len()), ([3, 1], 3));
    assert_eq!(packed.left_out[0], "image 0 is gone");
    let all = examples(&Set::new(5, &[]));
    let pack = Pack::open(&path, Subset::Train, 0).unwrap();
    assert_eq!(examples(&pack), [1, 2, 4].map(|index: usize| all[index].clone()));
}

#[test]
fn other_programs_can_read_it_and_every_pack_of_a_set_is_the_same() {
    let (_dir, path) = packed();
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let labels = tensors.tensor("test.labels").unwrap();
    assert_eq!((labels.shape(), labels.dtype()), (&[7][..], safetensors::Dtype::I64));
    assert_eq!(tensors.tensor("train.images").unwrap().shape(), [300, 3, 4, 5]);
    let (_other, again) = packed();
    assert!(fs::read(again).unwrap() == bytes);
}

#[test]
fn nothing_is_left_of_a_pack_that_is_not_whole_and_what_was_there_stays() {
    let (dir, path) = packed();
    let before = fs::read(&path).unwrap();
    let fails = |sets: [&dyn Source; 2], stop: usize| {
        let mut go_on = |read| if read >= stop { Err(Error::failed("a signal ended it")) } else { Ok(()) };
        let error = write(&path, sets, &[], &mut go_on).unwrap_err().to_string();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{error}");
        assert!(fs::read(&path).unwrap() == before);
        error.replace(&path.display().to_string(), "PACK")
    };
    let good = Set::new(300, &[]);
    assert_eq!(fails([&good, &good], 300), "PACK cannot be written: a signal ended it");
    assert_eq!(fails([&Set::new(1, &[0]), &good], 1000), "PACK cannot be written: a set has no image that can be read");
    let noise = Synthetic::new(1, 4, [3, 4, 5], 3, Subset::Train).unwrap();
    assert!(fails([&good, &noise], 1000).contains("its pixels are no bytes"));
    let other = Set { shape: [1, 4, 5], ..Set::new(1, &[]) };
    assert!(fails([&good, &other], 1000).contains("different shapes"));
}

#[test]
fn a_pack_that_is_cut_short_or_changed_is_refused_or_its_image_is_named() {
    let (_dir, path) = packed();
    let whole = fs::read(&path).unwrap();
    let images = Pack::open(&path, Subset::Train, 0).unwrap().part.images as usize;
    for length in [0, 7, 100, images - 1, images + 1, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(refusal(&path).starts_with("PACK is no whole pack: "), "{}", refusal(&path));
    }
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    let index = images - format::INDEX_BYTES * 307;
    for at in [index, index + 8 * 300, images - 1] {
        flipped(at);
        assert!(
            refusal(&path).starts_with("PACK is damaged: the CRC-32 of its labels and checksums"),
            "{}",
            refusal(&path)
        );
    }
    flipped(images + 60);
    let pack = Pack::open(&path, Subset::Train, 0).unwrap();
    let mut pixels = vec![0.0; 60];
    assert!(pack.read(0, &mut pixels).is_ok());
    let said = pack.read(1, &mut pixels).unwrap_err().to_string();
    assert!(said.contains("a.pack: image 1 of train is damaged: its CRC-32 is "), "{said}");
    fs::write(&path, &whole).unwrap();
    let pack = Pack::open(&path, Subset::Test, 0).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(images as u64).unwrap();
    let said = pack.read(0, &mut pixels).unwrap_err().to_string();
    assert!(said.contains("image 0 of test cannot be read"), "{said}");
}

#[test]
fn other_files_are_no_packs() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).starts_with("PACK is no file"));
    let path = dir.path().join("x");
    assert!(refusal(&path).starts_with("PACK cannot be read: No such file"));
    let header = |about: &str| {
        let text = format!(r#"{{"__metadata__":{about},"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
        fs::write(&path, [&(text.len() as u64).to_le_bytes(), text.as_bytes(), b"x"].concat()).unwrap();
        refusal(&path)
    };
    let end = "; `mpt data pack` writes packs, and --data-dir names one";
    assert_eq!(header("{}"), format!("PACK is no pack{end}"));
    assert_eq!(header(r#"{"mpt data pack": "x"}"#), format!("PACK is no pack of this version{end}"));
    let about = |version: u32| {
        format!(r#"{{"mpt data pack":"{{\"version\":{version},\"classes\":1,\"names\":[],\"crc32\":0}}"}}"#)
    };
    assert!(header(&about(2)).starts_with("PACK is a pack of version 2, and this mpt reads version 1"));
    assert_eq!(header(&about(1)), format!("PACK is no pack: it has no train.images of type U8{end}"));
}
