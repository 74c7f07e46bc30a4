//! A rank and its training step.

use super::agreement::{Agreed, Word, agree};
use super::exchange;
use super::gradients::Gradients;
use super::input::DeviceBatch;
use super::layout::Layout;
use super::parameters::Store;
use super::phases::{Phase, Phases, Stopwatch};
use super::profile::Profile;
use super::recording::{Quantity, Recording};
use super::table;
use crate::checkpoint::Checkpoint;
use crate::comm::{Call, Form, Groups, Stage, Traffic};
use crate::error::{Error, Result};
use crate::layers::{Context, Layer, Loss, Outcome};
use crate::model::{ActivationId, LayerId};
use crate::optim::Sgd;
use crate::plan::{ExchangeId, Operation, Placement, Plan, Read};
use std::sync::Arc;
use std::time::Instant;
use tch::{Kind, Tensor};

/// What a rank needs to know to train besides the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The seed of the initial weights.
    pub seed: u64,
    /// The type of activations and gradients, and of the weights that layers compute with. With bf16 the weights are
    /// kept in fp32 beside it.
    pub kind: Kind,
    /// SGD's momentum.
    pub momentum: f64,
    /// SGD's weight decay.
    pub weight_decay: f64,
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
    watch: Stopwatch,
    needs_gradient: Vec<bool>,
    /// For each layer, what nothing reads after it.
    released: Vec<Released>,
    recording: Option<Recording>,
    profile: Profile,
}

/// What a rank alone keeps between steps: its shard of what lies like the weights, in full precision.
#[derive(Debug)]
pub struct Shard {
    /// The weights, `[shard]`.
    pub masters: Tensor,
    /// The velocities, `[shard]`; `None` without momentum.
    pub velocity: Option<Tensor>,
}

impl Rank {
    /// A rank at the start of a run.
    ///
    /// # Errors
    /// What libtorch reports, as when memory runs out.
    pub fn new(plan: Arc<Plan>, rank: usize, mut groups: Groups, settings: Settings) -> Result<Self> {
        let store = Store::new(&plan, rank, groups.data.as_mut(), settings.seed, settings.kind)?;
        let optimizer = optimizer(&store, settings)?;
        Self::with(plan, rank, groups, store, optimizer)
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
        let store = Store::restored(&plan, rank, groups.data.as_mut(), settings.kind, &checkpoint.model)?;
        let optimizer = optimizer(&store, settings)?;
        if let (Some(velocity), Some(file)) = (optimizer.velocity(), &checkpoint.optimizer) {
            store.read(&plan, velocity, file)?;
        }
        Self::with(plan, rank, groups, store, optimizer)
    }

    fn with(plan: Arc<Plan>, rank: usize, groups: Groups, store: Store, optimizer: Sgd) -> Result<Self> {
        let needs_gradient = plan.model.needs_gradient();
        let mut layers = Vec::with_capacity(plan.model.layers.len());
        for layer in 0..plan.model.layers.len() {
            let wants_gradient = plan.model.layers[layer].inputs.iter().any(|&input| needs_gradient[input]);
            let parameters = store.of_layer(layer)?;
            layers.extend(table::layer(&plan, layer, plan.mesh.model_rank(rank), parameters, wants_gradient)?);
        }
        let released = (0..plan.model.layers.len()).map(|layer| released_after(&plan, layer)).collect();
        let profile = Profile::new(plan.model.layers.len());
        let (loss, watch) = (Loss::default(), Stopwatch::start(Phase::Data));
        let mut rank = Self {
            plan,
            rank,
            layers,
            loss,
            store,
            optimizer,
            groups,
            watch,
            needs_gradient,
            released,
            recording: None,
            profile,
        };
        rank.gather_weights(Stage::Begin)?;
        Ok(rank)
    }

    /// One step of training on this rank's share of a batch: gives the share's outcome.
    ///
    /// # Errors
    /// What a layer, or a collective, reports.
    pub fn train(&mut self, batch: &DeviceBatch, learning_rate: f64) -> Result<Outcome> {
        let outcome = if batch.examples() > 0 {
            let outcome = self.forward(batch, true)?;
            self.backward(batch)?;
            outcome
        } else {
            // A rank without examples joins the sum of gradients with zeros.
            let _ = self.store.gradients.f_zero_()?;
            Outcome::default()
        };
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

    /// Tells all ranks what this one has to say after a batch, and gives what follows from the words of all.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn agree(&mut self, own: Word) -> Result<Agreed> {
        let call = Call::new("the outcome", Stage::Agree);
        let before = self.watch.enter(Phase::Reduce);
        let words = self.groups.world.all_gather(&call, &Tensor::from_slice(&own.numbers()))?;
        self.leave_collective(before);
        let words = words.iter().map(Vec::<f64>::try_from).collect::<Result<Vec<_>, _>>()?;
        agree(&words, self.plan.mesh.model)
    }

