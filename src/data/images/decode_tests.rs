//! Files as they lie in real folders: of each kind that is read, and of each that cannot be.

use super::*;
use image::codecs::jpeg::JpegEncoder;
use image::{GrayImage, ImageEncoder, Luma, Rgb, RgbImage, Rgba, RgbaImage};

const COLOUR: Form = Form { channels: 3, side: 16 };
const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// Red on the left and blue on the right.
fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| Rgb(if x < width / 2 { RED } else { BLUE }))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    // A TIFF header and one entry: the tag of the orientation, one 16-bit number.
    let entry = [0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
    encoder.set_exif_metadata([&b"MM\0\x2a\0\0\0\x08"[..], &entry].concat()).unwrap();
    encoder.encode_image(image).unwrap();
    bytes
}

/// The pixel at a row and a column.
fn pixel(planes: &[u8], form: Form, row: usize, column: usize) -> Vec<u8> {
    planes.iter().skip(row * form.side + column).step_by(form.side * form.side).copied().collect()
}

#[track_caller]
fn near(planes: &[u8], form: Form, row: usize, column: usize, expected: &[u8]) {
    let found = pixel(planes, form, row, column);
    let apart = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(found.len() == expected.len() && apart < 12, "{found:?} at {row}, {column} in place of {expected:?}");
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes, COLOUR).unwrap_err().to_string()
}

#[test]
fn jpeg_and_png_are_decoded_to_planes_of_red_green_and_blue() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let planes = decode(&encoded(halves(16, 16), format), COLOUR).unwrap();
        assert_eq!(planes.len(), 3 * 16 * 16);
        near(&planes, COLOUR, 8, 2, &RED);
        near(&planes, COLOUR, 8, 13, &BLUE);
    }
}

#[test]
fn an_image_of_the_size_asked_for_is_taken_as_it_is() {
    let image = RgbImage::from_fn(16, 16, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]));
    let planes = decode(&encoded(image, ImageFormat::Png), COLOUR).unwrap();
    for (row, column) in [(0, 0), (3, 5), (15, 15), (15, 0)] {
        assert_eq!(pixel(&planes, COLOUR, row, column), [column as u8, row as u8, (row * column) as u8]);
    }
}

#[test]
fn the_centre_of_a_long_image_is_kept_at_the_scale_of_its_shorter_side() {
    // Green outside of the middle 40 columns of 120, and of the middle 40 rows.
    for (width, height) in [(120, 40), (40, 120)] {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let across = if width > height { x } else { y };
            Rgb(match across {
                40..60 => RED,
                60..80 => BLUE,
                _ => [0, 255, 0],
            })
        });
        let planes = decode(&encoded(image, ImageFormat::Png), COLOUR).unwrap();
        for at in 0..16 {
            let found = |across| {
                if width > height { pixel(&planes, COLOUR, at, across) } else { pixel(&planes, COLOUR, across, at) }
            };
            assert_eq!((found(1), found(14)), (RED.to_vec(), BLUE.to_vec()));
        }
    }
}

#[test]
fn what_is_made_smaller_has_no_aliases() {
    // Columns in turn black and white, 8 to a pixel of the result: without a filter all would be of one colour.
    let stripes = GrayImage::from_fn(128, 128, |x, _| Luma([if x % 2 == 0 { 0 } else { 255 }]));
    let form = Form { channels: 1, side: 16 };
    for value in decode(&encoded(stripes, ImageFormat::Png), form).unwrap() {
        assert!((120..=135).contains(&value), "{value}");
    }
}

#[test]
fn grey_becomes_colour_and_colour_becomes_grey() {
    let grey = encoded(GrayImage::from_pixel(9, 9, Luma([77])), ImageFormat::Png);
    assert_eq!(decode(&grey, COLOUR).unwrap(), vec![77; 3 * 256]);
    let form = Form { channels: 1, side: 16 };
    assert_eq!(decode(&grey, form).unwrap(), vec![77; 256]);
    let planes = decode(&encoded(halves(16, 16), ImageFormat::Png), form).unwrap();
    // 0.299 and 0.114 of 255.
    assert_eq!((pixel(&planes, form, 8, 2), pixel(&planes, form, 8, 13)), (vec![76], vec![29]));
    let jpeg = encoded(GrayImage::from_pixel(9, 9, Luma([77])), ImageFormat::Jpeg);
    near(&decode(&jpeg, COLOUR).unwrap(), COLOUR, 5, 5, &[77; 3]);
}

