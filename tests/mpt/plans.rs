//! Plans as pure data: who owns what, what is read, and what travels.

use crate::networks::{network, pieces};
use mpt::engine::session::Job;
use mpt::launch::control::Control;
use mpt::model::parse::Edits;
use mpt::model::{Channels, Model, shipped};
use mpt::plan::exchange::transfers;
use mpt::plan::memory::{GPU_PLACE_BYTES, Sizes, fullest};
use mpt::plan::{Exchange, Mesh, Mode, Operation, Placement, Plan, Read, Weights, plan};
use mpt::report::plan_table::exchange_lines;
use proptest::prelude::*;

fn model_parallel(model: &Model, devices: usize) -> mpt::error::Result<Plan> {
    plan(model, Mesh { data: 1, model: devices }, Mode::ModelParallel)
}

fn alexnet() -> Model {
    shipped::load("alexnet", &Edits::default()).unwrap()
}

#[test]
fn alexnet_on_two_devices_exchanges_where_the_towers_cross_and_nowhere_else() {
    let plan = model_parallel(&alexnet(), 2).unwrap();
    let names: Vec<&str> = plan.exchanges.iter().map(|e| plan.model.layers[e.reader].name.as_str()).collect();
    assert_eq!(names, ["conv3", "fc6", "fc7", "loss"]);
    let values: Vec<_> = plan.exchanges.iter().map(|exchange| exchange.values_sent(&plan.model, 0)).collect();
    assert_eq!(values, [(128 * 12 * 12, 128 * 12 * 12), (3200, 3200), (2048, 2048), (10, 0)]);
    let operations: Vec<_> = plan.exchanges.iter().map(|exchange| exchange.operation).collect();
    assert_eq!(operations, [Operation::AllGather, Operation::AllGather, Operation::AllGather, Operation::AllReduce]);
}

/// What the two GPUs of 2012 sent each other, per image: 21,632, 4,608 and 2,048 values before conv3, fc6 and fc7. Before the last
/// layer they gathered 2,048 more; here its 1,000 partial logits are summed.
#[test]
fn the_plan_of_2012_on_two_devices() {
    let model = shipped::load("alexnet-2012", &Edits::default()).unwrap();
    let plan = model_parallel(&model, 2).unwrap();
    let lines = exchange_lines(&plan);
    assert_eq!(
        lines,
        [
            "before conv3: all-gather of pool2, 21,632 values per example and device; back: reduce-scatter, 21,632 values",
            "before fc6: all-gather of flatten, 4,608 values per example and device; back: reduce-scatter, 4,608 values",
            "before fc7: all-gather of drop6, 2,048 values per example and device; back: reduce-scatter, 2,048 values",
            "before loss: all-reduce of fc8, 1,000 values per example and device; back: nothing",
        ]
    );
    let of_device = |layer: &str| {
        let at = model.layers.iter().position(|found| found.name == layer).unwrap();
        let parameters: usize = plan.parameter_shares(at, 1).iter().map(|share| share.len()).sum();
        (plan.held(at + 1, 1).to_string(), parameters, plan.multiply_accumulates(at, 1))
    };
    for (layer, held, parameters, work) in [
        ("conv1", "48..96", 17_472, 52_707_600),
        ("norm1", "48..96", 0, 0),
        ("conv2", "128..256", 153_728, 111_974_400),
        ("conv3", "192..384", 442_560, 74_760_192),
        ("conv4", "192..384", 331_968, 56_070_144),
        ("conv5", "128..256", 221_312, 37_380_096),
        ("fc6", "2048..4096", 18_876_416, 18_874_368),
        ("fc7", "2048..4096", 8_390_656, 8_388_608),
        // Its half of the columns, and the bias, which each has.
        ("fc8", "0..1000", 2_049_000, 2_048_000),
    ] {
        assert_eq!(of_device(layer), (held.to_owned(), parameters, work), "{layer}");
    }
    // Towers that never read each other exchange partial logits alone.
    let apart = model_parallel(&shipped::load("alexnet-2012-apart", &Edits::default()).unwrap(), 2).unwrap();
    assert_eq!(exchange_lines(&apart), [lines[3].clone()]);
}