    fn forward(&mut self, batch: &DeviceBatch, training: bool) -> Result<Outcome> {
        let plan = Arc::clone(&self.plan);
        let context = Context { training, masks: &batch.masks };
        let mut activations: Vec<Option<Tensor>> = vec![Some(batch.image.shallow_clone())];
        let mut brought: Vec<Option<Tensor>> = plan.exchanges.iter().map(|_| None).collect();
        self.watch.enter(Phase::Forward);
        let last = plan.model.layers.len() - 1;
        for layer in 0..last {
            let inputs = self.inputs(layer, &activations, &mut brought)?;
            let begin = Instant::now();
            let output = self.layers[layer].forward(&inputs, &context).map_err(|error| self.in_layer(layer, error))?;
            self.profile.forward(layer, begin);
            // A summand is no part of the activation; the sum is recorded when an exchange has made it.
            if plan.placements[layer + 1] != Placement::Partial {
                self.record(Quantity::Activation(layer + 1), &output);
            }
            activations.push(Some(output));
            for &activation in &self.released[layer].activations {
                activations[activation] = None;
            }
            for &exchange in &self.released[layer].exchanges {
                brought[exchange] = None;
            }
        }
        let logits = self.inputs(last, &activations, &mut brought)?;
        let begin = Instant::now();
        let outcome = self.loss.forward(&logits[0], &batch.labels, training);
        self.profile.forward(last, begin);
        outcome.map_err(|error| self.in_layer(last, error))
    }

    /// What a layer reads, brought by exchanges where it takes them.
    fn inputs(
        &mut self,
        layer: LayerId,
        activations: &[Option<Tensor>],
        brought: &mut [Option<Tensor>],
    ) -> Result<Vec<Tensor>> {
        let plan = Arc::clone(&self.plan);
        let mut inputs = Vec::with_capacity(2);
        for (source, &input) in plan.layers[layer].sources.iter().zip(&plan.model.layers[layer].inputs) {
            let held =
                || activations[input].as_ref().ok_or_else(|| Error::failed("an activation was released too early"));
            inputs.push(match source {
                Read::Held => held()?.shallow_clone(),
                Read::Part(parts) => crate::layers::select(held()?, &parts[self.groups.model.rank()])?,
                &Read::Exchanged(id) => match &brought[id] {
                    Some(tensor) => tensor.shallow_clone(),
                    None => {
                        let tensor = self.exchange(id, Stage::Forward, held()?)?;
                        brought[id] = Some(tensor.shallow_clone());
                        tensor
                    }
                },
            });
        }
        Ok(inputs)
    }

    fn backward(&mut self, batch: &DeviceBatch) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let context = Context { training: true, masks: &batch.masks };
        let mut gradients = Gradients::new(&plan);
        self.watch.enter(Phase::Backward);
        let last = plan.model.layers.len() - 1;
        let begin = Instant::now();
        let of_logits = self.loss.backward(batch.global_examples).map_err(|error| self.in_layer(last, error))?;
        self.profile.backward(last, begin);
        gradients.deliver(&plan, last, vec![Some(of_logits)])?;
        for layer in (0..last).rev() {
            if !self.needs_gradient[layer + 1] {
                continue;
            }
            // Every reader of this layer's output has had its turn: what they read through exchanges comes home.
            for (id, exchanged) in gradients.take_exchanged(&plan, layer + 1) {
                let own = self.exchange(id, Stage::Backward, &exchanged)?;
                gradients.add_to_activation(layer + 1, own)?;
            }
            let gradient = gradients.take(layer + 1)?;
            self.record(Quantity::Gradient(layer + 1), &gradient);
            let begin = Instant::now();
            let of_inputs =
                self.layers[layer].backward(&gradient, &context).map_err(|error| self.in_layer(layer, error))?;
            self.profile.backward(layer, begin);
            gradients.deliver(&plan, layer, of_inputs)?;
        }
        Ok(())
    }

    /// Sums the gradients over the data axis and updates the weights: each rank of the axis does a shard of them.
    fn update(&mut self, learning_rate: f64) -> Result<()> {
        let parts = Store::shards(&self.store.gradients, self.groups.data.size())?;
        self.watch.enter(Phase::Reduce);
        let call = Call::new("all gradients", Stage::Reduce);
        // The update adds the ranks' gradients up on its own way through memory, in fp32 and in rank order.
        let gradients = self.groups.data.all_to_all(&call, &parts)?;
        self.leave_collective(Phase::Optimizer);
        self.optimizer.step(&self.store.masters, self.store.shadow()?.as_ref(), &gradients, learning_rate)?;
        self.gather_weights(Stage::Update)?;
        self.watch.enter(Phase::Data);
        Ok(())
    }

    /// Brings the shards of the weights that the other ranks of the data axis have written.
    fn gather_weights(&mut self, stage: Stage) -> Result<()> {
        let before = self.watch.enter(Phase::Reduce);
        let gathered = self.groups.data.all_gather(&Call::new("all weights", stage), &self.store.own_weights()?)?;
        let shards = Store::shards(&self.store.weights, gathered.len())?;
        for (mut shard, arrived) in shards.into_iter().zip(gathered) {
            // In memory that the ranks have in common it is there already.
            if shard.data_ptr() != arrived.data_ptr() {
                shard.f_copy_(&arrived)?;
            }
        }
        self.leave_collective(before);
        Ok(())
    }

    fn exchange(&mut self, id: usize, stage: Stage, tensor: &Tensor) -> Result<Tensor> {
        let plan = Arc::clone(&self.plan);
        let exchange = &plan.exchanges[id];
        let call = Call::new(&plan.model.layers[exchange.reader].name, stage);
        let before = self.watch.enter(Phase::Exchange);
        let comm = self.groups.model.as_mut();
        let result = match stage {
            Stage::Backward => exchange::backward(exchange, comm, &call, tensor),
            _ => exchange::forward(exchange, comm, &call, tensor),
        };
        self.leave_collective(before);
        let result = result.map_err(|error| self.in_layer(exchange.reader, error))?;
        if exchange.operation == Operation::AllReduce && stage == Stage::Forward {
            self.record(Quantity::Activation(exchange.source), &result);
        }
        Ok(result)
    }
}

