//! libtorch's key-value store over TCP, in which the ranks of a run find each other: torchrun's agents serve one too.
//! It knows no authentication: the network that it is reached by must be trusted.
//!
//! libtorch waits for an answer for ever, so that a machine that is cut off would hang. All calls are therefore made by a
//! thread of the store's own, and whoever asks waits for it only as long as it may take. While a call takes longer the
//! store is lost; if it does so to the end, its thread is left behind.
//!
//! * `client` libtorch's client, for that thread

mod client;

use self::client::Client;
use crate::error::{Error, Result};
use crossbeam::channel::{Sender, bounded, unbounded};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How much longer than it may wait a call may take, for the way there and back.
const TRAVEL: Duration = Duration::from_secs(5);

/// An open store, which threads may share.
pub struct Store {
    host: String,
    port: u16,
    /// How long an answer may take.
    limit: Duration,
    calls: Option<Sender<Call>>,
    thread: Option<JoinHandle<()>>,
    /// Whether a call hangs.
    lost: Arc<AtomicBool>,
}

type Call = Box<dyn FnOnce(&Client) + Send>;

impl Store {
    /// Serves a store at an address of this machine; port 0 takes any that is free.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn serve(host: &str, port: u16, limit: Duration) -> Result<Self> {
        let whole = |error: Error| error.within(format!("the store of the ranks cannot listen at {host}:{port}"));
        Self::open(host, port, true, limit).map_err(whole)
    }

    /// Joins the store that another process serves, or is about to.
    ///
    /// # Errors
    /// It does not answer within the limit.
    pub fn join(host: &str, port: u16, limit: Duration) -> Result<Self> {
        let whole = |error: Error| {
            error.within(format!("the store of the ranks at {host}:{port} did not answer within {limit:.0?}"))
        };
        Self::open(host, port, false, limit).map_err(whole)
    }

    fn open(host: &str, port: u16, serve: bool, limit: Duration) -> Result<Self> {
        let name = text(host)?;
        let (calls, todo) = unbounded::<Call>();
        let (opened, open) = bounded(1);
        let lost = Arc::new(AtomicBool::new(false));
        let hangs = Arc::clone(&lost);
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            let client = match Client::open(&name, port, serve, limit) {
                Ok((client, bound)) => {
                    let _ = opened.send(Ok(bound));
                    client
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            todo.iter().for_each(|call| {
                call(&client);
                hangs.store(false, Ordering::SeqCst);
            });
        });
        let thread = thread.map_err(|error| Error::failed(format!("its thread cannot be started: {error}")))?;
        let port = open.recv_timeout(limit + TRAVEL).map_err(|_| Error::failed("there was no answer"))??;
        Ok(Self { host: host.to_owned(), port, limit, calls: Some(calls), thread: Some(thread), lost })
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Another connection to the same store, for a thread of its own: a call that waits lets no other in.
    ///
    /// # Errors
    /// It does not answer within the limit. Each of its calls is given up some seconds after the time that it may wait.
    pub fn reopened(&self, limit: Duration) -> Result<Self> {
        Self::join(&self.host, self.port, limit)
    }

    /// Whether a call hangs: the store does not answer, but its connection is not known to be closed, and it may answer again.
    pub fn is_silent(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The store has gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let (name, value) = (text(key)?, value.to_vec());
        self.call(key, "was to be set", Duration::ZERO, move |client| client.set(&name, &value))
    }

    /// Sets a key if nobody has; gives what it holds then.
    ///
    /// # Errors
    /// The store has gone.
    pub fn set_first(&self, key: &str, value: &[u8]) -> Result<Vec<u8>> {
        let (name, value) = (text(key)?, value.to_vec());
        self.call(key, "was to be set", Duration::ZERO, move |client| client.set_first(&name, &value))
    }

    /// Whether a key is set.
    ///
    /// # Errors
    /// The store has gone.
    pub fn contains(&self, key: &str) -> Result<bool> {
        let name = text(key)?;
        self.call(key, "was looked for", Duration::ZERO, move |client| client.contains(&name))
    }

    /// Removes a key, if it is set.
    ///
    /// # Errors
    /// The store has gone.
    pub fn remove(&self, key: &str) -> Result<()> {
        let name = text(key)?;
        self.call(key, "was to be removed", Duration::ZERO, move |client| client.remove(&name))
    }

    /// The number of keys that are set.
    #[cfg(test)]
    pub fn count(&self) -> i64 {
        self.call("the number of keys", "was asked for", Duration::ZERO, Client::count).unwrap()
    }

    /// Adds to the number of a key, 0 before it was added to; gives the sum.
    ///
    /// # Errors
    /// The store has gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let name = text(key)?;
        self.call(key, "was to be counted", Duration::ZERO, move |client| client.add(&name, amount))
    }

    /// The value of a key, which is waited for.
    ///
    /// # Errors
    /// Nobody set it within the limit, or the store has gone.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let (address, limit) = (self.address(), self.limit);
        self.get_within(key, limit)?.ok_or_else(|| {
            Error::failed(format!("{key} was waited for in the store at {address}: nobody set it within {limit:.0?}"))
        })
    }

    /// The value of a key, which is waited for so long; `None` if nobody set it in this time.
    ///
    /// # Errors
    /// The store has gone.
    pub fn get_within(&self, key: &str, wait: Duration) -> Result<Option<Vec<u8>>> {
        let name = text(key)?;
        self.call(key, "was waited for", wait, move |client| {
            if client.wait(&name, wait)? { client.get(&name).map(Some) } else { Ok(None) }
        })
    }

    /// Has the thread make a call, and waits for its answer as long as that may take.
    fn call<T: Send + 'static>(
        &self,
        key: &str,
        purpose: &str,
        wait: Duration,
        call: impl FnOnce(&Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let within = |error: Error| error.within(format!("{key} {purpose} in the store at {}", self.address()));
        let limit = wait + self.limit.min(TRAVEL);
        let (sender, answer) = bounded(1);
        let call: Call = Box::new(move |client| {
            // Nobody may be waiting for the answer any more.
            let _ = sender.send(call(client));
        });
        let hangs = self.lost.load(Ordering::SeqCst);
        if hangs || self.calls.as_ref().is_none_or(|calls| calls.send(call).is_err()) {
            return Err(within(Error::failed("it does not answer")));
        }
        let answered = answer.recv_timeout(limit).or_else(|_| {
            self.lost.store(true, Ordering::SeqCst);
            // It may have answered just now, and have said so before it was called lost.
            answer.try_recv().inspect(|_| self.lost.store(false, Ordering::SeqCst))
        });
        answered.unwrap_or_else(|_| Err(Error::failed(format!("it did not answer within {limit:.0?}")))).map_err(within)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.calls.take());
        // A call that hung has its thread for ever.
        if let Some(thread) = self.thread.take().filter(|_| !self.lost.load(Ordering::SeqCst)) {
            let _ = thread.join();
        }
    }
}

