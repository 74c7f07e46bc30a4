//! The lanes of a picture: which devices it shows, and the towers on each.

use crate::model::towers::towers;
use crate::model::{Kind, Model};
use crate::plan::{Mesh, Mode, Plan, plan};

/// The most devices that are told apart; of more, one group of the data axis stands for all.
pub const MOST_DEVICES: usize = 8;
/// The most towers that a device's lane is divided into.
const MOST_TOWERS: usize = 4;

/// How many ranks a picture shows: all of them, or those of the first group of the data axis.
pub fn shown(mesh: Mesh) -> usize {
    if mesh.ranks() <= MOST_DEVICES { mesh.ranks() } else { mesh.model }
}

/// What a picture shows in place of a plan that leaves each device the whole network, if the network has towers: the same
/// network with one tower in each rank of the model axis. `None` too where a layer has fewer channels than there are towers.
pub fn by_towers(whole: &Plan) -> Option<Plan> {
    let count = towers_of(&whole.model);
    if whole.mesh.model > 1 || !(2..=MOST_TOWERS).contains(&count) {
        return None;
    }
    plan(&whole.model, Mesh { data: whole.mesh.data, model: count }, Mode::ModelParallel).ok()
}

/// The number of towers of a network: of its first convolution's kernels.
fn towers_of(model: &Model) -> usize {
    let first = model.layers.iter().position(|layer| matches!(layer.kind, Kind::Conv(_)));
    first.map_or(1, |layer| towers(model, layer).len())
}
