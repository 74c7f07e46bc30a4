//! The evaluation of weights that a file holds, on the test set of a recipe: what `mpt eval` does. (The loop evaluates what it
//! trains, in `session.rs`; both count the same outcome in the same order.)

use super::agreement::Word;
use super::data_sets;
use super::input::DeviceBatch;
use super::job::{plan_of, settings, test_set};
use super::rank::{Rank, Settings};
use super::saving::described;
use super::session::Grouped;
use super::worker::Batches;
use crate::checkpoint::{TensorFile, WeightFile};
use crate::comm::Groups;
use crate::data::prepare::Views;
use crate::data::{Counts, LoaderOptions, Preparation, Source};
use crate::error::{Error, Result};
use crate::launch::threads::{self, Reporter};
use crate::layers::loss::Loss;
use crate::layers::{Answers, Outcome};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::torch;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The most classes of which is counted which was answered for which: the counts are as many as their square.
pub const MOST_CLASSES: usize = 1000;
/// The right class is to be among so many.
const LIKELIEST: i64 = 5;

/// What an evaluation needs, checked.
#[derive(Clone)]
pub struct Evaluation {
    plan: Arc<Plan>,
    settings: Settings,
    threads: usize,
    weights: Arc<WeightFile>,
    test: Arc<dyn Source>,
    preparation: Preparation,
    batch_size: usize,
    readers: usize,
    /// Where the loader counts what it makes.
    pub loaded: Arc<Counts>,
    /// Whether the logits of all examples are kept.
    pub keep_logits: bool,
}

/// What came of an evaluation, each example counted once.
#[derive(Debug)]
pub struct Evaluated {
    /// Loss and right answers.
    pub outcome: Outcome,
    /// What was answered.
    pub tally: Tally,
    /// The logits, `[N, K]`, in the order of the examples, if they were to be kept.
    pub logits: Option<Tensor>,
}

/// Counts of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The number of classes, K.
    pub classes: usize,
    /// Examples whose class was among the five likeliest.
    pub among_five: u64,
    /// Examples of class c that were answered with class a, at `c * K + a`; empty for more classes than [`MOST_CLASSES`].
    pub confusion: Vec<u64>,
}

enum Report {
    /// So many examples are done; their logits, of those of the latest batch.
    Batch(u64, Option<Tensor>),
    Done(Outcome, Tally),
}

impl Evaluation {
    /// The evaluation of the weights in a file on the test set of a recipe, on devices where tensors live on `device`, with so
    /// many threads for each.
    ///
    /// # Errors
    /// The recipe's parts do not fit together, its data cannot be read, or the weights do not fit its model.
    pub fn new(recipe: &Recipe, weights: TensorFile, device: Device, threads: usize) -> Result<Self> {
        let plan = Arc::new(plan_of(recipe)?);
        let test = test_set(recipe, &plan)?;
        let views = if recipe.data.ten_crop { Views::Ten } else { Views::Centre };
        let preparation = data_sets::for_evaluation(recipe, &plan.model, test.as_ref(), views)?;
        let weights = Arc::new(WeightFile::fitting(weights, &plan.model, &described(&plan.model))?);
        // Without momentum there are no velocities to find room for.
        let settings = Settings { device, momentum: 0.0, ..settings(recipe) };
        // The network gets as many views at a time as images in training: for so many there is room.
        let batch_size = recipe.train.batch_size.div_ceil(views.count());
        let readers = recipe.data.readers;
        let loaded = Arc::default();
        Ok(Self {
            plan,
            settings,
            threads,
            weights,
            test,
            preparation,
            batch_size,
            readers,
            loaded,
            keep_logits: false,
        })
    }

    /// How many views of each image are judged together.
    pub fn views(&self) -> usize {
        self.preparation.views.count()
    }

    /// How the network is split.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The test set.
    pub fn test(&self) -> &dyn Source {
        self.test.as_ref()
    }

