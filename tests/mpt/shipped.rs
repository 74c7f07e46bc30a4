//! Shipped models, models of one's own, and the sentences for those that cannot be.

use mpt::model::cost::parameter_count;
use mpt::model::parse::{Edits, parse};
use mpt::model::{Kind, Model, shipped};

fn model(name: &str) -> Model {
    shipped::load(name, &Edits::default()).unwrap()
}

fn parameters(model: &Model) -> usize {
    (0..model.layers.len()).map(|layer| parameter_count(model, layer)).sum()
}

#[test]
fn the_seeds_network_has_the_seeds_shapes() {
    let shapes: Vec<String> = model("alexnet-dense").layers.iter().map(|layer| layer.output.to_string()).collect();
    let expected = [
        "96x54x54",
        "96x54x54",
        "96x26x26",
        "256x26x26",
        "256x26x26",
        "256x12x12",
        "384x12x12",
        "384x12x12",
        "384x12x12",
        "384x12x12",
        "256x12x12",
        "256x12x12",
        "256x5x5",
        "6400",
        "4096",
        "4096",
        "4096",
        "4096",
        "4096",
        "4096",
        "10",
        "10",
    ];
    assert_eq!(shapes, expected);
    assert_eq!(parameters(&model("alexnet-dense")), 46_764_746);
    assert_eq!(parameters(&model("lenet")), 61_706);
    // Two towers: conv2, conv4 and conv5 have half of the weights of the dense network, and all of its biases.
    let halved = (256 * 96 * 25 + 384 * 384 * 9 + 256 * 384 * 9) / 2;
    assert_eq!(parameters(&model("alexnet")), 46_764_746 - halved);
}

#[test]
fn edits_replace_activations_and_dropout() {
    let edits = Edits { activation: Some(Kind::Sigmoid), dropout: Some(0.1) };
    let edited = shipped::load("alexnet", &edits).unwrap();
    let kinds = |kind: Kind| edited.layers.iter().filter(|layer| layer.kind == kind).count();
    assert_eq!((kinds(Kind::Relu), kinds(Kind::Sigmoid), kinds(Kind::Dropout { probability: 0.1 })), (0, 7, 2));
}

const HEAD: &str = "name = \"mine\"\ninput = [3, 8, 8]\n";

fn fault(layers: &str) -> String {
    parse(&format!("{HEAD}layers = [\n{layers}\n]"), "mine.toml", &Edits::default()).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_one_sentence_that_names_the_layer() {
    let end = "{ kind = \"flatten\" }, { kind = \"linear\", out = 2 }, { kind = \"softmax-cross-entropy\" }";
    for (layers, sentence) in [
        (
            "{ name = \"c\", kind = \"conv\", out = 4, kernel = 11 },",
            "model mine: layer c: its kernel 11x11 does not fit its input 8x8 with padding 0",
        ),
        (
            "{ name = \"c\", kind = \"conv\", out = 4, kernel = 3, groups = 2 },",
            "model mine: layer c: 2 groups must divide both its 3 input channels and its 4 output channels",
        ),
        ("{ name = \"c\", kind = \"conv\", out = 4, kernal = 3 },", "model mine: layer c: the key `kernel` is missing"),
        (
            "{ name = \"c\", kind = \"conv\", out = 4, kernel = 3, pading = 3 },",
            "model mine: layer c: unknown key `pading`; did you mean `padding`?",
        ),
        ("{ name = \"c\", kind = \"cnov\" },", "model mine: layer c: unknown kind `cnov`; did you mean `conv`?"),
        (
            "{ name = \"f\", kind = \"linear\", out = 4 },",
            "model mine: layer f: it reads flat features, but its input is 3x8x8; put a layer of kind flatten before it",
        ),
        (
            "{ name = \"a\", kind = \"conv\", out = 4, kernel = 1 }, { name = \"s\", kind = \"add\", inputs = [\"a\", \"image\"] },",
            "model mine: layer s: it adds inputs of one shape, but they are 4x8x8 and 3x8x8",
        ),
        (
            "{ name = \"p\", kind = \"max-pool\", kernel = 2 }, { name = \"j\", kind = \"concat\", inputs = [\"p\", \"image\"] },",
            "model mine: layer j: it joins inputs of one height and width, but they are 3x4x4 and 3x8x8",
        ),
        (
            "{ name = \"r\", kind = \"relu\", inputs = [\"imag\"] },",
            "model mine: layer r: its input `imag` is no layer before it; did you mean `image`?",
        ),
        (
            "{ name = \"r\", kind = \"relu\" }, { name = \"r\", kind = \"relu\" },",
            "model mine: layer r: this name is taken already; every layer needs its own",
        ),
        (
            "{ name = \"d\", kind = \"dropout\", probability = 1.0 },",
            "model mine: layer d: `probability` must be at least 0 and below 1, not 1",
        ),
        (
            "{ name = \"c\", kind = \"conv\", out = 0, kernel = 3 },",
            "model mine: layer c: `out` must lie between 1 and 4194304, not 0",
        ),
        (
            "{ name = \"c\", kind = \"conv\", out = 4, kernel = 3, weight_init = \"xavier\" },",
            "model mine: layer c: `weight_init` must be one of \"xavier-uniform\", \"xavier-uniform-per-group\", \"kaiming-uniform\", \
             \"kaiming-normal\", \"fan-in-uniform\", { normal = STD } or { constant = VALUE }, not `\"xavier\"`",
        ),
        (
            "{ name = \"c\", kind = \"conv\", out = 4, kernel = 3, inputs = [\"image\"] }, { name = \"r\", kind = \"relu\", inputs = [\"image\"] },",
            "model mine: nothing reads what layer c gives; remove it or read it",
        ),
    ] {
        assert_eq!(fault(&format!("{layers} {end}")), sentence);
    }
    assert_eq!(
        fault("{ kind = \"flatten\" }, { name = \"f\", kind = \"linear\", out = 2 }"),
        "model mine: the last layer, f, must be of kind softmax-cross-entropy: that is the loss"
    );
    assert_eq!(fault(""), "model mine: it has no layers");
    assert_eq!(
        fault("{ kind = \"flatten\" }, { kind = \"softmax-cross-entropy\" }"),
        "model mine: no layer has weights, so there is nothing to train"
    );
}

#[test]
fn sizes_that_no_machine_has_are_refused_and_not_computed() {
    let text = "name = \"big\"\ninput = [1, 65536, 65536]\nlayers = [ { kind = \"conv\", out = 4194304, kernel = 1 }, { kind = \"flatten\" }, { kind = \"linear\", out = 2 }, { kind = \"softmax-cross-entropy\" } ]";
    let message = parse(text, "big.toml", &Edits::default()).unwrap_err().to_string();
    assert!(message.contains("no size that can be computed"), "{message}");
}
