//! Any data set as a folder of JPEG files, a class a folder: what other programs read, and [`super::ImageFolder`] too.

use crate::data::source::Source;
use crate::error::{Error, Result};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use std::fs;
use std::path::Path;

/// Writes the images of `source`, with 1 channel or 3, as `folder/CLASS/INDEX.jpg` of this quality (1 to 100). Classes are called by
/// their numbers, with as many digits as the largest has, so that they come in the same order when they are listed. The folder has
/// its name when all are written; before that it is a hidden one beside it, which the next try removes. Gives why images were left
/// out, each in a sentence.
///
/// # Errors
/// The folder is there already, the images have other channels, none can be read, or the file system's.
pub fn write(source: &dyn Source, folder: &Path, quality: u8) -> Result<Vec<String>> {
    let [channels, height, width] = source.shape();
    let colour = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(Error::usage(format!("the images have {channels} channels, and JPEG files have 1 or 3"))),
    };
    let fault = |place: &Path, problem: &dyn std::fmt::Display| {
        Error::failed(format!("{} cannot be written: {problem}", place.display()))
    };
    if folder.exists() {
        return Err(Error::usage(format!("{} is there already; name a new folder", folder.display())));
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.with_file_name(format!(".{name}.part"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| fault(&unfinished, &error))?;
    }
    let digits = |most: usize| most.saturating_sub(1).to_string().len();
    let (of_class, of_index) = (digits(source.classes()), digits(source.len()));
    for class in 0..source.classes() {
        let place = unfinished.join(format!("{class:0of_class$}"));
        fs::create_dir_all(&place).map_err(|error| fault(&place, &error))?;
    }
    let (mut pixels, mut left_out) = (vec![0.0; channels * height * width], Vec::new());
    for index in 0..source.len() {
        let class = match source.read(index, &mut pixels) {
            Ok(class) => class,
            Err(problem) => {
                left_out.push(problem.to_string());
                continue;
            }
        };
        let place = unfinished.join(format!("{class:0of_class$}")).join(format!("{index:0of_index$}.jpg"));
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, quality)
            .encode(&interleaved(&pixels, channels), width as u32, height as u32, colour)
            .map_err(|error| fault(&place, &error))?;
        fs::write(&place, file).map_err(|error| fault(&place, &error))?;
    }
    if left_out.len() == source.len() {
        return Err(Error::failed("no image can be read"));
    }
    fs::rename(&unfinished, folder).map_err(|error| fault(folder, &error))?;
    Ok(left_out)
}

/// Planes of values from 0 to 1, [C, H, W], as bytes pixel by pixel, [H, W, C].
fn interleaved(planes: &[f32], channels: usize) -> Vec<u8> {
    let pixels = planes.len() / channels;
    let byte = |at: usize| (255.0 * planes[at % channels * pixels + at / channels]).round().clamp(0.0, 255.0) as u8;
    (0..planes.len()).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::images::ImageFolder;
    use crate::data::images::decode::Form;
    use crate::data::{Subset, Synthetic};

    #[test]
    fn a_folder_of_files_holds_the_same_images_and_classes() {
        let dir = tempfile::tempdir().unwrap();
        for channels in [1, 3] {
            let source = Synthetic::new(3, 200, [channels, 16, 16], 11, Subset::Train).unwrap();
            let root = dir.path().join(channels.to_string());
            // What an earlier try that was ended has left.
            fs::create_dir_all(root.join(".train.part/0")).unwrap();
            fs::write(root.join(".train.part/0/x.jpg"), "x").unwrap();
            assert!(write(&source, &root.join("train"), 100).unwrap().is_empty());
            assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
            let folder = ImageFolder::open(&root, Subset::Train, 0, Form { channels, side: 16 }).unwrap();
            assert_eq!((folder.len(), folder.classes()), (200, 11));
            let read = |source: &dyn Source, index: usize| {
                let mut pixels = vec![0.0; channels * 256];
                let class = source.read(index, &mut pixels).unwrap();
                (class, pixels)
            };
            // The folder lists class by class, and in each by number.
            let mut order: Vec<usize> = (0..200).collect();
            order.sort_by_key(|&index| (read(&source, index).0, index));
            for (listed, index) in order.into_iter().enumerate() {
                let ((class, found), (expected_class, expected)) = (read(&folder, listed), read(&source, index));
                assert_eq!(class, expected_class);
                let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum::<f32>() / found.len() as f32;
                assert!(apart < 0.03, "{apart}");
            }
            let again = write(&source, &root.join("train"), 100).unwrap_err();
            assert_eq!(again.exit_code(), 2);
            assert!(again.to_string().ends_with("train is there already; name a new folder"), "{again}");
        }
        let many = Synthetic::new(3, 2, [2, 16, 16], 2, Subset::Train).unwrap();
        let refused = write(&many, &dir.path().join("two"), 90).unwrap_err();
        assert_eq!(refused.to_string(), "the images have 2 channels, and JPEG files have 1 or 3");
    }

    #[test]
    fn an_image_that_cannot_be_read_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let source = Synthetic::new(3, 20, [1, 16, 16], 2, Subset::Train).unwrap();
        write(&source, &dir.path().join("train"), 100).unwrap();
        let first = fs::read_dir(dir.path().join("train/0")).unwrap().next().unwrap().unwrap().path();
        fs::write(&first, "no image").unwrap();
        let form = Form { channels: 1, side: 16 };
        let folder = ImageFolder::open(dir.path(), Subset::Train, 0, form).unwrap();
        let left_out = write(&folder, &dir.path().join("again"), 100).unwrap();
        assert_eq!(left_out, [format!("{}: is neither a JPEG nor a PNG image", first.display())]);
        let files = |class: &str| fs::read_dir(dir.path().join("again").join(class)).unwrap().count();
        assert_eq!(files("0") + files("1"), 19);
    }
}
