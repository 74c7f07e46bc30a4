//! The program's own memory. A copy reads or writes it when the stream comes to it, and by then it may be gone: so the
//! kernel is asked to do it, which answers instead of ending the process.

use super::device;
use super::memory::POISON;
use super::result::CuResult;
use crate::sync::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Which way bytes go between this process's memory and a buffer.
#[derive(Clone, Copy)]
enum Way {
    FromHost,
    ToHost,
}

/// Reads host memory.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), String> {
    transfer(Way::FromHost, address, into.as_mut_ptr(), into.len())
}

/// Writes host memory.
pub fn write(address: u64, from: &[u8]) -> Result<(), String> {
    transfer(Way::ToHost, address, from.as_ptr().cast_mut(), from.len())
}

fn transfer(way: Way, address: u64, buffer: *mut u8, length: usize) -> Result<(), String> {
    if let Some(device) = device::of_address(address) {
        return Err(format!("{address:#x} is an address of {device}, where host memory was expected"));
    }
    let mut moved = 0;
    while moved < length {
        // SAFETY: inside the buffer, as `moved` is less than `length`.
        let local = libc::iovec { iov_base: unsafe { buffer.add(moved) }.cast(), iov_len: length - moved };
        let remote = libc::iovec { iov_base: (address + moved as u64) as *mut libc::c_void, iov_len: length - moved };
        // SAFETY: the local part is a buffer of ours, writable where it is written to; the kernel checks the remote
        // part, which belongs to this very process.
        let count = unsafe {
            let process = libc::getpid();
            match way {
                Way::FromHost => libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0),
                Way::ToHost => libc::process_vm_writev(process, &raw const local, 1, &raw const remote, 1, 0),
            }
        };
        match usize::try_from(count) {
            Ok(count) if count > 0 => moved += count,
            _ => return Err(failure(address, length)),
        }
    }
    Ok(())
}

/// Why the kernel could not do it.
fn failure(address: u64, length: usize) -> String {
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EFAULT) {
        format!("{length} bytes of host memory at {address:#x} were given up before the copy that needs them")
    } else {
        format!("{length} bytes of host memory at {address:#x} cannot be reached: {error}")
    }
}

/// Blocks of pinned memory that are alive, with their lengths.
static PINNED: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

/// A new block of pinned host memory, poisoned like device memory.
pub fn allocate_pinned(length: usize) -> Result<u64, CuResult> {
    if length == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping wherever there is room, filled before anybody else knows of it.
    let block = unsafe {
        let block = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
        if block == libc::MAP_FAILED {
            return Err(CuResult::OUT_OF_MEMORY);
        }
        std::ptr::write_bytes(block.cast::<u8>(), POISON, length);
        block as u64
    };
    lock(&PINNED).insert(block, length);
    Ok(block)
}

/// Ends a block of pinned memory. Its addresses stay taken, so that a copy in flight does not find another's bytes.
pub fn free_pinned(address: u64) -> Result<(), CuResult> {
    let length = lock(&PINNED).remove(&address).ok_or(CuResult::INVALID_VALUE)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the block was mapped above with this length and is alive, so only its own pages are replaced; the program
    // gives it up with this call.
    let replaced = unsafe { libc::mmap(address as *mut libc::c_void, length, libc::PROT_NONE, flags, -1, 0) };
    if replaced == libc::MAP_FAILED { Err(CuResult::OPERATING_SYSTEM) } else { Ok(()) }
}
