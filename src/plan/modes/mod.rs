//! A mode decides one thing: how the weights of each layer lie over the model axis. One file a mode.

mod data_parallel;
mod model_parallel;

use super::{Mesh, Weights};
use crate::error::{Error, Result};
use crate::keys::one_of;
use crate::model::{LayerId, Model};
use std::fmt;
use std::str::FromStr;

/// How the devices share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One device does everything.
    Single,
    /// Each device trains the whole network on its share of the batch.
    DataParallel,
    /// Each device computes its share of every layer's channels; with a data axis, on its share of the batch.
    ModelParallel,
}

impl Mode {
    /// Every mode, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Single, Self::DataParallel, Self::ModelParallel];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::DataParallel => "data-parallel",
            Self::ModelParallel => "model-parallel",
        }
    }

    /// The mesh of this mode over a number of devices, where none was asked for.
    ///
    /// # Errors
    /// `single` on several devices.
    pub fn mesh(self, devices: usize) -> Result<Mesh> {
        let mesh = match self {
            Self::Single | Self::DataParallel => Mesh { data: devices, model: 1 },
            Self::ModelParallel => Mesh { data: 1, model: devices },
        };
        self.check(mesh).map(|()| mesh)
    }

    /// Whether the mode can use a mesh.
    ///
    /// # Errors
    /// Says what the mode needs.
    pub fn check(self, mesh: Mesh) -> Result<()> {
        let needs = match self {
            Self::Single if mesh.ranks() != 1 => "uses one device",
            Self::DataParallel if mesh.model != 1 => "has a model axis of 1 (use model-parallel with --mesh for both)",
            _ => return Ok(()),
        };
        let ranks = mesh.ranks();
        Err(Error::usage(format!("mode {self} {needs}, but the mesh is {mesh}: {ranks} devices")))
    }

    /// How the weights of a layer lie over the model axis.
    pub(super) fn weights(self, model: &Model, layer: LayerId) -> Weights {
        if !model.layers[layer].kind.has_weights() {
            return Weights::None;
        }
        match self {
            Self::Single | Self::DataParallel => data_parallel::weights(),
            Self::ModelParallel => model_parallel::weights(model, layer),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        one_of("mode", text, Self::ALL, Self::name)
    }
}
