//! Patience with the store of a run. While its process, or this one, is stopped, or the network between them is down, it does
//! not answer, and may do so again: whoever needs it asks again. Only a silence that lasts is an error, and a connection that
//! is closed: a store that has gone does not come back.

use crate::error::{Error, Result};
use std::thread;
use std::time::{Duration, Instant};

/// How long one rests between two calls of a store that does not answer.
const REST: Duration = Duration::from_millis(500);
/// An error that comes sooner was not waited for: the connection is closed. A call of a silent store takes longer, until it is
/// given up, and only those after it are refused at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How long one who needs the store has found it silent, and how long that may be.
pub struct Patience {
    limit: Duration,
    /// Since when the store has been silent, and what the last call of it ended with.
    silence: Option<(Instant, Error)>,
}

impl Patience {
    /// A silence may last so long.
    pub fn new(limit: Duration) -> Self {
        Self { limit, silence: None }
    }

    /// What the store answers; `None`, after a rest: it is silent, and may be asked again.
    ///
    /// # Errors
    /// The store has gone, or has been silent for too long.
    pub fn bear<T>(&mut self, ask: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let asked = Instant::now();
        let error = match ask() {
            Ok(answer) => {
                self.silence = None;
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        let took = asked.elapsed();
        let since = match &self.silence {
            Some((since, _)) => *since,
            None if took < AT_ONCE => return Err(error),
            None => asked,
        };
        if since.elapsed() >= self.limit {
            return Err(error);
        }
        // A store that is silent gives no sign to wait for when it is so no more.
        thread::sleep(REST.saturating_sub(took));
        self.silence = Some((since, error));
        Ok(None)
    }

    /// What the last call ended with, if the store is silent.
    pub fn silence(&self) -> Option<&Error> {
        self.silence.as_ref().map(|(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::store::Store;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    const LIMIT: Duration = Duration::from_secs(600);

    /// A way to a port of this machine by which nothing travels while the gate is held.
    fn through(gate: &Arc<Mutex<()>>, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (gate, way) = (Arc::clone(gate), listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for near in listener.incoming().map_while(|near| near.ok()) {
                let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let there = (near.try_clone().unwrap(), far.try_clone().unwrap());
                for (mut from, mut to) in [there, (far, near)] {
                    let gate = Arc::clone(&gate);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(read @ 1..) = from.read(&mut bytes) {
                            let _open = gate.lock().unwrap();
                            if to.write_all(&bytes[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        way
    }

    #[test]
    fn a_store_that_falls_silent_is_asked_again_until_it_answers_and_one_that_has_gone_is_not() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        let gate = Arc::new(Mutex::new(()));
        let store = Store::join("127.0.0.1", through(&gate, server.port()), LIMIT).unwrap();
        server.set("word", b"come").unwrap();
        let mut patience = Patience::new(LIMIT);
        let held = gate.lock().unwrap();
        for _ in 0..2 {
            assert_eq!(patience.bear(|| store.get_within("word", REST)).unwrap(), None);
            assert!(patience.silence().is_some());
        }
        drop(held);
        let word = loop {
            if let Some(word) = patience.bear(|| store.get_within("word", LIMIT)).unwrap() {
                break word;
            }
        };
        assert_eq!(word.unwrap(), b"come");
        assert!(patience.silence().is_none());
        drop(server);
        assert!(patience.bear(|| store.get_within("word", REST)).is_err());
    }

    #[test]
    fn a_silence_that_lasts_is_an_error() {
        let silent = Error::failed("it does not answer");
        let mut patience = Patience { limit: Duration::ZERO, silence: Some((Instant::now(), silent.clone())) };
        assert_eq!(patience.bear::<()>(|| Err(silent.clone())), Err(silent));
    }
}
