//! Device memory. What a program gets is an address in a reserved range that nothing may be read from or written to;
//! the bytes lie elsewhere. Fresh and freed memory is poisoned: every byte 0xFF, which is NaN in every floating-point
//! type.

use super::access::{Actor, History};
use super::clock::Clock;
use super::result::CuResult;
use crate::rules;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// What memory holds that nobody has written.
pub const POISON: u8 = 0xFF;

/// Allocations begin at multiples of this, as the driver's do.
const ALIGNMENT: u64 = 512;

/// Addresses that are reserved for a device. They are not used again before all have been used once, so that an old
/// address is known as such.
const RESERVED: u64 = 1 << 40;

/// How many bytes an operation moves before others get their turn with the same allocation.
pub const CHUNK: usize = 1 << 20;

/// The memory of one device.
pub struct Memory {
    ordinal: usize,
    base: u64,
    capacity: u64,
    state: Mutex<State>,
}

struct State {
    live: BTreeMap<u64, Arc<Allocation>>,
    next: u64,
    used: u64,
}

/// One allocation. Operations that were given it before it was freed still hold it, and find that out.
struct Allocation {
    address: u64,
    length: usize,
    bytes: RwLock<Box<[u8]>>,
    history: Mutex<History>,
    freed: AtomicBool,
}

/// A part of an allocation that was alive when it was looked up.
#[derive(Clone)]
pub struct Range {
    allocation: Arc<Allocation>,
    offset: usize,
    /// How many bytes it has.
    pub length: usize,
}

impl Memory {
    /// Reserves a device's addresses.
    pub fn reserve(ordinal: usize, capacity: u64) -> Result<Self, CuResult> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever there is room; no other memory is touched.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), RESERVED as usize, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            rules::say(&format!("simulator: device {ordinal}: no addresses can be reserved: {error}"));
            return Err(CuResult::OPERATING_SYSTEM);
        }
        let base = (base as u64).next_multiple_of(ALIGNMENT);
        Ok(Self { ordinal, base, capacity, state: Mutex::new(State { live: BTreeMap::new(), next: base, used: 0 }) })
    }

    /// Whether an address is one of this device's.
    pub fn reserves(&self, address: u64) -> bool {
        (self.base..self.base + RESERVED - ALIGNMENT).contains(&address)
    }

    /// Bytes in all, and bytes that are free.
    pub fn capacity_and_free(&self) -> (u64, u64) {
        (self.capacity, self.capacity.saturating_sub(lock(&self.state).used))
    }

    /// A new, poisoned allocation.
    pub fn allocate(&self, length: usize) -> Result<u64, CuResult> {
        let mut state = lock(&self.state);
        if length == 0 {
            return Err(CuResult::INVALID_VALUE);
        }
        if state.used + length as u64 > self.capacity {
            return Err(CuResult::OUT_OF_MEMORY);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| CuResult::OUT_OF_MEMORY)?;
        bytes.resize(length, POISON);
        let address = self.place(&state, length as u64).ok_or(CuResult::OUT_OF_MEMORY)?;
        let allocation = Allocation {
            address,
            length,
            bytes: RwLock::new(bytes.into_boxed_slice()),
            history: Mutex::default(),
            freed: AtomicBool::new(false),
        };
        state.live.insert(address, Arc::new(allocation));
        // The gap keeps an access beyond one allocation from hitting the next.
        state.next = (address + length as u64).next_multiple_of(ALIGNMENT) + ALIGNMENT;
        state.used += length as u64;
        Ok(address)
    }

    /// Addresses for an allocation: those that were not used yet; when there are none left, the first gap.
    fn place(&self, state: &State, length: u64) -> Option<u64> {
        let end = self.base + RESERVED - ALIGNMENT;
        if state.next + length < end {
            return Some(state.next);
        }
        let mut candidate = self.base;
        for (&address, allocation) in &state.live {
            if candidate + length + ALIGNMENT <= address {
                break;
            }
            candidate = (address + allocation.length as u64).next_multiple_of(ALIGNMENT) + ALIGNMENT;
        }
        (candidate + length < end).then_some(candidate)
    }

    /// Ends an allocation and poisons it, whatever is in flight. Gives an operation on it that the program has not waited
    /// for.
    pub fn free(&self, address: u64) -> Result<Option<Actor>, String> {
        let mut state = lock(&self.state);
        let Some(allocation) = state.live.remove(&address) else {
            drop(state);
            return Err(match self.range(address, 1) {
                Ok(_) => format!("{address:#x} is inside an allocation; only its beginning can be freed"),
                Err(sentence) => sentence,
            });
        };
        state.used -= allocation.length as u64;
        drop(state);
        let in_flight = lock(&allocation.history).unknown_to(&Clock::of_host());
        allocation.end();
        Ok(in_flight)
    }

    /// Ends all allocations, as the end of a context does.
    pub fn free_all(&self) {
        let ended = {
            let mut state = lock(&self.state);
            state.used = 0;
            std::mem::take(&mut state.live)
        };
        ended.values().for_each(|allocation| allocation.end());
    }

    /// The live memory at `address`; a sentence where there is none, or less than `length` bytes.
    pub fn range(&self, address: u64, length: usize) -> Result<Range, String> {
        let device = self.ordinal;
        if !self.reserves(address) {
            return Err(format!("{address:#x} is not an address of device {device}"));
        }
        let state = lock(&self.state);
        let found = state.live.range(..=address).next_back();
        let Some((&start, allocation)) =
            found.filter(|(start, allocation)| address - **start < allocation.length.max(1) as u64)
        else {
            return Err(if address < state.next {
                format!(
                    "{address:#x} is not in any live allocation of device {device}: it was freed, or never given out"
                )
            } else {
                format!("{address:#x} was never given out by device {device}")
            });
        };
        let offset = (address - start) as usize;
        let room = allocation.length - offset;
        if length > room {
            return Err(format!(
                "{length} bytes at {address:#x} go beyond their allocation on device {device}, which has {room} bytes from there"
            ));
        }
        Ok(Range { allocation: Arc::clone(allocation), offset, length })
    }
}

