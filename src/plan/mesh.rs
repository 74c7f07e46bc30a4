//! The devices as a grid: an axis `data`, along which the examples of a batch are shared out, and an axis `model`,
//! along which the channels of each layer are.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// `data * model` ranks; rank `d * model + m` is at data rank `d` and model rank `m`, so that the ranks that exchange
/// activations are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mesh {
    /// Ranks along the data axis.
    pub data: usize,
    /// Ranks along the model axis.
    pub model: usize,
}

impl Mesh {
    /// The most ranks that a mesh may have.
    pub const LARGEST: usize = 1024;

    /// The number of ranks.
    pub fn ranks(self) -> usize {
        self.data * self.model
    }

    /// The place of a rank along the data axis.
    pub fn data_rank(self, rank: usize) -> usize {
        rank / self.model
    }

    /// The place of a rank along the model axis.
    pub fn model_rank(self, rank: usize) -> usize {
        rank % self.model
    }

    /// The rank at a place on both axes.
    pub fn rank(self, data_rank: usize, model_rank: usize) -> usize {
        data_rank * self.model + model_rank
    }

    /// The ranks that hold other channels of the same examples as `rank`, itself included.
    pub fn model_group(self, rank: usize) -> Vec<usize> {
        (0..self.model).map(|model_rank| self.rank(self.data_rank(rank), model_rank)).collect()
    }

    /// The ranks that hold the same channels of other examples as `rank`, itself included.
    pub fn data_group(self, rank: usize) -> Vec<usize> {
        (0..self.data).map(|data_rank| self.rank(data_rank, self.model_rank(rank))).collect()
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.data, self.model)
    }
}

impl FromStr for Mesh {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sizes = text.split_once('x').and_then(|(data, model)| Some((data.parse().ok()?, model.parse().ok()?)));
        match sizes {
            Some((data @ 1..=Self::LARGEST, model @ 1..=Self::LARGEST)) if data * model <= Self::LARGEST => {
                Ok(Self { data, model })
            }
            _ => Err(Error::usage(format!(
                "`{text}` is no mesh; write DATAxMODEL, like 2x2, with at most {} devices in all",
                Self::LARGEST
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_run_along_the_axes() {
        let mesh: Mesh = "2x3".parse().unwrap();
        assert_eq!(mesh.model_group(4), [3, 4, 5]);
        assert_eq!(mesh.data_group(4), [1, 4]);
        assert!((0..6).all(|rank| mesh.rank(mesh.data_rank(rank), mesh.model_rank(rank)) == rank));
    }

    #[test]
    fn what_is_no_mesh_is_refused() {
        for text in ["", "2", "2x", "0x2", "x", "2x2x2", "-1x2", "99999999999999999999x1", "1024x1024"] {
            let message = text.parse::<Mesh>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{text}` is no mesh")), "{message}");
        }
    }
}
