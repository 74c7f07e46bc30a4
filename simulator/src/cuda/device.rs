//! The devices of this process.

use super::clock::Clock;
use super::memory::Memory;
use super::result::CuResult;
use super::stream::Stream;
use crate::environment::settings;
use crate::rules;
use crate::sync::lock;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// One simulated GPU. Devices live as long as the process.
pub struct Device {
    /// Its number among those that the process sees, from 0: what the driver's functions call it.
    pub ordinal: usize,
    /// Its number on the machine.
    pub number: usize,
    /// Its memory.
    pub memory: Memory,
    /// The null stream, which every program has without asking.
    pub null_stream: Arc<Stream>,
    /// How many owners its primary context has.
    retained: Mutex<u64>,
    /// The error that a broken rule on a stream left behind; as on a real device it stays.
    error: AtomicU32,
    streams: Mutex<Vec<Weak<Stream>>>,
    /// What was done on streams that were destroyed.
    destroyed: Mutex<Clock>,
    /// How many streams were made: a stream's number is part of the key of its delays.
    numbered: AtomicU64,
}

static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();

/// Makes the devices, as `cuInit` does; further calls change nothing.
pub fn initialize() -> Result<(), CuResult> {
    if DEVICES.get().is_some() {
        return Ok(());
    }
    let visible = settings().devices.iter().enumerate();
    let devices = visible.map(|(ordinal, &number)| Device::new(ordinal, number)).collect::<Result<Vec<_>, _>>()?;
    if devices.is_empty() {
        return Err(CuResult::NO_DEVICE);
    }
    // Two threads may both come here: the first one's devices stay, the other's were never seen by anybody.
    let _ = DEVICES.set(devices);
    Ok(())
}

/// All devices, once `cuInit` was called.
pub fn all() -> Result<&'static [Device], CuResult> {
    DEVICES.get().map(Vec::as_slice).ok_or(CuResult::NOT_INITIALIZED)
}

/// The device of this number.
pub fn numbered(ordinal: i32) -> Result<&'static Device, CuResult> {
    let devices = all()?;
    usize::try_from(ordinal).ok().and_then(|ordinal| devices.get(ordinal)).ok_or(CuResult::INVALID_DEVICE)
}

/// The device whose addresses this is one of.
pub fn of_address(address: u64) -> Option<&'static Device> {
    all().ok()?.iter().find(|device| device.memory.reserves(address))
}

impl Device {
    fn new(ordinal: usize, number: usize) -> Result<Self, CuResult> {
        Ok(Self {
            ordinal,
            number,
            memory: Memory::reserve(ordinal, settings().memory)?,
            null_stream: Arc::new(Stream::new(ordinal, 0)),
            retained: Mutex::new(0),
            error: AtomicU32::new(CuResult::SUCCESS.0),
            streams: Mutex::new(Vec::new()),
            destroyed: Mutex::default(),
            numbered: AtomicU64::new(0),
        })
    }

    /// A new stream.
    pub fn new_stream(&self) -> Arc<Stream> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let stream = Arc::new(Stream::new(self.ordinal, number));
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(&stream));
        stream
    }

    /// A stream is destroyed: it still does what it was given.
    pub fn destroy(&self, stream: &Stream) {
        lock(&self.destroyed).learn(&stream.close());
    }

    /// Waits until every stream has done what it was given so far, those that were destroyed too.
    pub fn synchronize(&self) {
        let destroyed = lock(&self.destroyed).clone();
        let streams: Vec<_> = lock(&self.streams).iter().filter_map(Weak::upgrade).collect();
        self.null_stream.synchronize();
        streams.iter().for_each(|stream| stream.synchronize());
        destroyed.host_learns();
    }

    /// The lasting error, where a stream broke a rule before.
    pub fn check(&self) -> Result<(), CuResult> {
        match self.error.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(CuResult(code)),
        }
    }

    /// Tells that a stream broke a rule; from now on calls for this device fail. First it is told: the program may end as
    /// soon as a call fails.
    pub fn broken(&self, place: impl fmt::Display, sentence: &str) {
        rules::broken(place, sentence);
        self.error.store(CuResult::ILLEGAL_ADDRESS.0, Ordering::Release);
    }

    /// One owner more of the primary context.
    pub fn retain(&self) {
        *lock(&self.retained) += 1;
    }

    /// One owner less; the last one takes the memory along.
    pub fn release(&self) -> Result<(), CuResult> {
        let mut retained = lock(&self.retained);
        if *retained == 0 {
            rules::broken(self, "its primary context is released more often than it was retained");
            return Err(CuResult::INVALID_CONTEXT);
        }
        *retained -= 1;
        if *retained == 0 {
            self.memory.free_all();
        }
        Ok(())
    }

    /// Whether the primary context has an owner.
    pub fn is_active(&self) -> bool {
        *lock(&self.retained) > 0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "device {}", self.ordinal)
    }
}
