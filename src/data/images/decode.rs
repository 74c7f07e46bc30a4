//! An image file's bytes as a square of pixels: decoded, turned upright, its shorter side brought to the side asked for,
//! and the centre cut out.

use crate::error::{Error, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::cell::Cell;
use std::io::Cursor;
use std::mem;
use std::panic::catch_unwind;

/// The most pixels of an image file, whose size is known before memory is taken for it.
const MOST_PIXELS: u64 = 100_000_000;
/// The most bytes that a decoder may take beside the image.
const MOST_MEMORY: u64 = 1 << 30;
/// The most bytes of the memory that a thread keeps from one image to the next: a few megapixels, as photographs have.
const MOST_KEPT: usize = 16 << 20;
/// The shares of red, green and blue in grey (ITU-R BT.601, as in JPEG files), of 2^16.
const GREY: [u32; 3] = [19_595, 38_470, 7_471];

/// What is made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// 1 for grey or 3 for red, green and blue.
    pub channels: usize,
    /// Pixels of each side.
    pub side: usize,
}

impl Form {
    /// Channels, height, width.
    pub fn shape(self) -> [usize; 3] {
        [self.channels, self.side, self.side]
    }
}

/// Makes an image of this form, [C, side, side], of the bytes of a JPEG or PNG file, whatever the file is called. The shorter
/// side is brought to `side` by a triangle filter that is as wide as pixels of the result (so that what is made smaller has no
/// aliases), and the centre is cut out. Grey becomes colour and colour grey; CMYK becomes RGB; 16 bits are rounded
/// to 8; transparency is left out; the orientation that EXIF tells is followed. Colour profiles are not.
///
/// # Errors
/// The bytes are no such image, or not all of one, or one of too many pixels: says which, in words that follow its name.
pub fn decode(bytes: &[u8], form: Form) -> Result<Vec<u8>> {
    // Decoders meet whatever lies in a folder. A fault of theirs costs one image and not the run.
    let made = catch_unwind(|| {
        let mut kept = KEPT.take();
        let made = read(bytes, mem::take(&mut kept.pixels)).and_then(|image| square(image, &mut kept, form));
        KEPT.set(kept);
        made
    });
    made.unwrap_or_else(|_| Err(Error::failed("cannot be decoded: the decoder failed")))
}

/// Bytes as values from 0 to 1.
pub fn to_values(bytes: &[u8], values: &mut [f32]) {
    for (value, &byte) in values.iter_mut().zip(bytes) {
        *value = f32::from(byte) / 255.0;
    }
}

thread_local! {
    static KEPT: Cell<Kept> = Cell::default();
}

/// What a thread keeps: fresh memory for every image costs a tenth of its time.
#[derive(Default)]
struct Kept {
    pixels: Vec<u8>,
    square: Vec<u8>,
    resizer: Resizer,
}

/// An image as it is stored in its file.
struct Stored {
    width: u32,
    height: u32,
    /// Of one value each or of three.
    pixels: Vec<u8>,
    kind: PixelType,
    orientation: Orientation,
}

/// The image in a file, in this memory if it fits.
fn read(bytes: &[u8], mut pixels: Vec<u8>) -> Result<Stored> {
    if bytes.is_empty() {
        return Err(Error::failed("is empty"));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| Error::failed(format!("cannot be read: {error}")))?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if is_cut_off(bytes) => return Err(Error::failed("is truncated")),
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        Some(other) => return Err(Error::failed(format!("is a {other:?} image, and neither JPEG nor PNG"))),
        None => return Err(Error::failed("is neither a JPEG nor a PNG image")),
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    let count = u64::from(width) * u64::from(height);
    if !(1..=MOST_PIXELS).contains(&count) {
        let problem = format!("has {width} x {height} pixels, and 1 to {MOST_PIXELS} are allowed");
        return Err(Error::failed(problem));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let kind = match decoder.color_type() {
        ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16 => PixelType::U8,
        _ => PixelType::U8x3,
    };
    if let ColorType::L8 | ColorType::Rgb8 = decoder.color_type() {
        // Zeros, for a decoder may leave out what is damaged, and what was there is of another image.
        pixels.clear();
        pixels.resize(decoder.total_bytes() as usize, 0);
        decoder.read_image(&mut pixels).map_err(undecodable)?;
    } else {
        let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
        pixels = if kind == PixelType::U8 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
    }
    Ok(Stored { width, height, pixels, kind, orientation })
}

fn undecodable(error: ImageError) -> Error {
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::failed("is truncated")
        }
        error => Error::failed(format!("cannot be decoded: {error}")),
    }
}

