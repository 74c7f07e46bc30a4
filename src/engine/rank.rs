//! A rank and its training step.
//!
//! * `exchanges` how activations and their gradients travel, and what is under way
//! * `finite` what it does about numbers that are not finite
//! * `update` the sum of gradients over the data axis, the update, the gathering of weights
//! * `accounts` what a rank tells about itself

mod accounts;
mod exchanges;
mod finite;
mod update;

use self::exchanges::Brought;
use super::agreement::{Agreed, Word, agree};
use super::gradients::Gradients;
use super::input::DeviceBatch;
use super::layout::Layout;
use super::norms::Squares;
use super::parameters::Store;
use super::phases::{Phase, Stopwatch};
use super::profile::{Pass, Profile};
use super::recording::{Quantity, Recording};
use super::segments::Segments;
use super::table;
use super::waiting::{Reading, Slots};
use crate::checkpoint::{Checkpoint, WeightFile};
use crate::clock::{Moment, machine};
use crate::comm::{Call, Groups, Stage, Ticket};
use crate::error::{Error, Result};
use crate::layers::{Context, Layer, Loss, Outcome, select};
use crate::model::{ActivationId, LayerId};
use crate::optim::{Rule, Sgd, Timeline};
use crate::plan::{ExchangeId, Placement, Plan, Read};
use std::collections::VecDeque;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// What a rank needs to know to train besides the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Where the tensors live.
    pub device: Device,
    /// The seed of the initial weights.
    pub seed: u64,
    /// The type of activations and gradients, and of the weights that layers compute with. With bf16 the weights are
    /// kept in fp32 beside it.
    pub kind: Kind,
    /// SGD's momentum.
    pub momentum: f64,
    /// SGD's weight decay.
    pub weight_decay: f64,
    /// Whether SGD's velocities have the learning rate in them.
    pub rate_in_velocity: bool,
    /// About how many gradients are summed over the data axis together; 0: all.
    pub bucket: usize,
    /// Whether exchanges begin as soon as what they bring is there, and not when it is needed.
    pub early_exchange: bool,
    /// Whether a step with a loss or gradients that are not finite leaves the weights as they were.
    pub skip_nonfinite: bool,
}

/// One rank: its share of the network, of the parameters, and its place in the groups.
pub struct Rank {
    plan: Arc<Plan>,
    rank: usize,
    layers: Vec<Box<dyn Layer>>,
    loss: Loss,
    store: Store,
    optimizer: Sgd,
    groups: Groups,
    early_exchange: bool,
    skip_nonfinite: bool,
    /// The size of buckets that was asked for.
    bucket: usize,
    /// The buckets whose gradients are on their way, in the order in which they were started.
    reducing: VecDeque<(usize, Ticket)>,
    watch: Stopwatch,
    /// The parameters that this rank updates.
    segments: Segments,
    /// The squares of the step's gradients.
    squares: Squares,
    /// The clock of this rank's moments.
    clock: Reading,
    /// The calls of a step.
    slots: Slots,
    needs_gradient: Vec<bool>,
    /// Whether each activation is looked at: see `find_nonfinite`.
    looks: bool,
    /// The first activation of the step that is not finite on this rank, if the loss is not.
    nonfinite: Option<ActivationId>,
    /// What stands for the squares of the gradients of a step that was left out.
    left_out: Option<Vec<f64>>,
    /// For each layer, what nothing reads after it.
    released: Vec<Released>,
    recording: Option<Recording>,
    profile: Option<Profile>,
}

/// What a rank alone keeps between steps: its shard of what lies like the weights, in full precision, a tensor for each
/// bucket.
#[derive(Debug)]
pub struct Shard {
    /// The weights.
    pub masters: Vec<Tensor>,
    /// The velocities; `None` without momentum.
    pub velocities: Option<Vec<Tensor>>,
}

