//! Metrics: that the families are those that dashboards are built on, that every series is there before the first step,
//! and that the numbers are those of the record.

use mpt::comm::{Operation, Traffic, Volume};
use mpt::engine::phases::Phase;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::Event;
use mpt::launch::control::Control;
use mpt::metrics::{Metrics, Watched};
use mpt::recipe::{Layered, Recipe};
use mpt::report::run_log::{METRICS, RunLog};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Name, kind and labels of every family but the process's own: those that dashboards are promised, and beyond them
/// mpt_run_info, mpt_remaining_steps and mpt_evaluated_examples_total.
const FAMILIES: [(&str, &str, &str); 30] = [
    ("mpt_accuracy_ratio", "gauge", "subset"),
    ("mpt_build_info", "gauge", "libtorch version"),
    ("mpt_device_memory_bytes", "gauge", "device"),
    ("mpt_epoch", "gauge", ""),
    ("mpt_evaluated_examples_total", "counter", ""),
    ("mpt_examples_per_second", "gauge", "device"),
    ("mpt_examples_total", "counter", "device"),
    ("mpt_exchange_received_bytes_total", "counter", "device op"),
    ("mpt_exchange_sent_bytes_total", "counter", "device op"),
    ("mpt_gradient_norm", "gauge", ""),
    ("mpt_image_decode_failures_total", "counter", ""),
    ("mpt_images_decoded_total", "counter", ""),
    ("mpt_job_examples_total", "counter", ""),
    ("mpt_last_checkpoint_timestamp_seconds", "gauge", ""),
    ("mpt_last_step_timestamp_seconds", "gauge", ""),
    ("mpt_learning_rate", "gauge", ""),
    ("mpt_loader_queue_batches", "gauge", ""),
    ("mpt_loss", "gauge", "subset"),
    ("mpt_model_flops_per_second", "gauge", "device"),
    ("mpt_nonfinite_steps_total", "counter", ""),
    ("mpt_phase_seconds_total", "counter", "device phase"),
    ("mpt_rank_info", "gauge", "data_rank device model_rank rank"),
    ("mpt_remaining_steps", "gauge", ""),
    ("mpt_run_info", "gauge", "mesh mode model precision"),
    ("mpt_step_duration_seconds", "histogram", ""),
    ("mpt_steps_total", "counter", ""),
    ("process_cpu_seconds_total", "counter", ""),
    ("process_open_fds", "gauge", ""),
    ("process_resident_memory_bytes", "gauge", ""),
    ("process_start_time_seconds", "gauge", ""),
];

pub fn recipe(settings: &[&str]) -> Recipe {
    let mut layered = Layered::from_recipe("fashion-mnist").unwrap();
    let small = [
        "model.name=tiny",
        "data.source=noise",
        "data.image=[2,13,13]",
        "data.classes=5",
        "data.train_examples=40",
        "data.test_examples=37",
        "train.batch_size=8",
        "train.epochs=2",
        "train.precision=fp64",
    ];
    for assignment in small.iter().chain(settings) {
        layered.set(assignment, "test").unwrap();
    }
    layered.recipe().unwrap()
}

pub fn metrics_of(job: &Job) -> Metrics {
    let watched = Watched {
        plan: Arc::clone(&job.assignment.plan),
        devices: job.devices.clone(),
        shown: (0..job.devices.len()).collect(),
        precision: "fp64",
        loader: Arc::clone(&job.loaded),
    };
    Metrics::new(&watched).unwrap()
}

/// A label and its value.
type Label = (String, String);

/// What a scrape says.
#[derive(Default)]
pub struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Vec<Label>), f64>,
}