    /// Evaluates with those ranks that are in this process, and tells `listen` how many examples are done. Every process gets
    /// what came of all.
    ///
    /// # Errors
    /// A rank failed.
    pub fn run(self, ranks: Grouped, listen: &mut dyn FnMut(u64)) -> Result<Evaluated> {
        let options = LoaderOptions {
            seed: self.settings.seed,
            batch_size: self.batch_size,
            data_ranks: self.plan.mesh.data,
            replicas: self.plan.mesh.model,
            preparation: self.preparation.clone(),
            threads: self.readers,
            counts: Arc::clone(&self.loaded),
            ..LoaderOptions::default()
        };
        let streams = ranks.supply.stream(&self.test, options)?;
        let first = ranks.groups.first().map(|(rank, _)| *rank);
        let seats = ranks.groups.into_iter().zip(streams);
        let seats = seats.map(|((rank, groups), batches)| (rank, (groups, batches, Some(rank) == first))).collect();
        let crew = threads::start_some(seats, move |rank, (groups, batches, speaks), reporter| {
            self.work(rank, groups, &batches, Some(reporter).filter(|_| speaks))
        })?;
        let mut crew = crew.interrupted_by(ranks.interrupts);
        let (mut kept, mut done) = (Vec::new(), None);
        while let Some(report) = crew.next_report()? {
            match report {
                Report::Batch(examples, logits) => {
                    kept.extend(logits);
                    listen(examples);
                }
                Report::Done(outcome, tally) => done = Some((outcome, tally)),
            }
        }
        let (outcome, tally) = done.ok_or_else(|| Error::failed("the ranks ended before their work was done"))?;
        let logits = if kept.is_empty() { None } else { Some(Tensor::f_cat(&kept, 0)?) };
        Ok(Evaluated { outcome, tally, logits })
    }

    /// The part of one rank. All know alike what came of it; one of each process reports.
    fn work(
        &self,
        number: usize,
        groups: Groups,
        batches: &Batches,
        reporter: Option<&Reporter<Report>>,
    ) -> Result<()> {
        let Self { plan, settings, preparation, .. } = self;
        let views = preparation.views.count();
        let _no_autograd = tch::no_grad_guard();
        torch::set_threads(self.threads);
        let mut rank = Rank::begun_with(Arc::clone(plan), number, groups, *settings, &self.weights)?;
        let (mut total, mut tally) = (Outcome::default(), Tally::new(plan.model.classes()));
        for batch in batches {
            let batch = batch?;
            let given = DeviceBatch::new(&batch, plan.model.input, settings.kind, settings.device)?;
            let (outcome, logits) = rank.answer(&given)?;
            let (outcome, logits, labels) = match views {
                1 => (outcome, logits, given.labels),
                _ => together(&logits, &given.labels, views as i64)?,
            };
            tally.count(&Vec::try_from(&labels)?, &Answers::of(&logits, &labels)?);
            total.add(&rank.agree(&Word::of(outcome))?.outcome);
            let logits = match self.keep_logits {
                true => Some(rank.gather_rows(&logits, batch.global_examples / views)?),
                false => None,
            };
            // The accounts are of steps, of which there are none.
            rank.lap()?;
            reporter.map_or(Ok(()), |reporter| reporter.report(Report::Batch(total.examples, logits)))?;
        }
        let tally = tally.with(rank.add_up(&tally.numbers())?);
        reporter.map_or(Ok(()), |reporter| reporter.report(Report::Done(total, tally)))
    }
}

/// What the views of each image come to together, of logits `[N V, K]` and labels `[N V]`: the mean of their probabilities. Gives
/// their logarithms, `[N, K]`, which are logits of that mean, and the labels, `[N]`.
fn together(logits: &Tensor, labels: &Tensor, views: i64) -> Result<(Outcome, Tensor, Tensor)> {
    let wide = if logits.kind() == Kind::BFloat16 { Kind::Float } else { logits.kind() };
    let examples = labels.size()[0] / views;
    let probabilities = logits.f_softmax(1, wide)?.f_view([examples, views, logits.size()[1]])?;
    let mean = probabilities.f_mean_dim(1i64, false, wide)?.f_log()?;
    let labels = labels.f_view([examples, views])?.f_select(1, 0)?.f_contiguous()?;
    Ok((Loss::default().forward(&mean, &labels, false)?, mean, labels))
}

