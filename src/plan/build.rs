//! From a model, a mesh and a mode to the placement of every activation and to every exchange.

use super::{Adjoint, Exchange, LayerPlan, Mesh, Mode, Placement, Plan, Read, Weights};
use crate::error::{Error, Result};
use crate::model::ranges::shares;
use crate::model::reads::{carries, reads};
use crate::model::{Channels, Kind, LayerId, Model};

/// The most pieces in which the channels of an activation may lie over all devices: an exchange looks at each of them. Joins of
/// joins would make ever more.
const MOST_PIECES: usize = 1 << 14;

/// Lays a model out over a mesh. A pure function: the same arguments give the same plan on every rank.
///
/// # Errors
/// The mode cannot use the mesh, or a layer has fewer channels than the model axis has ranks.
pub fn plan(model: &Model, mesh: Mesh, mode: Mode) -> Result<Plan> {
    mode.check(mesh)?;
    let mut plan = Plan {
        model: model.clone(),
        mesh,
        mode,
        placements: vec![Placement::Replicated],
        layers: Vec::with_capacity(model.layers.len()),
        exchanges: Vec::new(),
    };
    for layer in 0..model.layers.len() {
        plan.push(layer)?;
    }
    Ok(plan)
}

impl Plan {
    fn push(&mut self, layer: LayerId) -> Result<()> {
        let (ranks, inputs) = (self.mesh.model, self.model.layers[layer].inputs.clone());
        let kind = self.model.layers[layer].kind.clone();
        let channels = self.model.layers[layer].output.channels;
        let everything = || vec![Channels::all(channels); ranks];
        let weights = self.mode.weights(&self.model, layer);
        let (placement, outputs) = match weights {
            Weights::None if kind == Kind::SoftmaxCrossEntropy => (Placement::Replicated, everything()),
            Weights::None => self.carried(layer)?,
            Weights::Replicated => (Placement::Replicated, everything()),
            Weights::OutputSplit => {
                let shares = self.shares(layer, channels, "output channels")?;
                (Placement::Shard(shares.clone()), shares)
            }
            Weights::InputSplit => (Placement::Partial, everything()),
        };
        let mut planned = LayerPlan { weights, outputs, reads: Vec::new(), sources: Vec::new() };
        let shapes = self.model.input_shapes(layer);
        for (which, &input) in inputs.iter().enumerate() {
            let needed = match (weights, &self.placements[input]) {
                (Weights::InputSplit, Placement::Shard(owned)) => owned.clone(),
                (Weights::InputSplit, _) => self.shares(layer, shapes[which].channels, "input features")?,
                _ => planned.outputs.iter().map(|out| reads(&kind, &shapes, which, out)).collect(),
            };
            planned.sources.push(self.source(layer, input, &needed, &placement));
            planned.reads.push(needed);
        }
        self.placements.push(placement);
        self.layers.push(planned);
        Ok(())
    }

    /// Balanced shares of a layer's channels, one for each rank of the model axis.
    fn shares(&self, layer: LayerId, channels: usize, what: &str) -> Result<Vec<Channels>> {
        let ranks = self.mesh.model;
        if channels < ranks {
            let (model, layer) = (&self.model.name, &self.model.layers[layer].name);
            return Err(Error::usage(format!(
                "model {model}: layer {layer} has {channels} {what}, too few to leave each of {ranks} devices one; \
                 use at most {channels} devices along the model axis"
            )));
        }
        Ok(shares(channels, ranks))
    }

    /// The placement of a layer that mixes no channels: each rank keeps what follows from the channels it holds.
    fn carried(&self, layer: LayerId) -> Result<(Placement, Vec<Channels>)> {
        let (kind, inputs) = (&self.model.layers[layer].kind, &self.model.layers[layer].inputs);
        let (ranks, shapes) = (self.mesh.model, self.model.input_shapes(layer));
        if inputs.iter().all(|&input| self.placements[input] == Placement::Replicated) {
            let all = vec![Channels::all(self.model.layers[layer].output.channels); ranks];
            return Ok((Placement::Replicated, all));
        }
        if *kind == Kind::Add {
            // One of the terms decides where the sum lies; the others come to it.
            let sharded = inputs.iter().find_map(|&input| match &self.placements[input] {
                Placement::Shard(owned) => Some(owned.clone()),
                _ => None,
            });
            let owned = sharded.unwrap_or_else(|| vec![Channels::all(shapes[0].channels); ranks]);
            return Ok((Placement::Shard(owned.clone()), owned));
        }
        let mut outputs = vec![Channels::none(); ranks];
        for (which, &input) in inputs.iter().enumerate() {
            let shares: Vec<Channels> = match &self.placements[input] {
                Placement::Shard(owned) => owned.clone(),
                _ => shares(shapes[which].channels, ranks),
            };
            for (output, share) in outputs.iter_mut().zip(&shares) {
                *output = output.union(&carries(kind, &shapes, which, share).unwrap_or_default());
            }
            if outputs.iter().map(|output| output.ranges().count()).sum::<usize>() > MOST_PIECES {
                let (model, layer) = (&self.model.name, &self.model.layers[layer].name);
                return Err(Error::usage(format!(
                    "model {model}: layer {layer} joins so much that the channels of {ranks} devices would lie in more than \
                     {MOST_PIECES} pieces; use fewer devices along the model axis"
                )));
            }
        }
        Ok((Placement::Shard(outputs.clone()), outputs))
    }

    /// Where a layer that is placed as `reader_placement` finds `needed` of an input; adds the exchange it takes.
    fn source(&mut self, reader: LayerId, input: usize, needed: &[Channels], reader_placement: &Placement) -> Read {
        let (ranks, channels) = (self.mesh.model, self.model.shape(input).channels);
        let exchange = match &self.placements[input] {
            Placement::Replicated if needed.iter().all(|need| need.len() == channels) => return Read::Held,
            Placement::Replicated => return Read::Part(needed.to_vec()),
            Placement::Shard(owned) if owned == needed => return Read::Held,
            Placement::Shard(owned) => {
                let replicated = *reader_placement == Placement::Replicated;
                let adjoint = if replicated { Adjoint::Slice } else { Adjoint::Sum };
                Exchange::gather(input, reader, owned.clone(), needed.to_vec(), adjoint)
            }
            Placement::Partial => Exchange::sum(input, reader, ranks, channels),
        };
        let same = |other: &Exchange| Exchange { reader, ..other.clone() } == exchange;
        if let Some(shared) = self.exchanges.iter().position(same) {
            return Read::Exchanged(shared);
        }
        self.exchanges.push(exchange);
        Read::Exchanged(self.exchanges.len() - 1)
    }
}