impl Scrape {
    pub fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["#", "TYPE", name, kind] => {
                    assert_eq!(scrape.kinds.insert(name.into(), kind.into()), None, "{name}");
                }
                ["#", ..] => {}
                [series, value] => {
                    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
                    let labels = labels.map(|(name, value)| (name.into(), value.trim_matches('"').into())).collect();
                    let before = scrape.samples.insert((name.into(), labels), value.parse().unwrap());
                    assert_eq!(before, None, "{series} is there twice");
                }
                _ => panic!("what is {line}?"),
            }
        }
        scrape
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = (name.to_owned(), labels);
        *self.samples.get(&key).unwrap_or_else(|| panic!("there is no {key:?}"))
    }

    /// The values of a label over the series of a name.
    fn values_of(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let of_name = self.samples.keys().filter(|(found, _)| found == name);
        of_name.flat_map(|(_, labels)| labels).filter(|(found, _)| found == label).map(|(_, v)| v.as_str()).collect()
    }
}

#[test]
fn every_family_of_the_interface_is_there_before_the_first_step() {
    let job = Job::new(&recipe(&["parallel.mesh=1x2"]), Control::default()).unwrap();
    let scrape = Scrape::of(&metrics_of(&job).text().unwrap());
    let others = ["process_max_fds", "process_threads", "process_virtual_memory_bytes"];
    let found: BTreeSet<(&str, &str)> = scrape
        .kinds
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .filter(|(name, _)| !others.contains(name))
        .collect();
    assert_eq!(found, FAMILIES.iter().map(|&(name, kind, _)| (name, kind)).collect());
    for (name, kind, labels) in FAMILIES {
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let series: Vec<_> = scrape.samples.iter().filter(|((found, _), _)| *found == sample).collect();
        assert!(!series.is_empty(), "{name} has no series");
        for ((_, found), value) in series {
            let mut found: Vec<&str> = found.iter().map(|(label, _)| label.as_str()).collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), labels, "{name}");
            let begins = match kind {
                _ if name.starts_with("process_") => true,
                "gauge" if name.ends_with("_info") => *value == 1.0,
                "gauge" => value.is_nan(),
                _ => *value == 0.0,
            };
            assert!(begins, "{name} begins with {value}");
        }
    }
    for (name, label, expected) in [
        ("mpt_examples_total", "device", vec!["cpu:0", "cpu:1"]),
        ("mpt_exchange_sent_bytes_total", "op", Operation::ALL.map(Operation::name).to_vec()),
        ("mpt_phase_seconds_total", "phase", [&Phase::ALL.map(Phase::name)[..], &["overlapped"]].concat()),
        ("mpt_loss", "subset", vec!["train", "test"]),
    ] {
        assert_eq!(scrape.values_of(name, label), expected.into_iter().collect(), "{name}");
    }
}