impl Allocation {
    /// Marks it as freed and poisons it.
    fn end(&self) {
        self.freed.store(true, Ordering::Release);
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).fill(POISON);
    }
}

impl Range {
    /// Its first byte's address.
    pub fn address(&self) -> u64 {
        self.allocation.address + self.offset as u64
    }

    /// The beginning and the length of the allocation that it is a part of.
    pub fn allocation(&self) -> (u64, usize) {
        (self.allocation.address, self.allocation.length)
    }

    /// A part of it.
    pub fn part(&self, from: usize, length: usize) -> Self {
        debug_assert!(from + length <= self.length);
        Self { allocation: Arc::clone(&self.allocation), offset: self.offset + from, length }
    }

    /// Whether the two have bytes in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.allocation, &other.allocation)
            && self.offset < other.offset + other.length
            && other.offset < self.offset + self.length
    }

    /// Takes note of an access. Gives the operation with which it races, if there is one.
    pub fn note(&self, writes: bool, actor: &Actor, clock: &Clock) -> Option<Actor> {
        let bytes = (self.offset, self.offset + self.length);
        lock(&self.allocation.history).add(bytes, writes, actor, clock)
    }

    /// Looks at the bytes.
    pub fn look<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        let bytes = self.allocation.bytes.read().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(look(&bytes[self.offset..self.offset + self.length]))
    }

    /// Changes the bytes.
    pub fn change<T>(&self, change: impl FnOnce(&mut [u8]) -> T) -> Result<T, String> {
        let mut bytes = self.allocation.bytes.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        Ok(change(&mut bytes[self.offset..self.offset + self.length]))
    }

    /// The parts that are moved one after the other, so that no operation keeps an allocation for long.
    pub fn chunks(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.length).step_by(CHUNK).map(|from| self.part(from, CHUNK.min(self.length - from)))
    }

    /// Poisons the bytes of an operation that failed, so that nobody takes them for a result.
    pub fn poison(&self) {
        // Freed memory is poisoned already.
        let _ = self.change(|bytes| bytes.fill(POISON));
    }

    fn check(&self) -> Result<(), String> {
        if self.allocation.freed.load(Ordering::Acquire) {
            return Err(format!(
                "{} bytes at {:#x} were freed while an operation in flight still needed them",
                self.length,
                self.address()
            ));
        }
        Ok(())
    }
}
