//! The live page: what it shows, and that it asks no other place for anything. scripts/live-page looks at it in a
//! browser.

use crate::metrics::recipe;
use mpt::engine::job::plan_of;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::Event;
use mpt::launch::control::Control;
use mpt::metrics::page::picture;
use mpt::metrics::{Metrics, Watched};
use std::sync::Arc;

fn watched(job: &Job, devices: &[&str]) -> Watched {
    Watched {
        plan: Arc::clone(&job.assignment.plan),
        devices: devices.iter().map(ToString::to_string).collect(),
        shown: (0..devices.len()).collect(),
        precision: "fp64",
        loader: Arc::clone(&job.loaded),
    }
}

fn html(metrics: &Metrics) -> String {
    String::from_utf8(metrics.html().unwrap().to_vec()).unwrap()
}

/// The page before the first step and after the last one of a training.
fn pages(settings: &[&str], devices: &[&str]) -> (String, String) {
    let job = Job::new(&recipe(settings), Control::default()).unwrap();
    let metrics = Metrics::new(&watched(&job, devices)).unwrap();
    let before = html(&metrics);
    // A page that was drawn is handed out for a while.
    let metrics = Metrics::new(&watched(&job, devices)).unwrap();
    let mut evaluating = 0;
    run(job, Ranks::All, &mut |event| {
        metrics.event(event);
        evaluating += i32::from(matches!(event, Event::Evaluating { .. }));
    })
    .unwrap();
    assert!(evaluating > 0);
    (before, html(&metrics))
}

#[test]
fn the_page_shows_each_device_the_curves_and_the_plan() {
    let (before, after) = pages(&["parallel.mesh=1x2"], &["cpu:0", "cpu:1"]);
    for page in [&before, &after] {
        for part in
            [">cpu:0 <small>rank 0: data 0, model 0<", ">cpu:1 <small>rank 1: data 0, model 1<", "name=\"viewport\""]
        {
            assert!(page.contains(part), "`{part}` is not in:\n{page}");
        }
        assert!(page.contains("all-gather of tanh2: 216 values, gradients back"), "{page}");
        assert_eq!(page.matches("class=\"card device\"").count(), 2);
        // The curves, and for each device its rate and its phases, and the plan.
        assert_eq!(page.matches("<svg ").count(), page.matches("</svg>").count());
        assert_eq!(page.matches("<svg ").count(), 2 + 2 * 2 + 1);
    }
    assert!(before.contains("before the first step") && before.contains("<b>–</b>"), "{before}");
    assert!(after.contains("epoch 2 of 2, step 10 of 10<") && after.contains(">ended<"), "{after}");
    assert!(after.contains("</i>forward ") && after.contains("</i>backward "), "{after}");
    assert!(!before.contains("bound by") && after.contains("<p class=\"soft\">epoch 2: bound by "), "{after}");
    // An evaluation after each of two epochs.
    assert_eq!(after.matches("<circle").count(), 4);
}

/// Whatever a page could ask for stands in an attribute or in `url()`.
#[test]
fn the_page_asks_no_other_place_for_anything() {
    let (_, page) = pages(&["parallel.mesh=1x2"], &["cpu:0", "cpu:1"]);
    for outside in ["src=", "url(", "@import", "//fonts", "https:", "<link rel=\"stylesheet\"", "<iframe", "import("] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    let links: Vec<&str> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links, ["data:,", "/metrics"]);
    // Of SVG's own name nothing is ever fetched.
    assert!(page.replace("http://www.w3.org/2000/svg", "").find("http:").is_none());
}

#[test]
fn numbers_that_are_none_and_names_that_are_html_do_no_harm() {
    let (before, after) = pages(
        &["parallel.mesh=2x1", "optimizer.learning_rate=1e200"],
        &["<script>alert(1)</script>", "\"><b onclick='x'>&"],
    );
    for page in [before, after] {
        assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains(">inf"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;b onclick=&#39;x&#39;&gt;&amp;"), "{page}");
        assert!(!page.contains("<script>alert") && !page.contains("<b onclick"), "{page}");
    }
}

/// The texts of a picture of AlexNet's plan.
fn drawn(mesh: &str) -> String {
    let plan =
        plan_of(&recipe(&["model.name=alexnet", "data.image=[1,28,28]", &format!("parallel.mesh={mesh}")])).unwrap();
    let devices: Vec<String> = (0..plan.mesh.ranks()).map(|rank| format!("cpu:{rank}")).collect();
    picture::draw(&plan, &devices)
}

#[test]
fn the_picture_tells_who_holds_what_and_what_travels() {
    let halves = drawn("1x2");
    for part in [
        "<title>rank 0: channels 0..48 of 96</title>",
        "<title>rank 1: channels 48..96 of 96</title>",
        "<title>rank 1: channels 2048..4096 of 4096</title>",
        "<title>rank 0: a summand of all 10</title>",
        ">all-gather of relu2: 18,432 values, gradients back<",
        ">all-reduce of fc8: 10 values<",
        ">cpu:1<",
    ] {
        assert!(halves.contains(part), "`{part}` is not in:\n{halves}");
    }
    // Four exchanges, each from one to the other and back.
    assert_eq!(halves.matches("class=\"way\"").count(), 8);
    let both = drawn("2x2");
    assert_eq!(both.matches("class=\"way\"").count(), 16);
    assert!(both.contains("gradients summed over 2 groups") && both.contains(">examples 2/2<"), "{both}");
    let whole = drawn("1x1");
    assert!(
        !whole.contains("class=\"way\"") && whole.contains("<title>rank 0: channels 0..96 of 96</title>"),
        "{whole}"
    );
    // More devices than there is room for: one group stands for all.
    let many = drawn("16x2");
    assert!(many.contains("each of 16 groups of examples is split like this") && !many.contains(">cpu:2<"), "{many}");
}
