//! `mpt show model --svg`: the plan as a diagram of devices, towers and what they exchange.

use crate::program::{mpt, output, stderr, stdout};
use mpt::model::parse::Edits;
use mpt::model::shipped;
use mpt::plan::{Mode, plan};
use mpt::report::diagram;
use std::fs;

fn drawn(model: &str, mesh: &str, mode: Mode) -> String {
    let model = shipped::load(model, &Edits::default()).unwrap();
    diagram::draw(&plan(&model, mesh.parse().unwrap(), mode).unwrap())
}

/// How many arrows a picture has in a colour.
fn arrows(svg: &str, colour: &str) -> usize {
    svg.matches(&format!("stroke=\"{colour}\" stroke-width")).count()
}

/// The colours of the first two devices, and of what stays within one.
const DEVICES: [&str; 2] = ["#0072b2", "#d55e00"];
const WITHIN: &str = "#8a94a0";

fn expect(svg: &str, texts: &[(&str, usize)]) {
    for (text, count) in texts {
        assert_eq!(svg.matches(&format!(">{text}<")).count(), *count, "`{text}` in:\n{svg}");
    }
}

#[test]
fn two_devices_show_the_cross_connections_of_2012() {
    let svg = drawn("alexnet", "1x2", Mode::ModelParallel);
    // Four exchanges, from each device to the other; the first three bring all channels.
    assert_eq!(DEVICES.map(|colour| arrows(&svg, colour)), [4, 4]);
    // Nine stages after the image read of their own device.
    assert_eq!(arrows(&svg, WITHIN), 2 * 9);
    expect(
        &svg,
        &[("all-gather", 3), ("all-reduce", 1), ("18,432 values", 1), ("3,200 values", 1), ("2,048 values", 1)],
    );
    expect(
        &svg,
        &[("device 0", 1), ("device 1", 1), ("48 of 96", 2), ("2,048 of 4,096", 4), ("partial 10", 2), ("tower 1", 0)],
    );
    let four = drawn("alexnet", "1x4", Mode::ModelParallel);
    // From two devices on a tower each conv layer with groups exchanges within its tower: one arrow from device 0 for each of
    // three of these, three for each of four others.
    assert_eq!(arrows(&four, DEVICES[0]), 3 + 3 * 4);
    expect(&four, &[("send-receive", 3), ("back: send-receive and sum", 3), ("24 of 96", 4)]);
}

#[test]
fn one_device_shows_its_towers() {
    for (mode, mesh, devices) in [(Mode::Single, "1x1", 1), (Mode::DataParallel, "2x1", 2)] {
        let svg = drawn("alexnet", mesh, mode);
        expect(&svg, &[("tower 1", devices), ("tower 2", devices), ("across towers", 3), ("48 of 96", 2 * devices)]);
        // The logits are computed at once from both towers, and nothing has the colour of what travels.
        expect(&svg, &[("10", 2 * devices + 2), ("all-gather", 0), ("all-reduce", 0)]);
        assert_eq!(DEVICES.map(|colour| arrows(&svg, colour)), [0, 0]);
        // Ten stages and the image; three of the links cross.
        assert_eq!(arrows(&svg, WITHIN), devices * 2 * (9 + 3));
    }
    let dense = drawn("alexnet-dense", "1x1", Mode::Single);
    expect(&dense, &[("tower 1", 0), ("96", 1), ("device 0", 1)]);
}

#[test]
fn branches_lead_past_the_stages_between() {
    let svg = drawn("tiny-residual", "1x2", Mode::ModelParallel);
    // conv1 is read by shortcut and again, conv3 by add: on each device.
    assert_eq!(svg.matches("m-3 -5l3 5l3 -5").count(), 2 * 3);
    expect(&svg, &[("324 values", 3), ("back: slice", 1), ("shortcut", 1), ("again", 1)]);
    // Every shipped network can be drawn, whole and split.
    for name in shipped::names() {
        for (mesh, mode) in [("1x1", Mode::Single), ("2x2", Mode::ModelParallel), ("1x3", Mode::ModelParallel)] {
            let svg = drawn(name, mesh, mode);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{name} {mesh}");
        }
    }
}

#[test]
fn groups_of_images_are_told_apart_or_one_stands_for_all() {
    let both = drawn("alexnet", "2x2", Mode::ModelParallel);
    expect(&both, &[("images 1/2", 1), ("images 2/2", 1), ("device 3", 1)]);
    assert!(both.contains("gradients are summed over the 2 groups of images<"), "{both}");
    assert_eq!(arrows(&both, DEVICES[0]), 4);
    let many = drawn("alexnet", "16x2", Mode::ModelParallel);
    assert!(many.contains("each of 16 groups of images is split like this<"), "{many}");
    expect(&many, &[("device 1", 1), ("device 2", 0)]);
}

#[test]
fn the_command_writes_the_picture_and_says_what_it_cannot_draw() {
    let dir = tempfile::tempdir().unwrap();
    let show =
        |arguments: &[&str]| mpt(&[&["show", "model"], arguments].concat()).current_dir(dir.path()).output().unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let done = show(&["--svg", "a.svg", "--gpus", "2", "--mode", "model-parallel"]);
    assert_eq!((done.status.code(), stderr(&done)), (Some(0), String::new()));
    assert_eq!(stdout(&done), stdout(&output(&["show", "model", "alexnet"])));
    assert_eq!(read("a.svg"), drawn("alexnet", "1x2", Mode::ModelParallel));
    assert_eq!(show(&["--svg", "b.svg", "tiny-concat", "--mesh", "2x2"]).status.code(), Some(0));
    assert_eq!(read("b.svg"), drawn("tiny-concat", "2x2", Mode::ModelParallel));
    for (arguments, sentence) in [
        (
            &["alexnet", "--gpus", "2"][..],
            "--gpus, --mode and --mesh say how a picture is split: add --svg FILE, or use `mpt plan`",
        ),
        (&["alexnet", "lenet", "--svg", "c.svg"], "--svg: a picture shows one model, not 2"),
        (
            &["lenet", "--svg", "c.svg", "--gpus", "7", "--mode", "model-parallel"],
            "model lenet: layer conv1 has 6 output channels, too few to leave each of 7 devices one; use at most 6 devices \
             along the model axis",
        ),
    ] {
        let done = show(arguments);
        assert_eq!(stderr(&done).trim_end(), format!("mpt: {sentence}"), "{arguments:?}");
        assert_eq!((done.status.code(), stdout(&done)), (Some(2), String::new()), "{arguments:?}");
    }
    let unwritable = show(&["--svg", "none/a.svg"]);
    assert_eq!(unwritable.status.code(), Some(1));
    assert!(stderr(&unwritable).starts_with("mpt: --svg: none/a.svg cannot be written: "), "{}", stderr(&unwritable));
}