impl Tally {
    fn new(classes: usize) -> Self {
        let cells = if classes > MOST_CLASSES { 0 } else { classes * classes };
        Self { classes, among_five: 0, confusion: vec![0; cells] }
    }

    fn count(&mut self, labels: &[i64], answers: &Answers) {
        self.among_five += answers.before.iter().filter(|&&before| before < LIKELIEST).count() as u64;
        for (&label, &answer) in labels.iter().zip(&answers.likeliest) {
            if let Some(count) = self.confusion.get_mut(label as usize * self.classes + answer as usize) {
                *count += 1;
            }
        }
    }

    /// As it travels.
    fn numbers(&self) -> Vec<u64> {
        std::iter::once(self.among_five).chain(self.confusion.iter().copied()).collect()
    }

    /// The same classes with other counts.
    fn with(&self, numbers: Vec<u64>) -> Self {
        let (among_five, confusion) = numbers.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        Self { classes: self.classes, among_five, confusion: confusion.to_vec() }
    }

    /// The examples of a class, those of them that were answered right, and the examples that were answered with it; `None`
    /// where that is not counted.
    pub fn of_class(&self, class: usize) -> Option<[u64; 3]> {
        let row = self.confusion.get(class * self.classes..(class + 1) * self.classes)?;
        let answered = self.confusion.iter().skip(class).step_by(self.classes).sum();
        Some([row.iter().sum(), row[class], answered])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_class() {
        let mut tally = Tally::new(3);
        tally.count(&[0, 0, 2, 1], &Answers { likeliest: vec![0, 2, 2, 2], before: vec![0, 1, 0, 6] });
        assert_eq!((tally.among_five, &tally.confusion[..]), (3, &[1, 0, 1, 0, 0, 1, 0, 0, 1][..]));
        assert_eq!(tally.of_class(0), Some([2, 1, 1]));
        assert_eq!(tally.of_class(2), Some([1, 1, 3]));
        assert_eq!(tally.with(tally.numbers()), tally);
    }

    #[test]
    fn views_of_an_image_are_judged_by_the_mean_of_their_probabilities() {
        // Two images of three views. The first: probabilities 0.9, 0.4, 0.4 of class 0, so that most views are wrong.
        let odds = |p: f64| [(p / (1.0 - p)).ln(), 0.0];
        let logits = [0.9, 0.4, 0.4, 0.1, 0.2, 0.3].map(odds).concat();
        let labels = Tensor::from_slice(&[0i64, 0, 0, 1, 1, 1]);
        let (outcome, mean, labels) = together(&Tensor::from_slice(&logits).view([6, 2]), &labels, 3).unwrap();
        assert_eq!((outcome.examples, outcome.correct), (2, 2));
        let right: f64 = 1.7 / 3.0;
        assert!((outcome.loss_sum + right.ln() + 0.8f64.ln()).abs() < 1e-12);
        assert_eq!(Vec::<i64>::try_from(&labels).unwrap(), [0, 1]);
        let found = Vec::<f64>::try_from(mean.exp().flatten(0, 1)).unwrap();
        for (found, expected) in found.iter().zip([right, 1.0 - right, 0.2, 0.8]) {
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
    }

    #[test]
    fn of_very_many_classes_no_square_is_kept() {
        let mut tally = Tally::new(MOST_CLASSES + 1);
        tally.count(&[7], &Answers { likeliest: vec![7], before: vec![0] });
        assert_eq!((tally.among_five, tally.of_class(7)), (1, None));
    }
}