impl Rank {
    /// The time spent since the last call of this, by phase, and what travelled: activations, gradients and weights, not
    /// the few words in which the ranks agree.
    pub fn lap(&mut self) -> (Phases, Traffic) {
        let mut traffic = Traffic::default();
        for group in [&mut self.groups.model, &mut self.groups.data] {
            let part = group.take_traffic();
            traffic.sent_bytes += part.sent_bytes;
            traffic.received_bytes += part.received_bytes;
        }
        (self.watch.lap(), traffic)
    }

    /// The weights in full precision, in the layout of the store: what the ranks of the data axis keep a shard each of.
    /// Every rank of the axis must call it.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn full_weights(&mut self) -> Result<Tensor> {
        let shards = self.groups.data.all_gather(&Call::new("full weights", Stage::Update), &self.store.masters)?;
        Ok(Tensor::f_cat(&shards, 0)?)
    }

    /// What each rank alone keeps between steps, brought to the first rank, in rank order; `None` on the others. Where
    /// the ranks have memory in common it is that which the next step writes to.
    ///
    /// # Errors
    /// What the collective reports.
    pub fn shards(&mut self) -> Result<Option<Vec<Shard>>> {
        let masters = self.store.masters.shallow_clone();
        let masters = self.bring_to_first("the weights", masters)?;
        let velocities = match self.optimizer.velocity().map(Tensor::shallow_clone) {
            Some(velocity) => self.bring_to_first("the velocities", velocity)?.into_iter().map(Some).collect(),
            None => masters.iter().map(|_| None).collect::<Vec<_>>(),
        };
        let shards = masters.into_iter().zip(velocities).map(|(masters, velocity)| Shard { masters, velocity });
        Ok((self.rank == 0).then(|| shards.collect()))
    }

    /// The shards of all ranks, on the first rank; none on the others.
    fn bring_to_first(&mut self, what: &str, own: Tensor) -> Result<Vec<Tensor>> {
        let plan = Arc::clone(&self.plan);
        let world = &mut self.groups.world;
        let form = |rank| {
            let length = Layout::new(&plan, plan.mesh.model_rank(rank)).shard(plan.mesh.data_rank(rank)).len();
            Form { shape: vec![length as i64], ..Form::of(&own) }
        };
        let receives = (0..world.size()).map(|rank| (self.rank == 0).then(|| form(rank))).collect();
        let mut sends: Vec<Option<Tensor>> = (0..world.size()).map(|_| None).collect();
        sends[0] = Some(own);
        let arrived = world.send_receive(&Call::new(what, Stage::Save), sends, receives)?;
        Ok(arrived.into_iter().flatten().collect())
    }

    /// The parameters, as they are now.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The time that each layer has taken since the last call of this.
    pub fn take_profile(&mut self) -> Profile {
        std::mem::replace(&mut self.profile, Profile::new(self.plan.model.layers.len()))
    }

    /// Keeps every activation and gradient from now on, until the recording is taken.
    pub fn start_recording(&mut self) {
        self.recording = Some(Recording::default());
    }

    /// What was recorded.
    pub fn take_recording(&mut self) -> Recording {
        self.recording.take().unwrap_or_default()
    }

    fn record(&mut self, quantity: Quantity, tensor: &Tensor) {
        if let Some(recording) = &mut self.recording {
            let (Quantity::Activation(activation) | Quantity::Gradient(activation)) = quantity;
            let channels = self.plan.held(activation, self.plan.mesh.model_rank(self.rank));
            recording.keep(quantity, channels, tensor);
        }
    }

    /// Enters the phase after a collective; what it spent waiting for others counts as waiting.
    fn leave_collective(&mut self, next: Phase) {
        for group in [&mut self.groups.world, &mut self.groups.model, &mut self.groups.data] {
            self.watch.waited(group.take_waited());
        }
        self.watch.enter(next);
    }

    fn in_layer(&self, layer: LayerId, error: Error) -> Error {
        error.within(format!("rank {}: layer {}", self.rank, self.plan.model.layers[layer].name))
    }
}

fn optimizer(store: &Store, settings: Settings) -> Result<Sgd> {
    Sgd::new(settings.momentum, settings.weight_decay, store.masters.numel(), store.masters.kind())
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