/// On the 3 GiB of a GPU of 2012: the whole network with a batch of 128 (its author's code kept more of it), but not with 512,
/// which two devices hold in either mode.
#[test]
fn what_fits_a_device_of_2012() {
    let model = shipped::load("alexnet-2012", &Edits::default()).unwrap();
    let fits = |batch_size, mesh: &str, mode| {
        let sizes = Sizes {
            batch_size,
            value_bytes: 4,
            master_bytes: 4,
            momentum: true,
            checkpoints: false,
            place_bytes: GPU_PLACE_BYTES,
            data_set: 0,
        };
        fullest(&plan(&model, mesh.parse().unwrap(), mode).unwrap(), sizes).total() <= 3 << 30
    };
    let of_batch = |batch| {
        [("1x1", Mode::Single), ("2x1", Mode::DataParallel), ("1x2", Mode::ModelParallel)]
            .map(|(mesh, mode)| fits(batch, mesh, mode))
    };
    assert_eq!([128, 512, 1024].map(of_batch), [[true; 3], [false, true, true], [false; 3]]);
}

/// Where a share ends inside a tower, a norm reads two channels on each side of it, and one tower's never from the other.
#[test]
fn norms_bring_the_channels_beside_a_share() {
    let model = shipped::load("alexnet-2012", &Edits::default()).unwrap();
    let plan = model_parallel(&model, 4).unwrap();
    let line =
        |reader: &str| exchange_lines(&plan).into_iter().find(|line| line.starts_with(&format!("before {reader}:")));
    assert_eq!(
        line("norm1").unwrap(),
        "before norm1: send-receive of relu1, 6,050 values per example and device; back: send-receive and sum, 6,050 values"
    );
    let norm = model.layers.iter().position(|layer| layer.name == "norm1").unwrap();
    let reads: Vec<String> = plan.layers[norm].reads[0].iter().map(ToString::to_string).collect();
    assert_eq!(reads, ["0..26", "22..48", "48..74", "70..96"]);
}

#[test]
fn each_of_two_devices_stores_half_of_the_split_weights() {
    let plan = model_parallel(&alexnet(), 2).unwrap();
    for layer in 0..plan.model.layers.len() {
        let shares = plan.parameter_shares(layer, 0).into_iter().zip(plan.parameter_shares(layer, 1));
        for (first, second) in shares {
            let whole: usize = first.whole.iter().product();
            let replicated = plan.layers[layer].weights == Weights::InputSplit && first.whole.len() == 1;
            let expected = if replicated { whole } else { whole / 2 };
            assert_eq!((first.len(), second.len()), (expected, expected), "{}", plan.model.layers[layer].name);
            assert!(replicated || first.held.intersection(&second.held).is_empty());
        }
    }
}

#[test]
fn a_split_network_fits_where_the_whole_one_does_not() {
    let sizes = Sizes {
        batch_size: 128,
        value_bytes: 4,
        master_bytes: 4,
        momentum: true,
        checkpoints: true,
        place_bytes: GPU_PLACE_BYTES,
        data_set: 0,
    };
    let needs = |devices| fullest(&model_parallel(&alexnet(), devices).unwrap(), sizes).total();
    assert!(needs(2) * 10 < needs(1) * 6 && needs(4) < needs(2), "{} {} {}", needs(1), needs(2), needs(4));
}

/// 64 threads are the most of one machine; ranks on many machines are as many as there are.
#[test]
fn a_job_may_have_more_ranks_than_a_machine_has_threads() {
    let recipe = crate::training::recipe(&["parallel.mesh=128x1"]);
    let job = Job::new(&recipe, Control::default()).unwrap();
    assert_eq!(job.devices.len(), 128);
}

#[test]
fn too_many_devices_are_refused_with_the_layer_and_the_most() {
    let lenet = shipped::load("lenet", &Edits::default()).unwrap();
    let message = model_parallel(&lenet, 7).unwrap_err().to_string();
    assert_eq!(
        message,
        "model lenet: layer conv1 has 6 output channels, too few to leave each of 7 devices one; \
         use at most 6 devices along the model axis"
    );
    model_parallel(&lenet, 6).unwrap();
    model_parallel(&alexnet(), 8).unwrap();
}