#[test]
fn sixteen_bits_are_rounded_to_eight_and_transparency_is_left_out() {
    let deep = image::ImageBuffer::from_pixel(8, 8, Rgb([0xffff_u16, 0x8080, 0x00ff]));
    let planes = decode(&encoded(deep, ImageFormat::Png), COLOUR).unwrap();
    assert_eq!(pixel(&planes, COLOUR, 3, 3), [255, 128, 1]);
    let clear = RgbaImage::from_pixel(8, 8, Rgba([10, 20, 30, 0]));
    assert_eq!(pixel(&decode(&encoded(clear, ImageFormat::Png), COLOUR).unwrap(), COLOUR, 3, 3), [10, 20, 30]);
}

#[test]
fn cmyk_and_progressive_jpeg_are_decoded() {
    for bytes in [&include_bytes!("samples/cmyk.jpg")[..], include_bytes!("samples/progressive.jpg")] {
        let planes = decode(bytes, COLOUR).unwrap();
        near(&planes, COLOUR, 8, 3, &RED);
        near(&planes, COLOUR, 8, 12, &BLUE);
    }
}

#[test]
fn each_orientation_of_exif_is_turned_upright() {
    // Red, green, blue, grey from the upper left on, as a person would see it.
    const CORNERS: [[u8; 3]; 4] = [RED, [0, 255, 0], BLUE, [90; 3]];
    // Which corner of the picture lies in the upper left, upper right, lower left and lower right of the file.
    for (orientation, stored) in [
        (1, [0, 1, 2, 3]),
        (2, [1, 0, 3, 2]),
        (3, [3, 2, 1, 0]),
        (4, [2, 3, 0, 1]),
        (5, [0, 2, 1, 3]),
        (6, [1, 3, 0, 2]),
        (7, [3, 1, 2, 0]),
        (8, [2, 0, 3, 1]),
    ] {
        let image = RgbImage::from_fn(48, 32, |x, y| {
            let corner = usize::from(x >= 24) + 2 * usize::from(y >= 16);
            Rgb(CORNERS[stored[corner]])
        });
        let planes = decode(&jpeg(&image, orientation), COLOUR).unwrap();
        for (corner, (row, column)) in [(2, 2), (2, 13), (13, 2), (13, 13)].into_iter().enumerate() {
            near(&planes, COLOUR, row, column, &CORNERS[corner]);
        }
    }
}

#[test]
fn what_is_no_whole_image_is_refused_with_its_reason() {
    assert_eq!(refusal(b""), "is empty");
    assert_eq!(refusal(b"GIF89a\x01\x00\x01\x00"), "is a Gif image, and neither JPEG nor PNG");
    assert_eq!(refusal(b"<html>not found</html>"), "is neither a JPEG nor a PNG image");
    assert_eq!(refusal(b"\xff\xd8\xff"), "is truncated");
    let noise = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 37 + y * 91) as u8, (x * y) as u8, (x ^ y) as u8]));
    for bytes in [encoded(noise.clone(), ImageFormat::Jpeg), encoded(noise, ImageFormat::Png)] {
        assert_eq!(refusal(&bytes[..bytes.len() / 2]), "is truncated");
        assert!(decode(&bytes, COLOUR).is_ok());
    }
}

#[test]
fn a_truncated_picture_with_a_whole_thumbnail_is_refused() {
    let thumbnail = encoded(halves(16, 16), ImageFormat::Jpeg);
    let picture = encoded(halves(64, 64), ImageFormat::Jpeg);
    let length = (thumbnail.len() as u16 + 2).to_be_bytes();
    let whole = [&picture[..2], &[0xff, 0xe5], &length, &thumbnail, &picture[2..]].concat();
    assert!(decode(&whole, COLOUR).is_ok());
    assert_eq!(refusal(&whole[..whole.len() - 40]), "is truncated");
}

#[test]
fn a_huge_image_is_refused_by_its_header() {
    // The header of a PNG file of 60000 x 60000 pixels, and nothing else.
    let mut png = encoded(halves(1, 1), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let checksum = crc32fast::hash(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    assert_eq!(refusal(&png), "has 60000 x 60000 pixels, and 1 to 100000000 are allowed");
}
