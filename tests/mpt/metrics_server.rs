//! The endpoint: what it answers to whom, that a port that cannot be had is told before training, and that whoever
//! connects does not touch training.

use crate::metrics::{Scrape, metrics_of, recipe};
use crate::program::{mpt, output, stderr, stdout, text, tiny};
use mpt::engine::saving::Saving;
use mpt::engine::session::{Job, Ranks, run};
use mpt::events::Event;
use mpt::launch::control::Control;
use mpt::metrics::Metrics;
use mpt::metrics::server::{Port, Server};
use mpt::recipe::address;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// Far longer than anything here takes: a test that would wait for ever fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// The metrics of a run, served at any port.
fn serving(job: &Job) -> (Arc<Metrics>, SocketAddr, Server) {
    let port = Port::take(&address::parse(":0").unwrap()).unwrap();
    let (metrics, address) = (Arc::new(metrics_of(job)), port.address());
    (Arc::clone(&metrics), address, Server::start(port, metrics).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes back for some bytes, to the end of the connection.
fn sent(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may have answered, and gone, before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The status, the header and the body that a request is answered with.
fn asked(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let answer = sent(address, format!("{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes());
    let (header, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
    (header[9..12].parse().unwrap(), header.to_owned(), body.to_owned())
}

fn job() -> Job {
    Job::new(&recipe(&["parallel.mesh=1x2"]), Control::default()).unwrap()
}

#[test]
fn each_path_is_answered_and_nothing_else() {
    let job = job();
    let (metrics, address, _server) = serving(&job);
    let (status, header, body) = asked(address, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(header.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{header}");
    assert_eq!(Scrape::of(&body).value("mpt_steps_total", &[]), 0.0);
    let (status, header, body) = asked(address, "HEAD", "/metrics");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(header.contains("\r\ncontent-length: "), "{header}");
    assert_eq!(asked(address, "GET", "/metrics?name=x").0, 200);
    assert_eq!(asked(address, "GET", "/healthz").0, 200);
    assert_eq!(asked(address, "GET", "/readyz").0, 503);
    for path in ["/metrics/", "/../etc/passwd", "//", "/%6detrics", "/favicon.ico", "*"] {
        assert_eq!(asked(address, "GET", path).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let (status, header, _) = asked(address, method, "/metrics");
        assert_eq!(status, 405, "{method}");
        assert!(header.contains("\r\nallow: GET, HEAD\r\n"), "{header}");
    }
    run(job, Ranks::All, &mut |event| metrics.event(event)).unwrap();
    assert_eq!(asked(address, "GET", "/readyz").0, 200);
    assert_eq!(Scrape::of(&asked(address, "GET", "/metrics").2).value("mpt_steps_total", &[]), 10.0);
}

#[test]
fn requests_that_are_too_large_or_none_are_refused() {
    let job = job();
    let (_, address, _server) = serving(&job);
    let field = format!("GET /metrics HTTP/1.1\r\nHost: here\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let fields = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(1000));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
    for request in [field.as_str(), &fields, &path, "GET /metrics\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\n\n"] {
        let answer = sent(address, request.as_bytes());
        let begin = &request[..request.len().min(30)];
        // A reset may have taken the answer with it.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{begin:?}: {answer}");
    }
    assert_eq!(asked(address, "GET", "/metrics").0, 200);
}

/// Who sends half a request and then nothing is hung up on.
#[test]
fn a_slow_request_is_not_waited_for() {
    let job = job();
    let (_, address, _server) = serving(&job);
    for bytes in [&b""[..], b"GET /metrics HTTP/1.1\r\nHost: he"] {
        let mut stream = connect(address);
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok() && !answer.starts_with(b"HTTP/1.1 200"), "{read:?} {answer:?}");
    }
}

/// The weights after a training in this folder, of which every event is heard by `hear`.
fn weights(folder: &Path, hear: &mut dyn FnMut(&Event), job: Option<Job>) -> Vec<u8> {
    let recipe = recipe(&["parallel.mesh=1x2"]);
    let mut job = job.unwrap_or_else(self::job);
    job.saving = Saving::new(&recipe, folder);
    run(job, Ranks::All, hear).unwrap();
    fs::read(folder.join("checkpoints/step-00000010/model.safetensors")).unwrap()
}

/// Hundreds of connections that say nothing, or send a byte with every step: training computes what it computes, and
/// who asks properly is answered.
#[test]
fn slow_and_many_clients_do_not_touch_training() {
    let dir = tempfile::tempdir().unwrap();
    let alone = weights(&dir.path().join("alone"), &mut |_| {}, None);
    let job = job();
    let (metrics, address, _server) = serving(&job);
    let mut clients = Vec::new();
    let hear = &mut |event: &Event| {
        metrics.event(event);
        let Event::Step(step) = event else { return };
        if step.step == 1 {
            clients = (0..300).map(|_| connect(address)).collect();
        }
        for slow in clients.iter_mut().step_by(3) {
            // Those that were hung up on cannot send any more.
            let _ = slow.write_all(&b"GET /metrics HTTP/1.1\r\n"[step.step as usize..][..1]);
        }
        let (status, _, body) = asked(address, "GET", "/metrics");
        assert_eq!((status, Scrape::of(&body).value("mpt_steps_total", &[])), (200, step.step as f64));
    };
    let crowded = weights(&dir.path().join("crowded"), hear, Some(job));
    assert!(alone == crowded);
    assert_eq!(clients.len(), 300);
}

#[test]
fn a_port_that_cannot_be_had_is_told_before_training() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let in_use = format!(
        "mpt: --metrics-addr: 127.0.0.1:{port} is in use by another program; name another port, or 0 for any \
         that is free\n"
    );
    for command in ["train", "rehearse"] {
        let address = format!(":{port}");
        let mut arguments = tiny(&["--metrics-addr", &address, "--run-dir", text(&run), "--steps", "1", "--quiet"]);
        arguments[0] = command;
        let refused = output(&arguments);
        let said = stderr(&refused);
        assert_eq!((refused.status.code(), said.lines().last().unwrap().to_owned() + "\n"), (Some(2), in_use.clone()));
        assert!(stdout(&refused).is_empty() && !run.exists());
    }
    for (address, sentence) in [
        ("192.0.2.1:0", "mpt: --metrics-addr: 192.0.2.1:0 cannot be listened on: "),
        ("here", "mpt: --metrics-addr: [metrics]: `here` is no address to listen on; write ADDR:PORT, like "),
    ] {
        let refused = output(&tiny(&["--metrics-addr", address, "--steps", "1", "--quiet"]));
        let said = stderr(&refused);
        assert!(said.starts_with(sentence) && said.lines().count() == 1, "{said}");
        assert_eq!(refused.status.code(), Some(2));
    }
}

/// Starts a run that goes on until it is told to end, waits for its first step, and gives what a scrape says then.
fn scraped(command: &str, more: &[&str]) -> Scrape {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = tiny(&[&["--epochs", "1000000"], more].concat());
    arguments[0] = command;
    let mut command = mpt(&arguments);
    command.env("MPT_METRICS_ADDR", "0").current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut address = None;
    for line in lines.by_ref().map(Result::unwrap) {
        address = address.or(line.split_once("metrics: http://127.0.0.1:").map(|(_, rest)| rest.to_owned()));
        if line.contains("first step after") {
            break;
        }
    }
    let port = address.unwrap().split('/').next().unwrap().parse().unwrap();
    let (status, _, body) = asked(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/metrics");
    // SAFETY: sends a signal to a child that has not been waited for, so its process id is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    lines.for_each(drop);
    assert_eq!((child.wait().unwrap().code(), status), (Some(75), 200));
    Scrape::of(&body)
}

#[test]
fn a_variable_opens_the_endpoint_and_any_free_port_is_said() {
    let scrape = scraped("train", &[]);
    assert!(scrape.value("mpt_examples_total", &[("device", "cpu:0")]) >= 8.0);
    // One device has the process to itself.
    let held = ["mpt_device_memory_bytes", "process_resident_memory_bytes"];
    let held = [scrape.value(held[0], &[("device", "cpu:0")]), scrape.value(held[1], &[])];
    assert!(held[0] > 1e7 && (held[0] / held[1] - 1.0).abs() < 0.2, "{held:?}");
}

/// One process per GPU: that of the first rank shows the devices of all.
#[test]
fn one_endpoint_shows_the_devices_of_all_processes() {
    let scrape = scraped("rehearse", &["--gpus", "2", "--mode", "model-parallel"]);
    let examples = ["sim:0", "sim:1"].map(|device| scrape.value("mpt_examples_total", &[("device", device)]));
    assert!(examples[0] >= 8.0 && examples[0] == examples[1], "{examples:?}");
    let sent = scrape.value("mpt_exchange_sent_bytes_total", &[("device", "sim:1"), ("op", "all-gather")]);
    assert!(sent > 0.0);
    // Each has a process of its own.
    let held = ["sim:0", "sim:1"].map(|device| scrape.value("mpt_device_memory_bytes", &[("device", device)]));
    assert!(held.iter().all(|bytes| *bytes > 1e7), "{held:?}");
}

/// What a scrape costs the thread that answers, in CPU time. To be read, not judged: run it with --ignored --nocapture.
#[test]
#[ignore = "a measurement: cargo test --release --test mpt metrics_server::cost -- --ignored --nocapture"]
fn cost_of_a_scrape() {
    const SCRAPES: u32 = 1000;
    for mesh in ["1x1", "1x2", "2x4"] {
        let job = Job::new(&recipe(&[&format!("parallel.mesh={mesh}")]), Control::default()).unwrap();
        let (metrics, address, _server) = serving(&job);
        run(job, Ranks::All, &mut |event| metrics.event(event)).unwrap();
        let mut bytes = 0;
        let before = seconds_of_thread("metrics");
        for _ in 0..SCRAPES {
            bytes = asked(address, "GET", "/metrics").2.len();
        }
        let milliseconds = 1e3 * (seconds_of_thread("metrics") - before) / f64::from(SCRAPES);
        println!("mesh {mesh}: {milliseconds:.3} ms of CPU a scrape of {bytes} bytes, over {SCRAPES} scrapes");
    }
}

/// The CPU time of the newest thread of this name.
fn seconds_of_thread(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let named = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim() == name));
    let newest = named.max_by_key(|task| task.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap());
    let times = fs::read_to_string(newest.unwrap().join("schedstat")).unwrap();
    times.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