/// Whether the picture in a JPEG file has no end: the decoder would fill in what is missing. (A picture may contain a smaller
/// one with an end of its own, in a segment before its scan.)
fn is_cut_off(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    // Behind the first marker, which has no segment.
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match *rest {
            [0xff, 0xff, ..] => rest = &rest[1..],
            [0xff, marker, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(2 + length..).unwrap_or_default();
                if marker == START_OF_SCAN {
                    return !rest.windows(2).rev().any(|pair| pair == END_OF_IMAGE);
                }
            }
            // Too short, or damaged in a way that the decoder tells better.
            _ => return rest.len() < 4,
        }
    }
}

fn square(image: Stored, kept: &mut Kept, form: Form) -> Result<Vec<u8>> {
    let Stored { width, height, pixels, kind, orientation } = image;
    let failed = |error: &dyn std::fmt::Display| Error::failed(format!("cannot be resized: {error}"));
    let from = ImageRef::new(width, height, &pixels, kind).map_err(|error| failed(&error))?;
    let (side, found) = (form.side as u32, kind.size());
    kept.square.resize(form.side * form.side * found, 0);
    let mut to = Image::from_slice_u8(side, side, &mut kept.square, kind).map_err(|error| failed(&error))?;
    // Cutting the middle of the file's image and resizing that is the same as the other way round, and less work.
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .fit_into_destination(Some((0.5, 0.5)));
    kept.resizer.resize(&from, &mut to, &options).map_err(|error| failed(&error))?;
    let square = upright(planes(&kept.square, found, form.channels), form.side, orientation);
    if pixels.capacity().max(kept.resizer.size_of_internal_buffers()) <= MOST_KEPT {
        kept.pixels = pixels;
    } else {
        *kept = Kept::default();
    }
    Ok(square)
}

/// Pixels of `found` values each, one after the other, as `wanted` planes.
fn planes(pixels: &[u8], found: usize, wanted: usize) -> Vec<u8> {
    let grey = |pixel: &[u8]| {
        let sum: u32 = pixel.iter().zip(GREY).map(|(&value, share)| u32::from(value) * share).sum();
        ((sum + (1 << 15)) >> 16) as u8
    };
    match (found, wanted) {
        (1, _) => pixels.repeat(wanted),
        (_, 1) => pixels.chunks_exact(3).map(grey).collect(),
        _ => apart(pixels),
    }
}

/// Red, green and blue, one after the other, as a plane of each.
fn apart(pixels: &[u8]) -> Vec<u8> {
    let count = pixels.len() / 3;
    let mut planes = vec![0; 3 * count];
    let (red, others) = planes.split_at_mut(count);
    let (green, blue) = others.split_at_mut(count);
    for (((pixel, red), green), blue) in pixels.chunks_exact(3).zip(red).zip(green).zip(blue) {
        (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
    }
    planes
}

/// Turns square planes as an orientation has it, which may be done last since the centre of an image stays its centre.
fn upright(mut planes: Vec<u8>, side: usize, orientation: Orientation) -> Vec<u8> {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270, Rotate270FlipH,
    };
    let last = side - 1;
    // Where the pixel at row y and column x comes from: row, column.
    let from: fn(usize, usize, usize) -> (usize, usize) = match orientation {
        NoTransforms => return planes,
        FlipHorizontal => |y, x, last| (y, last - x),
        FlipVertical => |y, x, last| (last - y, x),
        Rotate180 => |y, x, last| (last - y, last - x),
        Rotate90 => |y, x, last| (last - x, y),
        Rotate270 => |y, x, last| (x, last - y),
        Rotate90FlipH => |y, x, _| (x, y),
        Rotate270FlipH => |y, x, last| (last - x, last - y),
    };
    for plane in planes.chunks_exact_mut(side * side) {
        let stored = plane.to_vec();
        for (at, pixel) in plane.iter_mut().enumerate() {
            let (row, column) = from(at / side, at % side, last);
            *pixel = stored[row * side + column];
        }
    }
    planes
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
