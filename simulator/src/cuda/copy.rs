//! What streams do apart from communication: copies and fills. Memory is checked when the operation is issued, and
//! again when the stream comes to it.

use super::access::Access;
use super::device::{self, Device};
use super::host;
use super::memory::{CHUNK, Range};
use super::result::CuResult;
use super::stream::Stream;
use crate::rules;
use std::sync::Arc;

/// An operation on memory.
pub enum Copy {
    /// Host memory at an address goes to the device.
    FromHost(u64, Range),
    /// Device memory goes to host memory at an address.
    ToHost(Range, u64),
    /// The first goes to the second, both on devices.
    OnDevice(Range, Range),
    /// Every byte gets this value.
    Fill(Range, u8),
}

/// The live memory that a call names; on `device`.
pub fn checked(call: &str, device: &Device, address: u64, length: usize) -> Result<Range, CuResult> {
    device.memory.range(address, length).map_err(|sentence| {
        let elsewhere = match device::of_address(address) {
            Some(other) if other.ordinal != device.ordinal => format!(" (it belongs to {other})"),
            None => " (it looks like host memory)".to_owned(),
            Some(_) => String::new(),
        };
        rules::broken(device, &format!("{call}: {sentence}{elsewhere}"));
        CuResult::INVALID_VALUE
    })
}

impl Copy {
    /// Puts the operation into a stream of a device.
    pub fn push(self, call: &'static str, device: &'static Device, stream: &Arc<Stream>) {
        let place = stream.to_string();
        let accesses = self.accesses();
        let pushed = stream.push(call, &accesses, move || {
            if let Err(sentence) = self.run() {
                device.broken(place, &format!("{call}: {sentence}"));
            }
        });
        if let Err(race) = pushed {
            device.broken(stream, &race);
        }
    }

    /// The device memory that it touches.
    fn accesses(&self) -> Vec<Access> {
        match self {
            Self::FromHost(_, target) | Self::Fill(target, _) => vec![Access::writes(target)],
            Self::ToHost(source, _) => vec![Access::reads(source)],
            Self::OnDevice(source, target) => vec![Access::reads(source), Access::writes(target)],
        }
    }

    fn run(&self) -> Result<(), String> {
        match self {
            Self::FromHost(source, target) => {
                let mut address = *source;
                for chunk in target.chunks() {
                    chunk.change(|bytes| host::read(address, bytes))??;
                    address += chunk.length as u64;
                }
            }
            Self::ToHost(source, target) => {
                let mut address = *target;
                for chunk in source.chunks() {
                    chunk.look(|bytes| host::write(address, bytes))??;
                    address += chunk.length as u64;
                }
            }
            Self::OnDevice(source, target) => {
                // Through a buffer: the two may be parts of one allocation, whose lock is taken for one at a time.
                let mut buffer = vec![0; CHUNK.min(source.length)];
                for (from, to) in source.chunks().zip(target.chunks()) {
                    let buffer = &mut buffer[..from.length];
                    from.look(|bytes| buffer.copy_from_slice(bytes))?;
                    to.change(|bytes| bytes.copy_from_slice(buffer))?;
                }
            }
            Self::Fill(target, value) => {
                for chunk in target.chunks() {
                    chunk.change(|bytes| bytes.fill(*value))?;
                }
            }
        }
        Ok(())
    }
}