impl Rank {
    /// A rank at the start of a run.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(plan: Arc<Plan>, rank: usize, mut groups: Groups, settings: Settings) -> Result<Self> {
        let store = Store::new(&plan, rank, groups.data.as_mut(), settings)?;
        let optimizer = optimizer(&store, settings)?;
        Self::with(plan, rank, groups, settings, store, optimizer)
    }

    /// A rank whose weights begin as a file has them.
    ///
    /// # Errors
    /// What libtorch reports, and the file, which may have gone since it was looked at.
    pub fn begun_with(
        plan: Arc<Plan>,
        rank: usize,
        mut groups: Groups,
        settings: Settings,
        weights: &WeightFile,
    ) -> Result<Self> {
        let store = Store::restored(&plan, rank, groups.data.as_mut(), settings, &weights.reader()?)?;
        let optimizer = optimizer(&store, settings)?;
        Self::with(plan, rank, groups, settings, store, optimizer)
    }

    /// A rank where a checkpoint ends.
    ///
    /// # Errors
    /// What libtorch reports, and the checkpoint's files, which may have gone since they were looked at.
    pub fn resumed(
        plan: Arc<Plan>,
        rank: usize,
        mut groups: Groups,
        settings: Settings,
        checkpoint: &Checkpoint,
    ) -> Result<Self> {
        let (weights, velocities) = (checkpoint.model.reader()?, checkpoint.optimizer.as_ref());
        let values = |name: &str, indices| weights.values(name, indices);
        let store = Store::restored(&plan, rank, groups.data.as_mut(), settings, &values)?;
        let optimizer = optimizer(&store, settings)?;
        if let (Some(targets), Some(file)) = (optimizer.velocities(), velocities) {
            let file = file.reader()?;
            store.read(&plan, targets, &|name, indices| file.values(name, indices))?;
        }
        Self::with(plan, rank, groups, settings, store, optimizer)
    }

    fn with(
        plan: Arc<Plan>,
        rank: usize,
        groups: Groups,
        settings: Settings,
        store: Store,
        optimizer: Sgd,
    ) -> Result<Self> {
        let needs_gradient = plan.model.needs_gradient();
        let mut layers = Vec::with_capacity(plan.model.layers.len());
        for layer in 0..plan.model.layers.len() {
            let wants_gradient = plan.model.layers[layer].inputs.iter().any(|&input| needs_gradient[input]);
            let parameters = store.of_layer(layer)?;
            layers.extend(table::layer(&plan, layer, plan.mesh.model_rank(rank), parameters, wants_gradient)?);
        }
        let released = (0..plan.model.layers.len()).map(|layer| released_after(&plan, layer)).collect();
        let (loss, watch) = (Loss::default(), Stopwatch::start(Phase::Data));
        let squares = Squares::new(&plan, &store.layout, rank);
        let segments = Segments::new(&plan, &store.layout, rank);
        let buckets = |place| Layout::new(&plan, place, settings.bucket).buckets.len();
        let most_buckets = (0..plan.mesh.model).map(buckets).max().unwrap_or(0);
        let slots = Slots::of(&plan, most_buckets, settings.skip_nonfinite);
        let mut rank = Self {
            plan,
            rank,
            layers,
            loss,
            store,
            optimizer,
            groups,
            early_exchange: settings.early_exchange,
            skip_nonfinite: settings.skip_nonfinite,
            bucket: settings.bucket,
            reducing: VecDeque::new(),
            watch,
            segments,
            squares,
            clock: Reading { machine: machine(), agreed: f64::NAN },
            slots,
            needs_gradient,
            looks: false,
            nonfinite: None,
            left_out: None,
            released,
            recording: None,
            profile: None,
        };
        rank.gather_weights(Stage::Begin)?;
        Ok(rank)
    }

    /// Trains each parameter as a timeline has it once so many of its events hold.
    pub fn tune(&mut self, timeline: &Timeline, passed: usize) {
        self.segments.tune(&self.plan, &self.store.layout, timeline, passed);
    }

    /// One step of training on this rank's share of a batch: gives the share's outcome.
    ///
    /// # Errors
    /// What a layer, or a collective, reports.
    pub fn train(&mut self, batch: &DeviceBatch, learning_rate: f64) -> Result<Outcome> {
        let outcome = if batch.examples() > 0 {
            let outcome = self.forward(batch, true)?;
            if !outcome.loss_sum.is_finite() {
                self.find_nonfinite(batch)?;
            }
            self.backward(batch)?;
            outcome
        } else {
            // A rank without examples joins the sum of gradients with zeros.
            let _ = self.store.gradients.f_zero_()?;
            Outcome::default()
        };
        self.start_reductions(None)?;
        self.update(learning_rate)?;
        Ok(outcome)
    }

    /// The outcome of this rank's share of a batch, without training.
    ///
    /// # Errors
    /// What a layer, or a collective, reports.
    pub fn evaluate(&mut self, batch: &DeviceBatch) -> Result<Outcome> {
        if batch.examples() > 0 { self.forward(batch, false) } else { Ok(Outcome::default()) }
    }

    /// The outcome that [`Rank::evaluate`] gives, and the logits that it comes from, `[N, K]`; every rank of a model group has
    /// the same ones.
    ///
    /// # Errors
    /// What a layer, or a collective, reports.
    pub fn answer(&mut self, batch: &DeviceBatch) -> Result<(Outcome, Tensor)> {
        if batch.examples() == 0 {
            let weights = &self.store.weights;
            let none = Tensor::f_zeros([0, self.plan.model.classes() as i64], (weights.kind(), weights.device()))?;
            return Ok((Outcome::default(), none));
        }
        let logits = self.logits(batch, false)?;
        Ok((self.judge(&logits, batch, false)?, logits))
    }

    /// Tells all ranks what this one has to say after a batch, and gives what follows from the words of all.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn agree(&mut self, own: &Word) -> Result<Agreed> {
        let call = Call::new("the outcome", Stage::Agree);
        let before = self.watch.enter(Phase::Reduce);
        let words = self.groups.world.all_gather(&call, &Tensor::from_slice(&own.numbers()))?;
        self.clock.agreed = Moment::now().seconds();
        self.leave_collective(before);
        let words = words.iter().map(Vec::<f64>::try_from).collect::<Result<Vec<_>, _>>()?;
        agree(&words, self.plan.mesh, self.slots)
    }

    fn forward(&mut self, batch: &DeviceBatch, training: bool) -> Result<Outcome> {
        let logits = self.logits(batch, training)?;
        self.judge(&logits, batch, training)
    }

    fn judge(&mut self, logits: &Tensor, batch: &DeviceBatch, training: bool) -> Result<Outcome> {
        let last = self.plan.model.layers.len() - 1;
        self.compute(Pass::Forward, last, |rank| rank.loss.forward(logits, &batch.labels, training))
    }

    fn logits(&mut self, batch: &DeviceBatch, training: bool) -> Result<Tensor> {
        let plan = Arc::clone(&self.plan);
        let context = Context { training, masks: &batch.masks };
        let mut activations: Vec<Option<Tensor>> = vec![Some(batch.image.shallow_clone())];
        let mut brought: Vec<Brought> = plan.exchanges.iter().map(|_| Brought::Nothing).collect();
        self.watch.enter(Phase::Forward);
        self.look(0, &batch.image)?;
        let last = plan.model.layers.len() - 1;
        for layer in 0..last {
            let inputs = self.inputs(layer, &activations, &mut brought, &context)?;
            let output = self.compute(Pass::Forward, layer, |rank| rank.layers[layer].forward(&inputs, &context))?;
            self.look(layer + 1, &output)?;
            // A summand is no part of the activation; the sum is recorded when an exchange has made it.
            if plan.placements[layer + 1] != Placement::Partial {
                self.record(Quantity::Activation(layer + 1), &output);
            }
            self.start_exchanges(layer + 1, &output, &mut brought)?;
            activations.push(Some(output));
            for &activation in &self.released[layer].activations {
                activations[activation] = None;
            }
            for &exchange in &self.released[layer].exchanges {
                brought[exchange] = Brought::Nothing;
            }
        }
        // The loss reads one activation.
        Ok(self.inputs(last, &activations, &mut brought, &context)?.swap_remove(0))
    }

    /// What a layer reads, brought by exchanges where it takes them. A layer that reads in parts computes with the own one
    /// before the others are waited for.
    fn inputs(
        &mut self,
        layer: LayerId,
        activations: &[Option<Tensor>],
        brought: &mut [Brought],
        context: &Context,
    ) -> Result<Vec<Tensor>> {
        let plan = Arc::clone(&self.plan);
        let mut inputs = Vec::with_capacity(2);
        for (source, &input) in plan.layers[layer].sources.iter().zip(&plan.model.layers[layer].inputs) {
            let held =
                || activations[input].as_ref().ok_or_else(|| Error::failed("an activation was released too early"));
            match source {
                Read::Held => inputs.push(held()?.shallow_clone()),
                Read::Part(parts) => inputs.push(select(held()?, &parts[self.groups.model.rank()])?),
                &Read::Exchanged(id) => {
                    self.have_started(id, held()?, &mut brought[id])?;
                    if plan.exchanges[id].in_parts {
                        let own = held()?;
                        self.compute(Pass::Forward, layer, |rank| rank.layers[layer].begin(own, context))?;
                    }
                    inputs.extend(self.brought(id, held()?, &mut brought[id])?);
                }
            }
        }
        Ok(inputs)
    }

    fn backward(&mut self, batch: &DeviceBatch) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let context = Context { training: true, masks: &batch.masks };
        let mut gradients = Gradients::new(&plan);
        self.watch.enter(Phase::Backward);
        let last = plan.model.layers.len() - 1;
        let of_logits = self.compute(Pass::Backward, last, |rank| rank.loss.backward(batch.global_examples))?;
        gradients.deliver(&plan, last, vec![Some(of_logits)])?;
        self.start_exchanges_back(last, &mut gradients)?;
        for layer in (0..last).rev() {
            if !self.needs_gradient[layer + 1] {
                continue;
            }
            let gradient = self.come_home(layer + 1, &mut gradients)?;
            self.record(Quantity::Gradient(layer + 1), &gradient);
            let of_inputs =
                self.compute(Pass::Backward, layer, |rank| rank.layers[layer].backward(&gradient, &context))?;
            gradients.deliver(&plan, layer, of_inputs)?;
            // What goes to other ranks travels while the gradients of the weights are computed, and those of the weights
            // while the backward pass goes on.
            self.start_exchanges_back(layer, &mut gradients)?;
            self.compute(Pass::Backward, layer, |rank| rank.layers[layer].backward_parameters(&gradient))?;
            self.start_reductions(Some(layer))?;
        }
        Ok(())
    }
}

fn optimizer(store: &Store, settings: Settings) -> Result<Sgd> {
    let Settings { momentum, weight_decay, rate_in_velocity, .. } = settings;
    let rule = Rule { momentum, weight_decay, rate_in_velocity };
    Sgd::new(rule, &store.masters)
}

/// What the forward pass need not hold any longer after a layer.
struct Released {
    activations: Vec<ActivationId>,
    exchanges: Vec<ExchangeId>,
}

/// What has `layer` as its last reader.
fn released_after(plan: &Plan, layer: LayerId) -> Released {
    let last_to_use = |exchange: ExchangeId| {
        (0..plan.layers.len()).rfind(|&reader| plan.layers[reader].sources.contains(&Read::Exchanged(exchange)))
    };
    Released {
        activations: (0..=layer).filter(|&activation| plan.model.readers(activation).last() == Some(layer)).collect(),
        exchanges: (0..plan.exchanges.len()).filter(|&exchange| last_to_use(exchange) == Some(layer)).collect(),
    }
}
