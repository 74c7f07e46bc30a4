//! Memory that two processes share: a few slots, each with room for the largest share of a batch. The first rank of the host
//! writes share k into slot k modulo [`SLOTS`] once everyone has copied share k - `SLOTS`; what it holds goes along the line.

use crate::data::batch::{Batch, Mask};
use crate::data::loader::LoaderOptions;
use crate::data::source::Source;
use crate::error::{Error, Result};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, memfd_create};
use rustix::io::retry_on_intr;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

/// One is written while the other is copied. What waits beyond that, waits with the ranks.
pub const SLOTS: u64 = 2;
/// What the memory is called in `/proc/PID/maps`.
const NAME: &str = "mpt-loader";
/// Where a slot may begin: a cache line.
const LINE: usize = 64;

/// How a share of a batch lies in a slot: its labels, its pixels, its masks. Both sides know it from their options.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The examples of the largest share.
    examples: usize,
    /// The shape of an image.
    shape: [usize; 3],
    /// Each dropout layer with its features.
    masks: Vec<(u32, usize)>,
}

impl Layout {
    /// The layout of a stream, whose options have been checked.
    pub fn of(source: &dyn Source, options: &LoaderOptions) -> Self {
        Self {
            examples: options.batch_size.min(source.len()).div_ceil(options.data_ranks)
                * options.preparation.views.count(),
            shape: options.preparation.shape(source.shape()),
            masks: options.masks.iter().map(|spec| (spec.layer, spec.features)).collect(),
        }
    }

    /// The values of an image.
    fn pixels(&self) -> usize {
        self.shape.iter().product()
    }

    fn slot(&self) -> usize {
        let features: usize = self.masks.iter().map(|(_, features)| features).sum();
        let example = size_of::<i64>() + self.pixels() * size_of::<f32>() + features;
        (self.examples * example).next_multiple_of(LINE)
    }

    /// The size of all slots.
    fn bytes(&self) -> usize {
        self.slot() * SLOTS as usize
    }
}

/// What a batch consists of: any bytes are a value of it.
trait Plain: Copy + Default {}
impl Plain for i64 {}
impl Plain for f32 {}
impl Plain for u8 {}

/// The slots, mapped into this process.
pub struct Slots {
    layout: Layout,
    memory: OwnedFd,
    at: NonNull<u8>,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone, and no part of it to a thread.
unsafe impl Send for Slots {}

impl Slots {
    /// New slots, to be written to. They take up their memory at once, so that a lack of it is an error here and not the end
    /// of the process later.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(layout: Layout) -> Result<Self> {
        let make = || {
            let memory = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            // A signal interrupts it on older kernels; what it means is asked elsewhere.
            retry_on_intr(|| fallocate(&memory, FallocateFlags::empty(), 0, layout.bytes() as u64))?;
            // Who maps it can rely on its size.
            fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Ok(memory)
        };
        let memory = make().map_err(|error: rustix::io::Errno| {
            let mebibytes = layout.bytes() >> 20;
            Error::failed(format!("{mebibytes} MiB that the loader shares with the other ranks of its host: {error}"))
        })?;
        Self::map(layout, memory, true)
    }

    /// The slots of another process, to be copied from.
    ///
    /// # Errors
    /// They are laid out in another way, or cannot be mapped.
    pub fn of(layout: Layout, memory: OwnedFd) -> Result<Self> {
        let found = fstat(&memory).map_or(0, |found| found.st_size);
        if usize::try_from(found) != Ok(layout.bytes()) {
            return Err(Error::failed(format!(
                "the loader of this host shares {found} bytes, and {} were expected: its ranks differ in their data",
                layout.bytes()
            )));
        }
        Self::map(layout, memory, false)
    }

    fn map(layout: Layout, memory: OwnedFd, writable: bool) -> Result<Self> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping, at a place of the system's choice, of a file of at least this size.
        let at = unsafe { mmap(ptr::null_mut(), layout.bytes(), protection, MapFlags::SHARED, &memory, 0) };
        let at = at.ok().and_then(|at| NonNull::new(at.cast()));
        let at = at.ok_or_else(|| Error::failed("the memory that the loader shares cannot be mapped"))?;
        Ok(Self { layout, memory, at, writable })
    }

    /// The memory, to be sent to another process.
    pub fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Writes share `number` of the stream into its slot, which nobody reads at this time.
    pub fn write(&mut self, number: u64, batch: &Batch) {
        let mut at = self.begin(number);
        self.put(&mut at, &batch.labels);
        self.put(&mut at, &batch.pixels);
        for mask in &batch.masks {
            self.put(&mut at, &mask.keep);
        }
    }

    /// Copies share `number` of the stream, of so many examples, out of its slot, which nobody writes to at this time.
    ///
    /// # Errors
    /// No slot has room for so many examples.
    pub fn read(&self, number: u64, examples: usize, step: u64, global_examples: usize) -> Result<Batch> {
        let Layout { examples: most, shape, masks } = &self.layout;
        if examples > *most {
            return Err(Error::failed(format!(
                "the loader of this host shares {examples} examples in place of {most}"
            )));
        }
        let mut at = self.begin(number);
        let labels = self.take(&mut at, examples);
        let pixels = self.take(&mut at, examples * self.layout.pixels());
        let masks = masks.iter().map(|&(layer, features)| {
            let keep = self.take(&mut at, examples * features);
            Mask { layer, features, keep }
        });
        Ok(Batch { step, global_examples, shape: *shape, labels, pixels, masks: masks.collect() })
    }

    fn begin(&self, number: u64) -> usize {
        (number % SLOTS) as usize * self.layout.slot()
    }

    fn put<T: Plain>(&mut self, at: &mut usize, values: &[T]) {
        let bytes = size_of_val(values);
        assert!(self.writable && *at + bytes <= self.layout.bytes(), "a share that no slot has room for");
        // SAFETY: the bytes lie within the mapping, which is writable; `values` is memory of this process.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr().cast(), self.at.as_ptr().add(*at), bytes) };
        *at += bytes;
    }

    fn take<T: Plain>(&self, at: &mut usize, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        let bytes = size_of_val(values.as_slice());
        assert!(*at + bytes <= self.layout.bytes(), "a share that no slot has room for");
        // SAFETY: the bytes lie within the mapping; `values` has room for them, and any bytes are values of a plain type.
        unsafe { ptr::copy_nonoverlapping(self.at.as_ptr().add(*at), values.as_mut_ptr().cast(), bytes) };
        *at += bytes;
        values
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing refers to it any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.layout.bytes()) };
    }
}
