//! Handles: numbers that a program can pass around but not follow, so that one that was destroyed is known as such.

use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a handle stands for. The kind is in the handle's upper bits, which no address of a program ever has: a handle
/// that is followed like a pointer ends the process.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Kind {
    /// A device's primary context.
    Context = 0x51D0_0001_0000_0000,
    /// A stream.
    Stream = 0x51D0_0002_0000_0000,
    /// An event.
    Event = 0x51D0_0003_0000_0000,
    /// A communicator.
    Communicator = 0x51D0_0004_0000_0000,
}

/// What is alive of one kind. A number is never given out twice.
pub struct Table<T> {
    kind: Kind,
    entries: Mutex<(u64, BTreeMap<u64, Arc<T>>)>,
}

impl<T> Table<T> {
    /// An empty table.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, entries: Mutex::new((0, BTreeMap::new())) }
    }

    /// A new handle.
    pub fn insert(&self, entry: Arc<T>) -> u64 {
        let mut entries = lock(&self.entries);
        entries.0 += 1;
        let handle = self.kind as u64 | entries.0;
        entries.1.insert(handle, entry);
        handle
    }

    /// What the handle stands for, unless it was never given out or is destroyed.
    pub fn get(&self, handle: u64) -> Option<Arc<T>> {
        lock(&self.entries).1.get(&handle).cloned()
    }

    /// Ends a handle.
    pub fn remove(&self, handle: u64) -> Option<Arc<T>> {
        lock(&self.entries).1.remove(&handle)
    }
}
