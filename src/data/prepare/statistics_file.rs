//! The file in which `mpt data stats` leaves what it found.

use super::statistics::{MeanImage, Statistics};
use crate::error::{Error, Result};
use crate::file;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// The most bytes of such a file: a mean image has as many values as an image.
const MOST_BYTES: u64 = 1 << 30;

impl Statistics {
    /// Writes them to a file, in the format safetensors: `mean` and `deviation` `[C]`, `mean_image` `[C, H, W]`, `colours` `[3, 3]`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let fault =
            |problem: &dyn std::fmt::Display| Error::failed(format!("{} cannot be written: {problem}", path.display()));
        let mut tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = vec![
            ("mean", vec![self.mean.len()], bytes(&self.mean)),
            ("deviation", vec![self.deviation.len()], bytes(&self.deviation)),
        ];
        if let Some(MeanImage { shape, pixels }) = &self.image {
            tensors.push(("mean_image", shape.to_vec(), bytes(pixels)));
        }
        if let Some(colours) = &self.colours {
            let values: Vec<f32> = colours.as_flattened().iter().map(|&value| value as f32).collect();
            tensors.push(("colours", vec![3, 3], bytes(&values)));
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|error| fault(&error))?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let about = HashMap::from([("format".to_owned(), "mpt data stats".to_owned())]);
        let content = serialize(views, Some(about.into_iter().collect())).map_err(|error| fault(&error))?;
        file::whole_or_not(path, |unfinished| {
            let written = file::anew(unfinished).and_then(|mut out| out.write_all(&content));
            written.map_err(|error| Error::failed(error.to_string()))
        })
    }

    /// Those that a file holds.
    ///
    /// # Errors
    /// A usage error where it cannot be read or was not written by [`Statistics::write`].
    pub fn read(path: &Path) -> Result<Self> {
        let fault = |problem: &dyn std::fmt::Display| {
            let remedy = "data.statistics is to name a file that `mpt data stats` wrote";
            Error::usage(format!("{}: {problem}; {remedy}", path.display()))
        };
        let file = file::bytes_up_to(path, MOST_BYTES).map_err(|error| fault(&error))?;
        let tensors = SafeTensors::deserialize(&file).map_err(|error| fault(&error))?;
        let read = |name: &str| -> Result<Option<(Vec<usize>, Vec<f32>)>> {
            let Ok(tensor) = tensors.tensor(name) else { return Ok(None) };
            let values: Vec<f32> = tensor
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect();
            if tensor.dtype() != Dtype::F32 || values.iter().any(|value| !value.is_finite()) {
                return Err(fault(&format!("{name} is not of finite numbers in fp32")));
            }
            Ok(Some((tensor.shape().to_vec(), values)))
        };
        let required = |name: &str| read(name)?.ok_or_else(|| fault(&format!("it has no {name}")));
        let (mean, deviation) = (required("mean")?.1, required("deviation")?.1);
        let image = match read("mean_image")? {
            None => None,
            Some((shape, pixels)) => match shape[..] {
                [channels, height, width] if channels == mean.len() => {
                    Some(MeanImage { shape: [channels, height, width], pixels })
                }
                _ => return Err(fault(&"mean_image does not go with mean")),
            },
        };
        let colours = match read("colours")? {
            None => None,
            Some((shape, values)) if shape == [3, 3] && mean.len() == 3 => {
                Some(std::array::from_fn(|axis| std::array::from_fn(|part| f64::from(values[3 * axis + part]))))
            }
            Some(_) => return Err(fault(&"colours are not three axes of three channels")),
        };
        if mean.is_empty() || deviation.len() != mean.len() {
            return Err(fault(&"mean and deviation do not go together"));
        }
        Ok(Self { mean, deviation, image, colours })
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::statistics::tests::Spread;
    use super::*;
    use std::fs;

    #[test]
    fn a_file_gives_back_what_was_written_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.safetensors");
        let written = Statistics::of(&Spread).unwrap().0;
        written.write(&path).unwrap();
        let read = Statistics::read(&path).unwrap();
        assert_eq!((&read.mean, &read.deviation, &read.image), (&written.mean, &written.deviation, &written.image));
        let (found, expected) = (read.colours.unwrap(), written.colours.unwrap());
        let parts = found.as_flattened().iter().zip(expected.as_flattened());
        let apart = parts.map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f64::max) < 1e-6);
        let refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let error = Statistics::read(&path).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let whole = fs::read(&path).unwrap();
        for length in [0, 7, 8, 100, whole.len() - 1] {
            let message = refused(&whole[..length]);
            assert!(message.ends_with("; data.statistics is to name a file that `mpt data stats` wrote"), "{message}");
        }
        let nan = Statistics { mean: vec![f32::NAN], ..written };
        nan.write(&path).unwrap();
        assert!(Statistics::read(&path).unwrap_err().to_string().contains("mean is not of finite numbers in fp32"));
    }
}