/// Trains with metrics and a record; gives what a scrape says after the last step, and the lines of the record.
fn watched(mesh: &str, folder: &Path) -> (Scrape, Vec<Value>) {
    let job = Job::new(&recipe(&[&format!("parallel.mesh={mesh}")]), Control::default()).unwrap();
    let metrics = metrics_of(&job);
    let mut log = RunLog::in_folder(folder, "", &job.devices).unwrap();
    let hear = &mut |event: &Event| {
        log.event(event);
        metrics.event(event);
    };
    run(job, Ranks::All, hear).unwrap();
    drop(log);
    let record = std::fs::read_to_string(folder.join(METRICS)).unwrap();
    (Scrape::of(&metrics.text().unwrap()), record.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs()
}

/// Checks what a scrape says of a device against its part of the steps in the record.
fn check_device(scrape: &Scrape, device: &str, own: &[&Value], seconds: f64) {
    let sum = |key: &str| own.iter().map(|step| step[key].as_f64().unwrap()).sum::<f64>();
    let of_device = [("device", device)];
    for (name, key) in
        [("mpt_exchange_sent_bytes_total", "sent_bytes"), ("mpt_exchange_received_bytes_total", "received_bytes")]
    {
        let by_operation = Operation::ALL.map(|op| scrape.value(name, &[("device", device), ("op", op.name())]));
        assert_eq!(by_operation.iter().sum::<f64>(), sum(key), "{device}: {name}");
        assert!(sum(key) > 0.0);
    }
    for phase in Phase::ALL.map(Phase::name).into_iter().chain(["overlapped"]) {
        let counted = scrape.value("mpt_phase_seconds_total", &[("device", device), ("phase", phase)]);
        assert!(near(counted, sum(&format!("{phase}_seconds"))), "{device}: {phase}: {counted}");
    }
    let examples = scrape.value("mpt_examples_total", &of_device);
    let rate = scrape.value("mpt_examples_per_second", &of_device);
    assert!(near(rate, examples / seconds), "{device}: {rate}, {examples} in {seconds} s");
}

#[test]
fn what_is_counted_is_what_the_record_tells() {
    for (mesh, worked_on) in [("1x2", [80.0; 2].to_vec()), ("2x2", [40.0; 4].to_vec()), ("3x1", vec![30.0, 30.0, 20.0])]
    {
        let dir = tempfile::tempdir().unwrap();
        let (scrape, record) = watched(mesh, dir.path());
        let steps: Vec<&Value> = record.iter().filter(|line| line["kind"] == "step").collect();
        let of_run = |key: &str| steps.iter().map(|step| step[key].as_f64().unwrap()).sum::<f64>();
        for (rank, &examples) in worked_on.iter().enumerate() {
            let device = format!("cpu:{rank}");
            assert_eq!(scrape.value("mpt_examples_total", &[("device", &device)]), examples, "{mesh}");
            let own: Vec<&Value> = steps.iter().map(|step| &step["devices"][rank]).collect();
            check_device(&scrape, &device, &own, of_run("seconds"));
        }
        let job = |name: &str| scrape.value(name, &[]);
        assert_eq!((job("mpt_job_examples_total"), job("mpt_steps_total"), job("mpt_epoch")), (80.0, 10.0, 2.0));
        assert_eq!((job("mpt_remaining_steps"), job("mpt_nonfinite_steps_total")), (0.0, 0.0));
        // Two epochs of training and two evaluations.
        assert_eq!((job("mpt_evaluated_examples_total"), job("mpt_images_decoded_total")), (74.0, 154.0), "{mesh}");
        assert_eq!(job("mpt_step_duration_seconds_count"), 10.0);
        assert!(near(job("mpt_step_duration_seconds_sum"), of_run("seconds")));
        let weighted: f64 =
            steps.iter().map(|step| step["loss"].as_f64().unwrap() * step["examples"].as_f64().unwrap()).sum();
        assert!(near(scrape.value("mpt_loss", &[("subset", "train")]), weighted / 80.0));
        let last = record.last().unwrap();
        assert!(near(scrape.value("mpt_loss", &[("subset", "test")]), last["test_loss"].as_f64().unwrap()));
        let accuracy = scrape.value("mpt_accuracy_ratio", &[("subset", "test")]);
        assert!(near(accuracy, last["test_accuracy"].as_f64().unwrap()));
        assert_eq!(job("mpt_learning_rate"), steps[9]["learning_rate"].as_f64().unwrap());
    }
}

/// Each of two halves of the channels costs half of the work; together they do what one device does.
#[test]
fn floating_point_operations_follow_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (split, _) = watched("1x2", &dir.path().join("split"));
    let (whole, _) = watched("1x1", &dir.path().join("whole"));
    let per_example = |scrape: &Scrape, device: &str| {
        let of_device = [("device", device)];
        scrape.value("mpt_model_flops_per_second", &of_device) / scrape.value("mpt_examples_per_second", &of_device)
    };
    let halves = per_example(&split, "cpu:0") + per_example(&split, "cpu:1");
    assert!(near(halves, per_example(&whole, "cpu:0")), "{halves}");
    let network = mpt::model::shipped::load("tiny", &mpt::model::parse::Edits::default()).unwrap();
    let macs = |layer| mpt::model::cost::multiply_accumulates(&network, layer, network.layers[layer].output.channels);
    // A multiply and an add; and the backward pass twice as much as the forward pass, but for the first layer, which reads
    // images: they need no gradient.
    let all: u64 = (0..network.layers.len()).map(macs).sum();
    let first = (0..network.layers.len()).map(macs).find(|&macs| macs > 0).unwrap();
    let expected = 6 * all - 2 * first;
    assert!(near(halves, expected as f64), "{halves} {expected}");
}