/// What a plan must be whatever the model: complete, without overlap, and exact about what travels.
fn check(plan: &Plan) {
    for (activation, placement) in plan.placements.iter().enumerate() {
        if let Placement::Shard(owned) = placement {
            let all = owned.iter().fold(Channels::none(), |all, own| all.union(own));
            let count: usize = owned.iter().map(Channels::len).sum();
            let channels = plan.model.shape(activation).channels;
            assert_eq!((all, count), (Channels::all(channels), channels), "each channel has one owner");
            assert!(owned.iter().all(|own| !own.is_empty()), "each rank has a channel");
        }
    }
    for (layer, planned) in plan.layers.iter().enumerate() {
        let inputs = plan.model.layers[layer].inputs.iter().zip(&planned.sources).zip(&planned.reads);
        for ((&input, source), reads) in inputs {
            for (rank, read) in reads.iter().enumerate() {
                let held = plan.held(input, rank);
                match source {
                    Read::Held => assert_eq!(&held, read),
                    Read::Part(parts) => assert!(held.contains(read) && parts[rank] == *read),
                    Read::Exchanged(id) => assert_eq!(plan.exchanges[*id].needed[rank], *read),
                }
            }
        }
    }
    for exchange in plan.exchanges.iter().filter(|exchange| exchange.operation != Operation::AllReduce) {
        let travels = exchange.transfers();
        for (rank, needed) in exchange.needed.iter().enumerate() {
            let received = travels.iter().filter(|transfer| transfer.to == rank);
            let received: Vec<&Channels> = received.map(|transfer| &transfer.channels).collect();
            let kept = exchange.owned[rank].intersection(needed);
            let all = received.iter().fold(kept.clone(), |all, part| all.union(part));
            let count = kept.len() + received.iter().map(|part| part.len()).sum::<usize>();
            assert_eq!((&all, count), (needed, needed.len()), "owned and received make up what is read, once");
        }
        let mut there_and_back = exchange.adjoint_transfers();
        for transfer in &mut there_and_back {
            std::mem::swap(&mut transfer.from, &mut transfer.to);
        }
        if !there_and_back.is_empty() {
            assert_eq!(there_and_back, travels, "the adjoint of the adjoint is the exchange");
        }
    }
}

/// conv3 and the linear layers of AlexNet read all channels: they can begin with their own. conv2 on three devices reads
/// some of the others' channels only, and the logits are a sum.
#[test]
fn dense_layers_can_begin_with_their_own_part() {
    for (devices, expected) in [(2, &["conv3", "fc6", "fc7"][..]), (3, &["conv3", "fc6", "fc7"])] {
        let plan = model_parallel(&alexnet(), devices).unwrap();
        assert!(plan.exchanges.iter().all(|exchange| !exchange.in_parts));
        let own_first = plan.clone().own_part_first();
        let in_parts = own_first.exchanges.iter().filter(|exchange| exchange.in_parts);
        let readers: Vec<&str> = in_parts.map(|exchange| &own_first.model.layers[exchange.reader].name[..]).collect();
        assert_eq!(readers, expected, "on {devices} devices");
        assert!(own_first.exchanges.len() > readers.len());
        // What travels is the same.
        let travels = |plan: &Plan| plan.exchanges.iter().map(Exchange::transfers).collect::<Vec<_>>();
        assert_eq!(travels(&own_first), travels(&plan));
    }
}

#[test]
fn shipped_models_have_sound_plans_on_any_number_of_devices() {
    let mut sound = 0;
    for name in shipped::names() {
        let model = shipped::load(name, &Edits::default()).unwrap();
        for devices in [1, 2, 3, 4, 5, 6, 7, 8] {
            if let Ok(plan) = model_parallel(&model, devices) {
                check(&plan);
                sound += 1;
            }
            check(&plan(&model, Mesh { data: devices, model: 1 }, Mode::DataParallel).unwrap());
        }
    }
    assert!(sound > 40, "{sound}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_have_sound_plans(pieces in pieces(), devices in 1usize..6) {
        if let Some(plan) = network(&pieces).and_then(|model| model_parallel(&model, devices).ok()) {
            check(&plan);
        }
    }

    #[test]
    fn transfers_bring_each_rank_what_it_needs_and_does_not_own(
        borders in prop::collection::vec(0usize..30, 1..5),
        needs in prop::collection::vec((0usize..30, 0usize..30), 6),
    ) {
        let mut borders = borders;
        borders.extend([0, 30]);
        borders.sort_unstable();
        let owned: Vec<Channels> = borders.windows(2).map(|pair| (pair[0]..pair[1]).into()).collect();
        let needed: Vec<Channels> =
            needs[..owned.len()].iter().map(|&(a, b)| (a.min(b)..a.max(b)).into()).collect();
        let travels = transfers(&owned, &needed);
        for (rank, need) in needed.iter().enumerate() {
            let received: Vec<&Channels> = travels.iter().filter(|t| t.to == rank).map(|t| &t.channels).collect();
            let all = received.iter().fold(Channels::none(), |all, part| all.union(part));
            prop_assert_eq!(&all, &need.difference(&owned[rank]));
            prop_assert_eq!(all.len(), received.iter().map(|part| part.len()).sum::<usize>());
        }
    }
}
