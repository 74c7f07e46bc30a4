//! Making a pack of another data set.

use super::format;
use crate::data::cores::on_all_cores;
use crate::data::images::decode::to_values;
use crate::data::source::Source;
use crate::error::{Error, Result};
use crate::file;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Images that are decoded at a time.
const AT_ONCE: usize = 256;
/// Bytes for the header beside those for the names of the classes, which may need several each.
const HEADER: usize = 4096;

/// What came of it.
#[derive(Debug, Default)]
pub struct Packed {
    /// How many images of the training and of the test set it has.
    pub counts: [usize; 2],
    /// The bytes of the file.
    pub bytes: u64,
    /// Why other images are not in it.
    pub left_out: Vec<String>,
}

/// The images of a subset that were packed.
#[derive(Default)]
struct Written {
    labels: Vec<i64>,
    checksums: Vec<u32>,
}

/// Writes the images of a training and of a test set to `path`, which has all of them or is not there. `names` are those of the
/// classes, if they are known. After each few images `go_on` is told how many were read; its error ends the work.
///
/// # Errors
/// The file cannot be written, the two sets have images of different shapes, a set has no image that can be read or pixels that
/// are no bytes, or `go_on` says so.
pub fn write(
    path: &Path,
    sources: [&dyn Source; 2],
    names: &[String],
    go_on: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Packed> {
    let [train, test] = sources;
    if train.shape() != test.shape() {
        return Err(Error::usage("the images of the training and of the test set have different shapes"));
    }
    let said: usize = names.iter().map(|name| 8 + 6 * name.len()).sum();
    let start = (HEADER + said).next_multiple_of(8);
    let most = start + format::INDEX_BYTES * (train.len() + test.len());
    file::whole_or_not(path, |unfinished| {
        let failed = |error: io::Error| Error::failed(error.to_string());
        let mut out = file::anew(unfinished).map_err(failed)?;
        // Images first, where they would begin if all of them could be read. Then it is known what stands before them.
        out.seek(SeekFrom::Start(most as u64)).map_err(failed)?;
        let (mut packed, mut read) = (Packed::default(), 0);
        let [train, test] = sources;
        let mut add = |source| {
            let mut tell = |images| {
                read += images;
                go_on(read)
            };
            add(&mut out, source, &mut packed.left_out, &mut tell)
        };
        let (train, test) = (add(train)?, add(test)?);
        packed.counts = [train.labels.len(), test.labels.len()];
        if packed.counts.contains(&0) {
            return Err(Error::failed("a set has no image that can be read"));
        }
        let index = format::index([(&train.labels, &train.checksums), (&test.labels, &test.checksums)]);
        let classes = sources.map(Source::classes).into_iter().max().unwrap_or_default().max(names.len());
        let shape = sources[0].shape();
        let head = format::head(packed.counts, shape, (classes, names.to_vec()), &index, most - index.len());
        packed.bytes = out.stream_position().map_err(failed)?;
        out.rewind().map_err(failed)?;
        out.write_all(&head.map_err(failed)?).and_then(|()| out.write_all(&index)).map_err(failed)?;
        Ok(packed)
    })
}

/// An image as bytes, and its class.
type Image = (i64, Vec<u8>);

/// Adds the images of a set to a file, each decoded by one core or another, in their order.
fn add(
    out: &mut File,
    source: &dyn Source,
    left_out: &mut Vec<String>,
    tell: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Written> {
    let mut written = Written::default();
    for begin in (0..source.len()).step_by(AT_ONCE) {
        let count = AT_ONCE.min(source.len() - begin);
        for found in on_all_cores(count, |at| read(source, begin + at)) {
            match found? {
                Ok((label, image)) => {
                    out.write_all(&image).map_err(|error| Error::failed(error.to_string()))?;
                    written.labels.push(label);
                    written.checksums.push(crc32fast::hash(&image));
                }
                Err(problem) => left_out.push(problem.to_string()),
            }
        }
        tell(count)?;
    }
    Ok(written)
}

/// An image, or why there is none.
///
/// # Errors
/// It has pixels that are no bytes.
fn read(source: &dyn Source, index: usize) -> Result<Result<Image>> {
    let mut values = vec![0.0; source.shape().iter().product()];
    let label = match source.read(index, &mut values) {
        Ok(label) => label,
        Err(problem) => return Ok(Err(problem)),
    };
    let bytes: Vec<u8> = values.iter().map(|value| (value * 255.0).round() as u8).collect();
    let mut back = vec![0.0; values.len()];
    to_values(&bytes, &mut back);
    if back != values {
        return Err(Error::usage("its pixels are no bytes; packs are of data sets in files"));
    }
    Ok(Ok((label, bytes)))
}