/// On the way back an exchange sends what it received on the way there, so that trainings do not tell the two apart.
#[test]
fn bytes_are_told_by_device_operation_and_direction() {
    let job = Job::new(&recipe(&["parallel.mesh=1x2", "train.epochs=1"]), Control::default()).unwrap();
    let metrics = metrics_of(&job);
    run(job, Ranks::All, &mut |event| {
        let Event::Step(step) = event else { return };
        let mut step = step.clone();
        step.ranks.iter_mut().for_each(|own| own.traffic = Traffic::default());
        step.ranks[1].traffic.count(Operation::AllToAll, Volume { sent_bytes: 5, received_bytes: 7 });
        metrics.event(&Event::Step(step));
    })
    .unwrap();
    let scrape = Scrape::of(&metrics.text().unwrap());
    for (rank, device) in ["cpu:0", "cpu:1"].into_iter().enumerate() {
        for operation in Operation::ALL {
            let here = rank == 1 && operation == Operation::AllToAll;
            for (name, bytes) in [("mpt_exchange_sent_bytes_total", 5.0), ("mpt_exchange_received_bytes_total", 7.0)] {
                let counted = scrape.value(name, &[("device", device), ("op", operation.name())]);
                // In each of five steps.
                assert_eq!(counted, if here { 5.0 * bytes } else { 0.0 }, "{name} of {device}, {}", operation.name());
            }
        }
    }
}

/// A run whose learning rate makes it diverge at once, in a network whose layers do not confine their numbers.
#[test]
fn steps_without_a_finite_loss_are_counted() {
    let settings = ["optimizer.learning_rate=1e200", "train.epochs=1", "model.activation=relu", "train.nonfinite=skip"];
    let job = Job::new(&recipe(&settings), Control::default()).unwrap();
    let metrics = metrics_of(&job);
    let mut infinite = 0;
    let hear = &mut |event: &Event| {
        if let Event::Step(step) = event {
            infinite += i32::from(!step.outcome.loss().is_finite());
        }
        metrics.event(event);
    };
    run(job, Ranks::All, hear).unwrap();
    let scrape = Scrape::of(&metrics.text().unwrap());
    assert!(infinite > 0);
    assert_eq!(scrape.value("mpt_nonfinite_steps_total", &[]), f64::from(infinite));
    assert!(!scrape.value("mpt_loss", &[("subset", "train")]).is_finite());
}

/// Of several hosts each shows its own devices, and all of them the job's series.
#[test]
fn a_host_shows_its_own_devices() {
    let job = Job::new(&recipe(&["parallel.mesh=2x2"]), Control::default()).unwrap();
    let host = |shown| Watched {
        plan: Arc::clone(&job.assignment.plan),
        devices: job.devices.clone(),
        shown,
        precision: "fp64",
        loader: Arc::clone(&job.loaded),
    };
    // Numbered as `srun --distribution cyclic` numbers them.
    let hosts = [[0, 2], [1, 3]].map(|shown| Metrics::new(&host(shown.into())).unwrap());
    run(job, Ranks::All, &mut |event| hosts.iter().for_each(|metrics| metrics.event(event))).unwrap();
    let scrapes = hosts.map(|metrics| Scrape::of(&metrics.text().unwrap()));
    for (scrape, devices) in scrapes.iter().zip([["cpu:0", "cpu:2"], ["cpu:1", "cpu:3"]]) {
        for name in ["mpt_examples_total", "mpt_phase_seconds_total", "mpt_rank_info"] {
            assert_eq!(scrape.values_of(name, "device"), devices.into_iter().collect(), "{name}");
        }
        assert_eq!(scrape.value("mpt_job_examples_total", &[]), 80.0);
        assert_eq!(scrape.value("mpt_examples_total", &[("device", devices[1])]), 40.0);
    }
}
