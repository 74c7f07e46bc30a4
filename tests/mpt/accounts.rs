//! Where the time of a step goes, what the ranks wait for, and how long the gradients are: the same on every split.

use crate::program::{output, stderr, stdout, text, tiny};
use mpt::engine::phases::Phase;
use mpt::engine::session::{Job, Ranks, run};
use mpt::engine::traffic::{self, of_step};
use mpt::events::{Bottleneck, Bound, Event, Step};
use mpt::launch::control::Control;
use mpt::optim::Timeline;
use mpt::recipe::{Layered, Recipe};
use mpt::verify::{Trial, observe};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tch::Kind;

/// A recipe for three steps on images that a shipped model reads, the last batch half full.
fn recipe(model: &str, settings: &[&str]) -> Recipe {
    let shape = mpt::model::shipped::load(model, &Default::default()).unwrap();
    let (height, width) = shape.input.pixels.unwrap();
    let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
    let of_model = [
        format!("model.name={model}"),
        format!("data.image=[{},{height},{width}]", shape.input.channels),
        format!("data.classes={}", shape.classes()),
    ];
    let small = [
        "data.source=noise",
        "data.train_examples=20",
        "data.test_examples=4",
        "train.batch_size=8",
        "train.epochs=1",
        "train.precision=fp64",
        "optimizer.momentum=0.9",
        "parallel.bucket=4KiB",
    ];
    for assignment in of_model.iter().map(String::as_str).chain(small).chain(settings.iter().copied()) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

fn job(model: &str, settings: &[&str]) -> Job {
    Job::new(&recipe(model, settings), Control::default()).unwrap()
}

fn events(job: Job) -> Vec<Event> {
    let mut events = Vec::new();
    run(job, Ranks::All, &mut |event| events.push(event.clone())).unwrap();
    events
}

fn steps(events: &[Event]) -> Vec<&Step> {
    events.iter().filter_map(|event| if let Event::Step(step) = event { Some(step) } else { None }).collect()
}

/// The norms of a run: of each step, all layers together and each by its name.
fn norms(job: Job) -> Vec<(f64, Vec<(String, f64)>)> {
    let events = events(job);
    steps(&events).into_iter().map(|step| (step.gradient_norm, step.layer_gradient_norms.clone())).collect()
}

#[test]
fn gradient_norms_are_those_of_whole_tensors_on_every_split() {
    for model in ["tiny", "tiny-residual", "tiny-concat"] {
        let alone = job(model, &["parallel.mesh=1x1"]);
        let (plan, source) = (Arc::clone(&alone.assignment.plan), Arc::clone(&alone.train));
        let (settings, learning_rate) = (alone.assignment.settings, alone.assignment.learning_rate);
        let trial = Trial { source, batch_size: 8, settings, learning_rate, timeline: Timeline::default(), threads: 1 };
        let mut expected: BTreeMap<String, f64> = BTreeMap::new();
        for ((layer, _), gradient) in observe(&plan, &trial).unwrap().gradients {
            let squares = gradient.square().sum(Kind::Double).double_value(&[]);
            *expected.entry(plan.model.layers[layer].name.clone()).or_default() += squares;
        }
        let single = norms(alone);
        assert_eq!((single.len(), single[0].1.len()), (3, expected.len()), "{model}");
        for (name, norm) in &single[0].1 {
            assert!((norm / expected[name].sqrt() - 1.0).abs() < 1e-12, "{model}: {name} {norm} {expected:?}");
        }
        let whole = expected.values().sum::<f64>().sqrt();
        assert!((single[0].0 / whole - 1.0).abs() < 1e-12, "{model}: {} {whole}", single[0].0);
        for mesh in ["1x2", "1x3", "2x1", "3x1", "2x2", "3x2"] {
            let split = norms(job(model, &[&format!("parallel.mesh={mesh}")]));
            for ((one, layers), (other, expected)) in split.iter().zip(&single) {
                assert!((one / other - 1.0).abs() < 1e-9, "{model} on {mesh}: {one} {other}");
                for ((name, found), (same, wanted)) in layers.iter().zip(expected) {
                    assert_eq!(name, same);
                    assert!((found / wanted - 1.0).abs() < 1e-9, "{model} on {mesh}: {name} {found} {wanted}");
                }
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_has_such_a_norm() {
    // Weights of 1e30 and more after a step of such a rate: fp32 does not hold the next step's products, and nothing confines them.
    let settings =
        ["train.precision=fp32", "optimizer.learning_rate=1e30", "parallel.mesh=1x2", "model.activation=relu"];
    let mut found = Vec::new();
    let ended = run(job("tiny", &settings), Ranks::All, &mut |event| {
        if let Event::Step(step) = event {
            found.push(step.gradient_norm);
        }
    });
    assert!(ended.is_err() && found.len() == 2 && found[0].is_finite() && !found[1].is_finite(), "{found:?}");
}

/// Counted are the plan's bytes, in each operation, also in a last batch that leaves ranks with unequal shares of it, or
/// with none.
#[test]
fn counted_bytes_are_the_plans() {
    for model in ["tiny", "tiny-residual", "tiny-concat"] {
        for mesh in ["1x1", "1x2", "1x3", "2x1", "3x1", "2x2", "3x2"] {
            for (precision, value_bytes, exchange) in [("fp64", 8, "full"), ("bf16", 2, "full"), ("fp32", 4, "fp16")] {
                let settings = [
                    format!("parallel.mesh={mesh}"),
                    format!("train.precision={precision}"),
                    format!("train.exchange={exchange}"),
                ];
                let sizes = ["data.train_examples=18", "data.test_examples=2"];
                let all: Vec<&str> = settings.iter().map(String::as_str).chain(sizes).collect();
                let events = events(job(model, &all));
                let Event::Started(started) = &events[0] else { panic!("{:?}", events[0]) };
                assert_eq!(started.precision, precision);
                let steps = steps(&events);
                assert_eq!(steps.iter().map(|step| step.outcome.examples).collect::<Vec<_>>(), [8, 8, 2]);
                for step in steps {
                    for (rank, own) in step.ranks.iter().enumerate() {
                        let examples = step.outcome.examples as usize;
                        let expected = traffic::total(&of_step(&started.plan, rank, examples, value_bytes));
                        assert_eq!(own.traffic, expected, "{model} on {mesh}, {precision}, rank {rank}");
                        assert!(started.plan.mesh.ranks() == 1 || expected.sent_bytes() > 0);
                        assert!(own.loader_wait <= own.phases.get(Phase::Data) && step.time > Duration::ZERO);
                    }
                }
            }
        }
    }
}

/// What `mpt plan` prints is what processes on simulated GPUs count.
#[test]
fn a_rehearsal_counts_what_the_plan_prints() {
    let dir = tempfile::tempdir().unwrap();
    for (mesh, ranks) in [("2x2", "4"), ("1x3", "3")] {
        let run = dir.path().join(mesh);
        let common = ["--gpus", ranks, "--mesh", mesh, "--precision", "fp32"];
        let model = ["plan", "--json", "--model", "tiny", "--batch-size", "8"];
        let planned = output(&[&model[..], &common].concat());
        assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
        let planned: Value = serde_json::from_str(&stdout(&planned)).unwrap();
        let mut arguments = tiny(&[&common[..], &["--steps", "2", "--run-dir", text(&run)]].concat());
        arguments[0] = "rehearse";
        let done = output(&arguments);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let (planned, counted) = (planned["traffic"].as_array().unwrap(), devices(&run, 2));
        assert_eq!((planned.len(), planned.len().to_string().as_str()), (counted.len(), ranks));
        for (planned, counted) in planned.iter().zip(&counted) {
            for bytes in ["sent_bytes", "received_bytes"] {
                assert!(planned[bytes].as_u64() > Some(0));
                assert_eq!(planned[bytes], counted[bytes], "{mesh}");
            }
        }
    }
}

/// The time that a rank is late in each step.
const LATE: Duration = Duration::from_millis(40);

/// Makes rank 1 late: this is called on each rank's own thread.
extern "C" fn rank_1_is_slow(_: u64) {
    if thread::current().name() == Some("rank 1") {
        thread::sleep(LATE);
    }
}

fn slowed(mesh: &str) -> (Vec<Event>, Duration) {
    let mut job = job("tiny", &[&format!("parallel.mesh={mesh}"), "data.train_examples=64"]);
    job.assignment.on_step = Some(rank_1_is_slow);
    let begin = Instant::now();
    (events(job), begin.elapsed())
}

#[test]
fn a_device_that_is_slowed_is_the_one_that_the_others_wait_for() {
    for mesh in ["1x2", "2x1", "1x3", "2x2"] {
        let (events, passed) = slowed(mesh);
        let steps = steps(&events);
        assert_eq!(steps.len(), 8);
        let sum = |rank: usize, of: &dyn Fn(&mpt::events::RankStep) -> Duration| -> Duration {
            steps.iter().map(|step| of(&step.ranks[rank])).sum()
        };
        for rank in (0..steps[0].ranks.len()).filter(|&rank| rank != 1) {
            let wait = sum(rank, &|own| own.phases.get(Phase::Wait));
            let of_slow = sum(1, &|own| own.phases.get(Phase::Wait));
            assert!(wait > of_slow, "{mesh}: rank {rank} waited {wait:?}, the slow one {of_slow:?}");
            let awaited = (sum(rank, &|own| own.awaited), sum(1, &|own| own.awaited));
            assert!(awaited.0 < awaited.1, "{mesh}: rank {rank} {awaited:?}");
        }
        // What some wait, others are waited for; and no rank has more time than passed.
        let ranks = 0..steps[0].ranks.len();
        let waited: Duration = ranks.clone().map(|rank| sum(rank, &|own| own.phases.get(Phase::Wait))).sum();
        let awaited: Duration = ranks.clone().map(|rank| sum(rank, &|own| own.awaited)).sum();
        assert!(waited.abs_diff(awaited) < Duration::from_micros(100), "{mesh}: {waited:?} {awaited:?}");
        assert!(ranks.clone().all(|rank| sum(rank, &|own| own.phases.total()) <= passed), "{mesh}");
        assert!(steps.iter().all(|step| step.time == step.ranks[0].phases.total()));

        let place = events.iter().position(|event| matches!(event, Event::Bottleneck(_))).unwrap();
        assert!(matches!(events[place + 1], Event::Epoch(_)));
        let Event::Bottleneck(Bottleneck { epoch, bound, .. }) = &events[place] else { unreachable!() };
        let Bound::Peer { device, share } = bound else { panic!("{mesh}: {bound:?}") };
        assert_eq!((*epoch, device.as_str()), (1, "cpu:1"), "{mesh}");
        assert!(*share > 0.1 && *share < 1.0, "{mesh}: {share}");
        let line = match &events[place] {
            Event::Bottleneck(bottleneck) => bottleneck.to_string(),
            _ => unreachable!(),
        };
        assert!(line.starts_with("bound by cpu:1, for which the others waited "), "{line}");
    }
}

/// With an exchange that begins early and a peer that is late, what is hidden is counted, and not twice.
#[test]
fn what_is_under_way_while_a_rank_computes_is_counted_apart() {
    let hidden = |early: bool| {
        let settings = [&format!("parallel.early_exchange={early}")[..], "parallel.mesh=2x2", "data.train_examples=64"];
        let events = events(job("tiny-residual", &settings));
        let steps = steps(&events);
        let ranks: Vec<_> = steps.iter().flat_map(|step| &step.ranks).collect();
        let computed = |own: &mpt::events::RankStep| -> Duration {
            [Phase::Forward, Phase::Backward, Phase::Optimizer].map(|phase| own.phases.get(phase)).iter().sum()
        };
        assert!(ranks.iter().all(|own| own.overlapped <= computed(own)));
        ranks.iter().map(|own| own.overlapped).sum::<Duration>()
    };
    // Buckets of gradients are summed while the backward pass goes on, in any case.
    assert!(hidden(true) > Duration::ZERO && hidden(false) > Duration::ZERO);
}

/// The devices of a step in the record of a run.
fn devices(run: &Path, step: u64) -> Vec<Value> {
    let record = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut found = lines.filter(|line| line["kind"] == "step" && line["step"] == step);
    found.next().unwrap()["devices"].as_array().unwrap().clone()
}

fn seconds(device: &Value, phases: &[&str]) -> f64 {
    phases.iter().map(|phase| device[format!("{phase}_seconds")].as_f64().unwrap()).sum()
}

/// On simulated GPUs, ranks being processes: a rank that comes late is waited for; a call that takes long is not
/// waiting but travelling.
#[test]
fn a_slow_rank_and_a_slow_link_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = |fault: &str| {
        let run = dir.path().join(fault.split(':').next().unwrap());
        let more = ["--gpus", "2", "--mode", "model-parallel", "--steps", "6", "--fault", fault];
        let mut arguments = tiny(&[&more[..], &["--run-dir", text(&run)]].concat());
        arguments[0] = "rehearse";
        let done = output(&arguments);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        devices(&run, 5)
    };
    let compute = ["forward", "backward", "optimizer"];
    let slow = recorded("slow:1@5");
    assert!(seconds(&slow[0], &["wait"]) > seconds(&slow[0], &compute), "{slow:?}");
    assert!(seconds(&slow[0], &["wait"]) > seconds(&slow[0], &["exchange", "reduce"]), "{slow:?}");
    assert!(seconds(&slow[1], &["wait"]) < seconds(&slow[0], &["wait"]) / 2.0, "{slow:?}");
    let late = recorded("delay:1@5");
    for device in &late {
        assert!(seconds(device, &["exchange"]) > seconds(device, &["wait"]), "{late:?}");
    }
}
