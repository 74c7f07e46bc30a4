//! libtorch's key-value store over TCP, in which the ranks of a run find each other: torchrun's agents serve one too.
//! It knows no authentication: the network that it is reached by must be trusted.

use super::{check, mpt_free_message};
use crate::error::{Error, Result};
use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

/// A `c10::intrusive_ptr<c10d::TCPStore>`.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn mpt_store_open(
        host: *const c_char,
        port: u16,
        serve: bool,
        milliseconds: i64,
        store: *mut *mut Opaque,
        bound: *mut u16,
    ) -> *mut c_char;
    fn mpt_store_close(store: *mut Opaque);
    fn mpt_store_set(store: *mut Opaque, key: *const c_char, value: *const u8, size: usize) -> *mut c_char;
    fn mpt_store_get(store: *mut Opaque, key: *const c_char, value: *mut *mut c_char, size: *mut usize) -> *mut c_char;
    fn mpt_store_add(store: *mut Opaque, key: *const c_char, amount: i64, sum: *mut i64) -> *mut c_char;
    fn mpt_store_contains(store: *mut Opaque, key: *const c_char, found: *mut bool) -> *mut c_char;
}

/// An open store.
pub struct Store {
    store: NonNull<Opaque>,
    host: String,
    port: u16,
}

// SAFETY: the store locks itself; c10d's own process groups use one from several threads.
unsafe impl Send for Store {}

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
        let milliseconds = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let (mut store, mut bound) = (ptr::null_mut(), 0);
        // SAFETY: the name is ended by a zero, and both places are valid for writing.
        check(unsafe { mpt_store_open(name.as_ptr(), port, serve, milliseconds, &mut store, &mut bound) })?;
        let store = NonNull::new(store).ok_or_else(|| Error::failed("libtorch gave no store"))?;
        Ok(Self { store, host: host.to_owned(), port: bound })
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The store has gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let name = text(key)?;
        // SAFETY: the store is open, the key ended by a zero, and the value read for its length only.
        let set = check(unsafe { mpt_store_set(self.store.as_ptr(), name.as_ptr(), value.as_ptr(), value.len()) });
        set.map_err(|error| error.within(format!("{} was to be set in the store at {}:{}", key, self.host, self.port)))
    }

    /// The value of a key, which is waited for.
    ///
    /// # Errors
    /// Nobody set it within the limit, or the store has gone.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let name = text(key)?;
        let (mut value, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the store is open, the key ended by a zero, and both places are valid for writing.
        let found = check(unsafe { mpt_store_get(self.store.as_ptr(), name.as_ptr(), &mut value, &mut size) });
        found.map_err(|error| {
            error.within(format!("{} was waited for in the store at {}:{}", key, self.host, self.port))
        })?;
        // SAFETY: the call went well, so `value` holds `size` bytes that are ours until they are freed, here.
        let bytes = unsafe {
            let bytes = slice::from_raw_parts(value.cast::<u8>(), size).to_vec();
            mpt_free_message(value);
            bytes
        };
        Ok(bytes)
    }
}

impl Store {
    /// Another connection to the same store, for a thread of its own: a call that waits lets no other in.
    ///
    /// # Errors
    /// It does not answer within the limit, which also becomes that of its calls.
    pub fn reopened(&self, limit: Duration) -> Result<Self> {
        Self::join(&self.host, self.port, limit)
    }

    /// Adds to the number of a key, 0 before it was added to; gives the sum.
    ///
    /// # Errors
    /// The store has gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let (name, mut sum) = (text(key)?, 0);
        // SAFETY: the store is open, the key ended by a zero, and the place valid for writing.
        let added = check(unsafe { mpt_store_add(self.store.as_ptr(), name.as_ptr(), amount, &mut sum) });
        added.map_err(|error| {
            error.within(format!("{key} was to be counted in the store at {}:{}", self.host, self.port))
        })?;
        Ok(sum)
    }

    /// Whether a key has been set.
    ///
    /// # Errors
    /// The store has gone.
    pub fn contains(&self, key: &str) -> Result<bool> {
        let (name, mut found) = (text(key)?, false);
        // SAFETY: the store is open, the key ended by a zero, and the place valid for writing.
        let asked = check(unsafe { mpt_store_contains(self.store.as_ptr(), name.as_ptr(), &mut found) });
        asked.map_err(|error| {
            error.within(format!("{key} was looked for in the store at {}:{}", self.host, self.port))
        })?;
        Ok(found)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the store came from `mpt_store_open` and is given back once.
        unsafe { mpt_store_close(self.store.as_ptr()) };
    }
}

fn text(words: &str) -> Result<CString> {
    CString::new(words).map_err(|_| Error::usage(format!("{words:?} holds a zero byte")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn what_one_sets_another_gets_also_if_it_waits() {
        let server = Store::serve("127.0.0.1", 0, LIMIT).unwrap();
        let port = server.port();
        let waiting = thread::spawn(move || Store::join("127.0.0.1", port, LIMIT).unwrap().get("id").unwrap());
        let value: Vec<u8> = (0..=255).collect();
        Store::join("127.0.0.1", port, LIMIT).unwrap().set("id", &value).unwrap();
        assert_eq!(waiting.join().unwrap(), value);
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
    fn what_nobody_sets_is_an_error_that_names_it() {
        let server = Store::serve("127.0.0.1", 0, Duration::from_millis(200)).unwrap();
        let message = server.get("nobody").unwrap_err().to_string();
        assert!(message.starts_with("nobody was waited for in the store at 127.0.0.1:"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_store_that_is_not_there_is_an_error_that_names_its_address() {
        let port = Store::serve("127.0.0.1", 0, LIMIT).unwrap().port();
        let message = Store::join("127.0.0.1", port, Duration::from_millis(300)).err().unwrap().to_string();
        assert!(message.contains(&format!("127.0.0.1:{port} did not answer within 300ms")), "{message}");
    }
}