fn text(words: &str) -> Result<CString> {
    CString::new(words).map_err(|_| Error::usage(format!("{words:?} holds a zero byte")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn what_one_sets_another_gets_also_if_it_waits() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        let port = server.port();
        let waiting = move || Store::join("127.0.0.1", port, LIMIT).unwrap().get_within("id", LIMIT).unwrap();
        let waiting = thread::spawn(waiting);
        let value: Vec<u8> = (0..=255).collect();
        let other = Store::join("127.0.0.1", port, LIMIT).unwrap();
        other.set("id", &value).unwrap();
        assert_eq!(waiting.join().unwrap(), Some(value));
    }

    #[test]
    fn one_who_waits_keeps_no_other_connection_from_counting_and_asking() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        let (waiting, asking) = (server.reopened(LIMIT).unwrap(), server.reopened(LIMIT).unwrap());
        let waiting = thread::spawn(move || waiting.get("alarm").unwrap());
        assert_eq!([1, 1, 5].map(|amount| asking.add("count", amount).unwrap()), [1, 2, 7]);
        assert!(!asking.contains("alarm").unwrap());
        server.set("alarm", b"rank 3").unwrap();
        assert_eq!(waiting.join().unwrap(), b"rank 3");
        assert!(asking.contains("alarm").unwrap());
    }

    #[test]
    fn what_nobody_sets_does_not_come_and_is_an_error_that_names_it() {
        let server = Store::serve("127.0.0.1", 0, Duration::from_millis(200)).unwrap();
        assert_eq!(server.get_within("nobody", Duration::from_millis(100)).unwrap(), None);
        let message = server.get("nobody").unwrap_err().to_string();
        assert!(message.starts_with("nobody was waited for in the store at 127.0.0.1:"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn of_two_who_set_a_key_first_one_does() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        assert_eq!(server.set_first("place", b"a").unwrap(), b"a");
        assert_eq!(server.set_first("place", b"b").unwrap(), b"a");
    }

    #[test]
    fn a_store_that_is_not_there_is_an_error_that_names_its_address() {
        let port = Store::serve("127.0.0.1", 0, LIMIT).unwrap().port();
        let message = Store::join("127.0.0.1", port, Duration::from_millis(300)).err().unwrap().to_string();
        assert!(message.contains(&format!("127.0.0.1:{port} did not answer within 300ms")), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_store_that_has_gone_is_an_error_that_names_what_was_wanted() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        let port = server.port();
        let other = Store::join("127.0.0.1", port, LIMIT).unwrap();
        drop(server);
        let message = other.get_within("id", LIMIT).unwrap_err().to_string();
        assert!(message.starts_with(&format!("id was waited for in the store at 127.0.0.1:{port}: ")), "{message}");
    }

    /// Like a machine that is cut off: the connection is made, and nothing ever answers.
    #[test]
    fn a_store_that_never_answers_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let message = Store::join("127.0.0.1", port, Duration::from_millis(300)).err().unwrap().to_string();
        assert!(message.contains(&format!("127.0.0.1:{port} did not answer")), "{message}");
    }
}
