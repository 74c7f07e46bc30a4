//! What a client sends to the endpoint, over a connection to the real server.

use super::Entry;
use super::training::job;
use mpt::metrics::server::{Port, Server};
use mpt::metrics::{Metrics, Watched};
use mpt::recipe::address;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A request.
pub const HTTP: Entry = Entry { name: "http", run: http, seeds, tokens: &TOKENS };

const TOKENS: [&str; 26] = [
    "GET ",
    "HEAD ",
    "POST ",
    "CONNECT ",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "/metrics",
    "/",
    "/../../etc/passwd",
    "*",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/9.9\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "Host: x\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "ffffffffffffffff\r\n",
    "0\r\n\r\n",
    "Expect: 100-continue\r\n",
    "Connection: keep-alive\r\n",
    "Upgrade: h2c\r\n",
    "\0",
];
/// Far longer than an answer takes: a test that would wait for ever fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most bytes of an answer that are read.
const MOST_ANSWERED: u64 = 8 << 20;
/// The statuses that the server gives.
const STATUSES: [&str; 8] = ["200", "400", "404", "405", "408", "414", "431", "503"];

/// One connection, which is answered once or not at all; the next one is answered as ever.
fn http(bytes: &[u8]) {
    let answer = sent(bytes);
    if !answer.is_empty() {
        let status = answer.get(9..12).unwrap_or_default();
        assert!(answer.starts_with("HTTP/1.") && STATUSES.contains(&status), "{}", &answer[..answer.len().min(200)]);
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "one connection was answered twice");
    }
    answers();
}

/// Asserts that who asks properly is answered.
pub fn answers() {
    let mut stream = connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").expect("the server reads");
    let answer = heard(stream);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("mpt_steps_total"), "{answer:?}");
}

/// A connection to the server of this process.
pub fn connect() -> TcpStream {
    let stream = TcpStream::connect(listening_at()).expect("a port of this process");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a limit");
    stream
}

/// What comes back for some bytes and the end of what is sent.
fn sent(bytes: &[u8]) -> String {
    let mut stream = connect();
    // The server may have answered, and gone, before it has read all.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    heard(stream)
}

/// What comes back to the end of a connection.
fn heard(stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.take(MOST_ANSWERED).read_to_end(&mut answer);
    let waited = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!waited, "the connection was kept open without an answer");
    assert!((answer.len() as u64) < MOST_ANSWERED, "an answer without an end");
    String::from_utf8(answer).expect("answers are text")
}

/// Where the one server of this process listens.
fn listening_at() -> SocketAddr {
    static SERVER: OnceLock<(SocketAddr, Server)> = OnceLock::new();
    let start = || {
        let job = job();
        let watched = Watched {
            plan: Arc::clone(&job.assignment.plan),
            devices: job.devices.clone(),
            shown: (0..job.devices.len()).collect(),
            precision: "fp32",
            loader: Arc::clone(&job.loaded),
        };
        let metrics = Arc::new(Metrics::new(&watched).expect("metrics of a sound job"));
        let port = Port::take(&address::parse(":0").expect("an address")).expect("a free port");
        (port.address(), Server::start(port, metrics).expect("a thread"))
    };
    SERVER.get_or_init(start).0
}

fn seeds() -> Vec<Vec<u8>> {
    let one = "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n";
    let texts = [
        one.to_owned(),
        one.repeat(20),
        "HEAD / HTTP/1.0\r\n\r\n".to_owned(),
        "GET /metrics\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(60_000)),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(60_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(5_000)),
    ];
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    texts.into_iter().map(String::into_bytes).chain([tls]).collect()
}
