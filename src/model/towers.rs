//! The towers of a network: the parts that the kernels of a layer fall into, because no layer reads across them at once.

use super::reads::{carries, reads};
use super::{ActivationId, Channels, Kind, Layer, LayerId, Model, Shape};
use std::collections::{BTreeMap, BTreeSet};

/// The towers of a layer's channels. Two channels are in one tower if an output channel of a layer that mixes channels, the
/// next one on some way, reads both: where AlexNet's conv2 has two groups, conv1 has two towers, though conv3 joins them
/// later. They are in the order of their first channels; where nothing tells channels apart, there is one tower.
pub fn towers(model: &Model, layer: LayerId) -> Vec<Channels> {
    let kernels = model.layers[layer].output.channels;
    let mut towers: Vec<Channels> = (0..kernels).map(|kernel| (kernel..kernel + 1).into()).collect();
    // What follows each kernel, in every activation that it reaches without being mixed with others.
    let mut followed = BTreeMap::from([(layer + 1, towers.clone())]);
    for (reader, found) in model.layers.iter().enumerate().skip(layer + 1) {
        let shapes = model.input_shapes(reader);
        for (which, input) in found.inputs.iter().enumerate() {
            let Some(followers) = followed.get(input) else { continue };
            match carried(&found.kind, &shapes, which, followers) {
                Some(carried) => follow(&mut followed, reader + 1, carried),
                None => together(found, &shapes, which).iter().for_each(|read| join(&mut towers, followers, read)),
            }
        }
    }
    if towers.iter().all(|tower| tower.len() == 1) {
        return vec![Channels::all(kernels)];
    }
    towers.sort();
    towers
}

/// What follows each kernel in the output of a layer that reads it as input `which`; `None` if the layer mixes channels.
fn carried(kind: &Kind, shapes: &[Shape], which: usize, followers: &[Channels]) -> Option<Vec<Channels>> {
    let through = |held: &Channels| match kind {
        Kind::Add => Some(held.clone()),
        // Each of its outputs reads one channel.
        Kind::Conv(conv) if conv.groups == shapes[which].channels => Some(held.scaled(conv.out_channels / conv.groups)),
        _ => carries(kind, shapes, which, held),
    };
    followers.iter().map(through).collect()
}

fn follow(followed: &mut BTreeMap<ActivationId, Vec<Channels>>, activation: ActivationId, carried: Vec<Channels>) {
    let all = followed.entry(activation).or_insert_with(|| vec![Channels::none(); carried.len()]);
    for (before, more) in all.iter_mut().zip(&carried) {
        *before = before.union(more);
    }
}

/// The sets of channels of input `which` that single outputs of a layer read.
fn together(layer: &Layer, shapes: &[Shape], which: usize) -> BTreeSet<Channels> {
    (0..layer.output.channels).map(|output| reads(&layer.kind, shapes, which, &(output..output + 1).into())).collect()
}

/// Makes one tower of all that hold a kernel of which `read` reads something.
fn join(towers: &mut Vec<Channels>, followers: &[Channels], read: &Channels) {
    let reached = |kernel: &usize| !followers[*kernel].intersection(read).is_empty();
    let kernels: Channels = (0..followers.len()).filter(reached).map(|kernel| kernel..kernel + 1).collect();
    let (joined, apart): (Vec<Channels>, Vec<Channels>) =
        towers.drain(..).partition(|tower| !tower.intersection(&kernels).is_empty());
    *towers = apart;
    towers.extend(joined.into_iter().reduce(|all, tower| all.union(&tower)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse::{Edits, parse};
    use crate::model::shipped;

    fn of_first(model: &Model) -> Vec<String> {
        towers(model, 0).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_next_layer_with_groups_makes_towers() {
        let shipped = |name: &str| of_first(&shipped::load(name, &Edits::default()).unwrap());
        assert_eq!(shipped("alexnet"), ["0..48", "48..96"]);
        assert_eq!(shipped("quick"), ["0..16", "16..32"]);
        assert_eq!(shipped("alexnet-dense"), ["0..96"]);
        // conv2 has four groups, but the shortcut reads all channels.
        assert_eq!(shipped("tiny-residual"), ["0..8"]);
        // Two 1x1 and 3x3 branches read everything.
        assert_eq!(shipped("tiny-concat"), ["0..7"]);
    }

    fn written(layers: &str) -> Vec<String> {
        let text = format!(
            "name = \"a\"\ninput = [3, 8, 8]\nlayers = [{{ kind = \"conv\", out = 8, kernel = 3 }}, {layers}, \
             {{ kind = \"flatten\" }}, {{ name = \"fc\", kind = \"linear\", out = 2 }}, {{ kind = \"softmax-cross-entropy\" }}]"
        );
        of_first(&parse(&text, "a", &Edits::default()).unwrap())
    }

    #[test]
    fn channels_are_followed_to_where_they_are_mixed() {
        let groups =
            |out: usize, groups: usize| format!("{{ kind = \"conv\", out = {out}, kernel = 1, groups = {groups} }}");
        assert_eq!(written(&groups(4, 4)), ["0..2", "2..4", "4..6", "6..8"]);
        // Depthwise layers mix nothing: what comes after them tells.
        assert_eq!(written(&format!("{}, {}", groups(16, 8), groups(4, 2))), ["0..4", "4..8"]);
        // The linear layer reads all.
        assert_eq!(written("{ kind = \"relu\" }"), ["0..8"]);
        let concatenated = "{ name = \"r\", kind = \"relu\" }, { name = \"t\", kind = \"tanh\", inputs = [\"conv1\"] }, \
                            { name = \"j\", kind = \"concat\", inputs = [\"r\", \"t\"] }";
        // Each kernel comes twice, in another half: groups of a quarter read 0..4 and 4..8 of both.
        assert_eq!(written(&format!("{concatenated}, {}", groups(4, 4))), ["0..4", "4..8"]);
    }
}
