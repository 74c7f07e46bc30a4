//! One file in the idx format of the MNIST database (Y. LeCun, C. Cortes and C. Burges): two zero bytes, the element
//! type, the number of dimensions, each dimension as a big-endian 32-bit number, then the elements. Plain or gzip:
//! what the file begins with decides, not its name.

use super::names::unreadable;
use crate::error::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// The most elements that are read into memory: far above any data set that people keep in this format, and low
/// enough that a damaged header does not take the machine's memory.
const MOST_BYTES: u64 = 4 << 30;

/// What a file is expected to hold. Both hold unsigned bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Images, [N, H, W].
    Images,
    /// Labels, `[N]`.
    Labels,
}

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxFile {
    /// The size of each dimension: all at least 1.
    pub dimensions: Vec<usize>,
    /// The elements, the last dimension fastest.
    pub bytes: Vec<u8>,
}

impl Content {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Images => [0, 0, 8, 3],
            Self::Labels => [0, 0, 8, 1],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Images => "an idx3 file of images",
            Self::Labels => "an idx1 file of labels",
        }
    }
}

impl IdxFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A usage error that names the file where it cannot be read, is damaged (gzip, magic, header, length), holds
    /// something else than `content`, or is empty. No more memory is taken than the file has content.
    pub fn read(path: &Path, content: Content) -> Result<Self> {
        let unreadable = |error| unreadable(path, &error);
        // Asked before opening: to open a pipe would wait for its writer.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(damaged(path, "is not a file"));
        }
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        let gzip = file.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Self::parse(reader, content).map_err(|problem| problem.into_error(path, gzip))
    }

    fn parse(mut reader: impl Read, content: Content) -> Result<Self, Problem> {
        check_magic(take(&mut reader, 4)?, content)?;
        let [.., dimensions] = content.magic();
        let header = take(&mut reader, 4 * u64::from(dimensions))?;
        if header.len() < 4 * usize::from(dimensions) {
            return Err(Problem::Content("is cut short inside its header".into()));
        }
        let dimensions: Vec<u64> = header
            .chunks_exact(4)
            .map(|size| size.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
            .collect();
        let announced = announced_bytes(&dimensions)?;
        // One byte more than there should be: whatever a damaged or hostile file goes on with is not read.
        let bytes = take(&mut reader, announced + 1)?;
        let (problem, found) = match (bytes.len() as u64).cmp(&announced) {
            Ordering::Equal => {
                return Ok(Self { dimensions: dimensions.iter().map(|&size| size as usize).collect(), bytes });
            }
            Ordering::Less => ("cut short", bytes.len().to_string()),
            Ordering::Greater => ("too long", "more".into()),
        };
        Err(Problem::Content(format!(
            "is {problem}: its header announces {} = {announced} bytes and {found} follow",
            product(&dimensions)
        )))
    }
}

