//! Shipped models, models of one's own, and the sentences for those that cannot be.

use mpt::model::cost::{multiply_accumulates, parameter_count};
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

/// The figures of the papers, and of their authors' own counts.
#[test]
fn the_networks_of_2012_and_2014_are_those_of_the_papers() {
    let two = model("alexnet-2012");
    let shapes: Vec<String> = two.layers.iter().map(|layer| format!("{} {}", layer.name, layer.output)).collect();
    let expected = "conv1 96x55x55, relu1 96x55x55, norm1 96x55x55, pool1 96x27x27, conv2 256x27x27, relu2 256x27x27, \
        norm2 256x27x27, pool2 256x13x13, conv3 384x13x13, relu3 384x13x13, conv4 384x13x13, relu4 384x13x13, \
        conv5 256x13x13, relu5 256x13x13, pool5 256x6x6, flatten 9216, fc6 4096, relu6 4096, drop6 4096, fc7 4096, \
        relu7 4096, drop7 4096, fc8 1000, loss 1000";
    assert_eq!(shapes.join(", "), expected);
    assert_eq!(parameters(&two), 60_965_224);
    assert_eq!(parameters(&model("alexnet-2012-code")), 60_965_224);
    // Of 2014 the paper says 0.2 % more.
    assert_eq!(parameters(&model("alexnet-2014")), 61_100_840);
    let work = |model: &Model, of: fn(&Kind) -> bool| -> u64 {
        let layers = (0..model.layers.len()).filter(|&layer| of(&model.layers[layer].kind));
        layers.map(|layer| multiply_accumulates(model, layer, model.layers[layer].output.channels)).sum()
    };
    let convolutions = |kind: &Kind| matches!(kind, Kind::Conv(_));
    let (all, of_convolutions) = (work(&two, |_| true), work(&two, convolutions));
    // 724 million, of which 92 % in convolutions, which have 4 % of the parameters.
    assert_eq!((all, of_convolutions), (724_406_816, 665_784_864));
    let in_convolutions: usize = (0..15).map(|layer| parameter_count(&two, layer)).sum();
    assert_eq!(in_convolutions, 2_334_080);
    assert_eq!(work(&model("alexnet-2014"), |_| true), 714_188_480);
}

/// Each is the paper's network but for what it is called after.
#[test]
fn the_variants_of_2012_are_what_their_names_say() {
    let outputs = |model: &Model| -> Vec<String> {
        let weighty = model.layers.iter().filter(|layer| layer.kind.has_weights());
        weighty.map(|layer| layer.output.to_string()).collect()
    };
    let two = model("alexnet-2012");
    for name in ["alexnet-2012-plain-pools", "alexnet-2012-no-norm"] {
        assert_eq!((outputs(&model(name)), parameters(&model(name))), (outputs(&two), 60_965_224), "{name}");
    }
    let kinds = |name: &str, of: fn(&Kind) -> bool| model(name).layers.iter().filter(|layer| of(&layer.kind)).count();
    assert_eq!(kinds("alexnet-2012-no-norm", |kind| matches!(kind, Kind::LocalResponseNorm { .. })), 0);
    assert_eq!(
        kinds(
            "alexnet-2012-plain-pools",
            |kind| matches!(kind, Kind::MaxPool(window) if window.kernel == window.stride)
        ),
        3
    );
    let half = outputs(&model("alexnet-2012-half"));
    assert_eq!(half[..6].join(" "), "48x55x55 128x27x27 192x13x13 192x13x13 256x13x13 4096");
    let (apart, towers) = (model("alexnet-2012-apart"), parameters(&two));
    let crossing = (384 * 256 * 9 + 9216 * 4096 + 4096 * 4096) / 2;
    assert_eq!(parameters(&apart), towers - crossing);
}

#[test]
fn edits_replace_activations_and_dropout() {
    let edits = Edits { activation: Some(Kind::Sigmoid), dropout: Some(0.1), ..Edits::default() };
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
