//! Exchange buffers: memory of the GPU that NCCL reads and writes. It is kept from call to call. libtorch's allocator
//! knows only the stream on which it hands memory out, and would give away a tensor that NCCL still reads on another
//! (silent corruption: pytorch#188655); nothing that NCCL touches is ever in its hands.
//!
//! A buffer that comes back is written next either by a copy on libtorch's stream, which has waited for the collective
//! that used it, or by a collective that waits for libtorch's stream. So it may come back as soon as the copies from it
//! are on that stream.

use super::gpu::{Gpu, failed};
use crate::error::{Error, Result};
use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;
use std::sync::Arc;

/// Places in a buffer are multiples of this many bytes: what cuMemAlloc promises of its own, and enough for every load
/// that NCCL makes.
pub const ALIGNMENT: usize = 256;

/// Memory of a GPU. Dropped outside its pool it stays as it is until the process ends: to free it could wait for ever.
pub struct Buffer {
    pointer: CUdeviceptr,
    size: usize,
}

impl Buffer {
    /// The address of `bytes` bytes from `at` on.
    ///
    /// # Errors
    /// They do not lie in the buffer: a fault of ours.
    pub fn place(&self, at: usize, bytes: usize) -> Result<CUdeviceptr> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.size => Ok(self.pointer + at as u64),
            _ => Err(Error::failed(format!("{bytes} bytes at {at} do not lie in a buffer of {}", self.size))),
        }
    }
}

/// Buffers that are not in use.
pub struct Pool {
    gpu: Arc<Gpu>,
    free: Vec<Buffer>,
}

impl Pool {
    /// None yet.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, free: Vec::new() }
    }

    /// A buffer of at least `bytes` bytes: the smallest one that is free, or a new one. A step makes the same calls
    /// as the one before it, so that soon every call finds one.
    ///
    /// # Errors
    /// The GPU has no more memory.
    pub fn take(&mut self, bytes: usize) -> Result<Buffer> {
        // One more than twice as large is left to a call that needs it.
        let fits = |size: usize| size >= bytes && size / 2 <= bytes.max(ALIGNMENT);
        let fitting = self.free.iter().enumerate().filter(|(_, buffer)| fits(buffer.size));
        if let Some((found, _)) = fitting.min_by_key(|(_, buffer)| buffer.size) {
            return Ok(self.free.swap_remove(found));
        }
        let size = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        self.gpu.bind()?;
        // SAFETY: any size may be asked for; the memory belongs to the buffer alone.
        let pointer = unsafe { result::malloc_sync(size) };
        let pointer =
            pointer.map_err(|error| failed(&format!("an exchange buffer of {size} bytes cannot be had"), error))?;
        Ok(Buffer { pointer, size })
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// Leaves all memory to the end of the process.
    pub fn leave(&mut self) {
        self.free.clear();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            for Buffer { pointer, .. } in self.free.drain(..) {
                // SAFETY: the pointer came from the allocator and is given back once; the driver waits for work that
                // uses it. What it reports cannot be told to anyone here.
                let _ = unsafe { result::free_sync(pointer) };
            }
        }
    }
}
