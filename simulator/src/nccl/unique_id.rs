//! The unique id of a communicator: a random token, and a mark of the folder where the ranks meet.

use super::result::{Failure, NcclResult};
use crate::environment::settings;
use crate::random::draw;
use std::os::unix::ffi::OsStrExt;

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId {
    bytes: [u8; 128],
}

const MARK: &[u8; 16] = b"mpt-simulator-id";

impl UniqueId {
    /// A new one.
    pub fn new() -> Result<Self, Failure> {
        let mut bytes = [0; 128];
        bytes[..16].copy_from_slice(MARK);
        // SAFETY: the kernel writes at most these 16 bytes of our array.
        let count = unsafe { libc::getrandom(bytes[16..32].as_mut_ptr().cast(), 16, 0) };
        if count != 16 {
            return Err(Failure::new(NcclResult::SYSTEM_ERROR, "no random numbers from the kernel"));
        }
        bytes[32..40].copy_from_slice(&folder_mark().to_ne_bytes());
        Ok(Self { bytes })
    }

    /// The token, as it is part of names in the folder.
    pub fn token(&self) -> Result<String, Failure> {
        if self.bytes[..16] != MARK[..] {
            return Err(Failure::broken_rule(
                "ncclUniqueId",
                NcclResult::INVALID_ARGUMENT,
                "the unique id was not made by ncclGetUniqueId of the simulator",
            ));
        }
        if self.bytes[32..40] != folder_mark().to_ne_bytes() {
            return Err(Failure::broken_rule(
                "ncclUniqueId",
                NcclResult::INVALID_ARGUMENT,
                format!(
                    "the unique id comes from a process with another MPT_SIMULATOR_FOLDER than {}: the ranks cannot meet",
                    settings().folder.path().display()
                ),
            ));
        }
        Ok(self.bytes[16..32].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// A number that tells two folders apart.
fn folder_mark() -> u64 {
    let path = settings().folder.path().as_os_str();
    draw(&path.as_bytes().iter().map(|&byte| u64::from(byte)).collect::<Vec<_>>())
}
