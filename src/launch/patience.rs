//! Patience with the store of a run. While its process, or this one, is stopped, or the network between them is down, it does
//! not answer, and may do so again: whoever needs it asks again. Only a silence that lasts is an error, and a connection that
//! is closed: a store that has gone does not come back.

use super::board::Board;
use crate::error::{Error, Result};
use std::thread;
use std::time::{Duration, Instant};

/// How long one rests between two calls of a store that does not answer.
const REST: Duration = Duration::from_millis(500);

/// How long one who needs the store has had no answer, and how long that may last.
pub struct Patience<'b> {
    board: &'b Board,
    limit: Duration,
    /// Since when there has been no answer, and what the last call ended with.
    silence: Option<(Instant, Error)>,
}

impl<'b> Patience<'b> {
    /// The store behind a board may be silent for so long.
    pub fn new(board: &'b Board, limit: Duration) -> Self {
        Self { board, limit, silence: None }
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
        let again = self.silence.take().map(|(since, _)| since);
        let since = again.unwrap_or(asked);
        // One error alone may be due to a call of another thread that hangs, and is not yet known to.
        let has_gone = again.is_some() && !self.board.is_silent();
        if has_gone || since.elapsed() >= self.limit {
            return Err(error);
        }
        // A store that is silent gives no sign to wait for when it is so no more.
        thread::sleep(REST.saturating_sub(asked.elapsed()));
        self.silence = Some((since, error));
        Ok(None)
    }

    /// What the last call ended with, if there was no answer.
    pub fn silence(&self) -> Option<&Error> {
        self.silence.as_ref().map(|(_, error)| error)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::torch::store::Store;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    const LIMIT: Duration = Duration::from_secs(600);

    /// A way to a port of this machine by which nothing travels while the gate is held.
    pub fn through(gate: &Arc<Mutex<()>>, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (gate, way) = (Arc::clone(gate), listener.local_addr().unwrap().port());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
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
        let board = Board::new(store, "run".into());
        server.set("run/word", b"come").unwrap();
        let mut patience = Patience::new(&board, LIMIT);
        let held = gate.lock().unwrap();
        for _ in 0..2 {
            assert_eq!(patience.bear(|| board.wait_within("word", REST)).unwrap(), None);
            assert!(board.is_silent() && patience.silence().is_some());
        }
        // Who begins to ask now is refused at once, and bears it all the same.
        let mut later = Patience::new(&board, LIMIT);
        for _ in 0..2 {
            assert_eq!(later.bear(|| board.has("word")).unwrap(), None);
        }
        drop(held);
        let word = loop {
            if let Some(word) = patience.bear(|| board.wait_within("word", LIMIT)).unwrap() {
                break word;
            }
        };
        assert_eq!(word.unwrap(), b"come");
        assert!(!board.is_silent() && patience.silence().is_none());
        drop(server);
        let gone = loop {
            if let Err(error) = patience.bear(|| board.wait_within("other", REST)) {
                break error;
            }
        };
        assert!(gone.to_string().starts_with("run/other was waited for in the store at "), "{gone}");
    }

    #[test]
    fn a_silence_that_lasts_is_an_error() {
        let board = Board::new(Store::serve("127.0.0.1", 0, LIMIT).unwrap(), "run".into());
        let silent = Error::failed("it does not answer");
        assert_eq!(Patience::new(&board, Duration::ZERO).bear::<()>(|| Err(silent.clone())), Err(silent));
    }
}