/// What is wrong with a file whose path the parser does not know.
enum Problem {
    Io(io::Error),
    /// The end of a sentence that begins with the path.
    Content(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Problem {
    fn into_error(self, path: &Path, gzip: bool) -> Error {
        match self {
            // What the decoder finds wrong with the content, as opposed to the system's failures to read.
            Self::Io(error)
                if gzip
                    && matches!(
                        error.kind(),
                        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
                    ) =>
            {
                damaged(path, &format!("is a corrupt gzip file ({error})"))
            }
            Self::Io(error) => unreadable(path, &error),
            Self::Content(problem) => damaged(path, &problem),
        }
    }
}

/// The error for a file that is there and of no use: `problem` ends a sentence that begins with the path.
pub fn damaged(path: &Path, problem: &str) -> Error {
    Error::usage(format!(
        "{} {problem}; replace it with a sound copy (`scripts/mpt train` fetches Fashion-MNIST where it is missing) or \
         name another folder with --data-dir",
        path.display()
    ))
}

/// Reads `length` bytes, or as many as there are; memory grows with what is read and not with `length`.
fn take(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_magic(found: Vec<u8>, content: Content) -> Result<(), Problem> {
    let expected = content.magic();
    let kind = match found[..] {
        [] => return Err(Problem::Content("is empty".into())),
        _ if found == expected => return Ok(()),
        _ if found == Content::Images.magic() => Content::Images.name(),
        _ if found == Content::Labels.magic() => Content::Labels.name(),
        [0, 0, 0x08..=0x0e, _] => "an idx file of another element type or number of dimensions",
        _ => "no idx file",
    };
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Err(Problem::Content(format!(
        "is {kind} (it begins with 0x{}) where {} (0x{}) was expected",
        hexadecimal(&found),
        content.name(),
        hexadecimal(&expected)
    )))
}

/// How many elements a header announces.
fn announced_bytes(dimensions: &[u64]) -> Result<u64, Problem> {
    if dimensions[0] == 0 {
        return Err(Problem::Content("holds no examples".into()));
    }
    match dimensions.iter().try_fold(1u64, |product, &size| product.checked_mul(size)) {
        Some(0) => Err(Problem::Content(format!("holds images without pixels ({})", product(dimensions)))),
        Some(bytes) if bytes <= MOST_BYTES => Ok(bytes),
        _ => Err(Problem::Content(format!(
            "announces {} bytes, more than the {} GiB that mpt reads into memory",
            product(dimensions),
            MOST_BYTES >> 30
        ))),
    }
}

/// "60000 x 28 x 28"
fn product(dimensions: &[u64]) -> String {
    dimensions.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    /// An idx file of unsigned bytes.
    pub fn idx(dimensions: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, dimensions.len() as u8];
        file.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        file.extend(bytes);
        file
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads a file with this content as `expected`.
    fn read(file: &[u8], expected: Content) -> Result<IdxFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, file).unwrap();
        IdxFile::read(&path, expected)
    }

    /// Asserts that the file is refused with a usage error that begins with its path and `problem` and says what to do.
    fn refused(file: &[u8], expected: Content, problem: &str) {
        let error = read(file, expected).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(message.contains(&format!("/file {problem}")), "{message}");
        let advice = "; replace it with a sound copy (`scripts/mpt train` fetches Fashion-MNIST where it is missing) or \
                      name another folder with --data-dir";
        assert!(message.ends_with(advice), "{message}");
    }

    fn two_images() -> Vec<u8> {
        idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6])
    }

    #[test]
    fn plain_and_gzip_files_are_told_apart_by_content() {
        let expected = IdxFile { dimensions: vec![2, 1, 3], bytes: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(read(&two_images(), Content::Images).unwrap(), expected);
        assert_eq!(read(&gzip(&two_images()), Content::Images).unwrap(), expected);
        assert_eq!(read(&idx(&[2], &[7, 8]), Content::Labels).unwrap().bytes, [7, 8]);
    }

    #[test]
    fn a_file_that_is_cut_short_says_how_much_is_there() {
        let whole = two_images();
        let problem = "is cut short: its header announces 2 x 1 x 3 = 6 bytes and 5 follow; ";
        refused(&whole[..whole.len() - 1], Content::Images, problem);
        refused(&gzip(&whole[..whole.len() - 1]), Content::Images, problem);
        refused(&whole[..10], Content::Images, "is cut short inside its header; ");
        refused(&[], Content::Images, "is empty; ");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_its_surplus_not_read() {
        let surplus = [two_images(), vec![0; 1 << 20]].concat();
        let problem = "is too long: its header announces 2 x 1 x 3 = 6 bytes and more follow; ";
        refused(&surplus, Content::Images, problem);
        refused(&gzip(&surplus), Content::Images, problem);
        let mut endless = io::Cursor::new(two_images()).chain(io::repeat(0)).take(1 << 20);
        assert!(IdxFile::parse(&mut endless, Content::Images).is_err());
        assert_eq!((1 << 20) - endless.limit(), two_images().len() as u64 + 1);
    }

    #[test]
    fn a_wrong_magic_says_what_was_found() {
        let (images, labels) = (two_images(), idx(&[2], &[7, 8]));
        let of_labels = "is an idx1 file of labels (it begins with 0x00000801) where an idx3 file of images \
                         (0x00000803) was expected; ";
        refused(&labels, Content::Images, of_labels);
        refused(&gzip(&labels), Content::Images, of_labels);
        refused(&images, Content::Labels, "is an idx3 file of images (it begins with 0x00000803) where an idx1 file");
        refused(
            &[0, 0, 13, 3, 0],
            Content::Images,
            "is an idx file of another element type or number of dimensions (it",
        );
        refused(b"\x89PNG\r\n", Content::Images, "is no idx file (it begins with 0x89504e47) where");
        refused(&[0, 0], Content::Images, "is no idx file (it begins with 0x0000) where");
    }

    #[test]
    fn an_absurd_header_takes_no_memory() {
        let most = u32::MAX;
        // The second announces 2^33 bytes and the third 2^64, which would be 0 if it wrapped around.
        for dimensions in [[most, most, most], [1 << 20, 1 << 10, 1 << 3], [1 << 31, 1 << 31, 4]] {
            let [n, h, w] = dimensions;
            let problem = format!("announces {n} x {h} x {w} bytes, more than the 4 GiB that mpt reads into memory; ");
            refused(&idx(&dimensions, &[]), Content::Images, &problem);
            refused(&gzip(&idx(&dimensions, &[1; 100])), Content::Images, &problem);
        }
        let problem = "is cut short: its header announces 1048576 x 64 x 64 = 4294967296 bytes and 1 follow; ";
        refused(&idx(&[1 << 20, 1 << 6, 1 << 6], &[1]), Content::Images, problem);
        refused(&idx(&[2, 0, 28], &[]), Content::Images, "holds images without pixels (2 x 0 x 28); ");
    }

    #[test]
    fn an_empty_data_set_is_refused() {
        refused(&idx(&[0, 28, 28], &[]), Content::Images, "holds no examples; ");
        refused(&idx(&[0], &[]), Content::Labels, "holds no examples; ");
    }

    #[test]
    fn a_corrupt_gzip_file_is_called_that() {
        let good = gzip(&two_images());
        let mut bad_checksum = good.clone();
        let checksum = good.len() - 8;
        bad_checksum[checksum] ^= 1;
        refused(&bad_checksum, Content::Images, "is a corrupt gzip file (");
        refused(&good[..good.len() - 12], Content::Images, "is a corrupt gzip file (");
        refused(&[&good[..], b"surplus"].concat(), Content::Images, "is a corrupt gzip file (");
        refused(&good[..2], Content::Images, "is a corrupt gzip file (");
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let message = IdxFile::read(dir.path(), Content::Images).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{} is not a file; ", dir.path().display())), "{message}");
    }
}
