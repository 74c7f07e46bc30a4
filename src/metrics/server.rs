//! HTTP, on a thread of its own. It takes no input but a path, and whoever connects can cost only so much: a bounded
//! header, one request and a few seconds a connection, a bounded number of connections, and a thread that comes after
//! training wherever both want a core. hyper is used as it is, for a web framework's routing of four paths would hide
//! where these bounds are set.

use super::Metrics;
use super::page::POLICY;
use crate::error::{Error, Result};
use crate::launch::environment::yield_to_training;
use crate::recipe::address::Address;
use crate::report::console;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};
use tokio::net;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// The most connections at a time. One more ends the oldest, which answers have been given to long since unless its
/// client is slow: so clients that open connections and say nothing do not keep others out.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The bytes of a request that are read.
const REQUEST_BYTES: usize = 16 << 10;
/// The header fields of a request that are read.
const REQUEST_FIELDS: usize = 64;
/// How long it waits to accept connections when the process has no file descriptor left for one.
const PAUSE: Duration = Duration::from_millis(100);

const PAGE: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A port that is this process's own, before anyone is answered.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Takes a port.
    ///
    /// # Errors
    /// A usage error: it is in use, or there is no such address here.
    pub fn take(address: &Address) -> Result<Self> {
        let listen = || -> io::Result<Self> {
            let listener = TcpListener::bind((address.host.as_str(), address.port))?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        listen().map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Error::usage(format!(
                "--metrics-addr: {address} is in use by another program; name another port, or 0 for any that is free"
            )),
            _ => Error::usage(format!("--metrics-addr: {address} cannot be listened on: {error}")),
        })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.address)
    }
}

/// The thread that answers; it ends when this is dropped.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to answer.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(port: Port, metrics: Arc<Metrics>) -> Result<Self> {
        let failed = |error: io::Error| Error::failed(format!("metrics cannot be served: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            yield_to_training();
            runtime.block_on(async {
                match net::TcpListener::from_std(port.listener) {
                    Ok(listener) => serve(&listener, &metrics, stopped).await,
                    Err(error) => console::warn(failed(error).to_string()),
                }
            });
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(run).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        // What is being answered is dropped where it is: the thread ends at once.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Accepts connections until told to stop.
async fn serve(listener: &net::TcpListener, metrics: &Arc<Metrics>, mut stopped: oneshot::Receiver<()>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(converse(stream, Arc::clone(metrics))).abort_handle());
    }
}

/// One connection, from its request to its answer.
async fn converse(stream: net::TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &metrics);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT).keep_alive(false);
    connection.max_buf_size(REQUEST_BYTES).max_headers(REQUEST_FIELDS);
    // Whatever goes wrong here is the client's affair.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => match metrics.text() {
            Ok(text) => response(StatusCode::OK, EXPOSITION, text.into()),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n").into()),
        },
        "/" => match metrics.html() {
            Ok(html) => {
                let mut page = response(StatusCode::OK, PAGE, html);
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
                page
            }
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n").into()),
        },
        "/healthz" => said(StatusCode::OK, "alive\n"),
        "/readyz" if metrics.is_ready() => said(StatusCode::OK, "training\n"),
        "/readyz" => said(StatusCode::SERVICE_UNAVAILABLE, "before the first step\n"),
        _ => said(StatusCode::NOT_FOUND, "here are /, /metrics, /healthz and /readyz\n"),
    }
}

fn said(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, TEXT, Bytes::from_static(text.as_bytes()))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
