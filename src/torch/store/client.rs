//! The Rust face of `store.cpp`: libtorch's client of the store, whose calls take as long as they take.

use crate::error::{Error, Result};
use crate::torch::{check, mpt_free_message};
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
    fn mpt_store_set_first(
        store: *mut Opaque,
        key: *const c_char,
        wish: *const u8,
        wished: usize,
        value: *mut *mut c_char,
        size: *mut usize,
    ) -> *mut c_char;
    fn mpt_store_get(store: *mut Opaque, key: *const c_char, value: *mut *mut c_char, size: *mut usize) -> *mut c_char;
    fn mpt_store_wait(store: *mut Opaque, key: *const c_char, milliseconds: i64, came: *mut bool) -> *mut c_char;
    fn mpt_store_add(store: *mut Opaque, key: *const c_char, amount: i64, sum: *mut i64) -> *mut c_char;
    fn mpt_store_remove(store: *mut Opaque, key: *const c_char) -> *mut c_char;
    #[cfg(test)]
    fn mpt_store_count(store: *mut Opaque, count: *mut i64) -> *mut c_char;
    fn mpt_store_contains(store: *mut Opaque, key: *const c_char, found: *mut bool) -> *mut c_char;
}

/// libtorch's client, and its server where there is one, on the store's thread.
pub(super) struct Client(NonNull<Opaque>);

impl Client {
    pub(super) fn open(host: &CString, port: u16, serve: bool, limit: Duration) -> Result<(Self, u16)> {
        let (mut store, mut bound) = (ptr::null_mut(), 0);
        let limit = milliseconds(limit);
        // SAFETY: the name is ended by a zero, and both places are valid for writing.
        check(unsafe { mpt_store_open(host.as_ptr(), port, serve, limit, &mut store, &mut bound) })?;
        let store = NonNull::new(store).ok_or_else(|| Error::failed("libtorch gave no store"))?;
        Ok((Self(store), bound))
    }

    pub(super) fn set(&self, key: &CString, value: &[u8]) -> Result<()> {
        // SAFETY: the store is open, the key ended by a zero, and the value read for its length only.
        check(unsafe { mpt_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) })
    }

    pub(super) fn set_first(&self, key: &CString, wish: &[u8]) -> Result<Vec<u8>> {
        // SAFETY: as in `set`; `bytes` gives places that are valid for writing.
        bytes(|value, size| unsafe {
            mpt_store_set_first(self.0.as_ptr(), key.as_ptr(), wish.as_ptr(), wish.len(), value, size)
        })
    }

    pub(super) fn get(&self, key: &CString) -> Result<Vec<u8>> {
        // SAFETY: the store is open and the key ended by a zero; `bytes` gives places that are valid for writing.
        bytes(|value, size| unsafe { mpt_store_get(self.0.as_ptr(), key.as_ptr(), value, size) })
    }

    pub(super) fn wait(&self, key: &CString, wait: Duration) -> Result<bool> {
        let mut came = false;
        // SAFETY: the store is open, the key ended by a zero, and the place valid for writing.
        check(unsafe { mpt_store_wait(self.0.as_ptr(), key.as_ptr(), milliseconds(wait), &mut came) })?;
        Ok(came)
    }

    pub(super) fn remove(&self, key: &CString) -> Result<()> {
        // SAFETY: the store is open and the key ended by a zero.
        check(unsafe { mpt_store_remove(self.0.as_ptr(), key.as_ptr()) })
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> Result<i64> {
        let mut count = 0;
        // SAFETY: the store is open and the place valid for writing.
        check(unsafe { mpt_store_count(self.0.as_ptr(), &mut count) })?;
        Ok(count)
    }

    pub(super) fn contains(&self, key: &CString) -> Result<bool> {
        let mut found = false;
        // SAFETY: as in `wait`.
        check(unsafe { mpt_store_contains(self.0.as_ptr(), key.as_ptr(), &mut found) })?;
        Ok(found)
    }

    pub(super) fn add(&self, key: &CString, amount: i64) -> Result<i64> {
        let mut sum = 0;
        // SAFETY: as in `wait`.
        check(unsafe { mpt_store_add(self.0.as_ptr(), key.as_ptr(), amount, &mut sum) })?;
        Ok(sum)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the store came from `mpt_store_open` and is given back once.
        unsafe { mpt_store_close(self.0.as_ptr()) };
    }
}

/// What a call hands over through a place for bytes and one for their number.
fn bytes(call: impl FnOnce(*mut *mut c_char, *mut usize) -> *mut c_char) -> Result<Vec<u8>> {
    let (mut value, mut size) = (ptr::null_mut(), 0);
    check(call(&mut value, &mut size))?;
    // SAFETY: the call went well, so `value` holds `size` bytes that are ours until they are freed, here.
    unsafe {
        let bytes = slice::from_raw_parts(value.cast::<u8>(), size).to_vec();
        mpt_free_message(value);
        Ok(bytes)
    }
}

/// At least one: libtorch takes none for no limit.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1)
}
