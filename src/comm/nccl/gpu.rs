//! One GPU as a rank uses it: the stream that libtorch computes on, a second one for what travels, and copies between
//! tensors and exchange buffers.
//!
//! libtorch works on the null stream of the device's primary context, which cudarc retains too, so that both speak of
//! the same stream. The second stream does not wait for the null stream of its own accord: events order them, both ways.

use super::buffers::Buffer;
use crate::clock::Moment;
use crate::error::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Tensor};

/// A GPU and its two streams.
pub struct Gpu {
    context: Arc<CudaContext>,
    /// libtorch's stream.
    compute: Arc<CudaStream>,
    /// The stream of collectives. All communicators of a rank share it, so that every rank carries out the calls of all
    /// its groups in the order in which they were made.
    travel: Arc<CudaStream>,
    /// An event that the streams came past at a known moment: events tell only the time between two of them.
    clock: Mutex<Option<(CudaEvent, Moment)>>,
}

/// What makes an event tell the time.
const TIMED: Option<CUevent_flags> = Some(CUevent_flags::CU_EVENT_DEFAULT);

impl Gpu {
    /// The GPU with this number.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn new(ordinal: usize) -> Result<Arc<Self>> {
        let refused = |error| failed(&format!("GPU {ordinal} cannot be used"), error);
        let context = CudaContext::new(ordinal).map_err(refused)?;
        let compute = context.default_stream();
        let travel = context.new_stream().map_err(refused)?;
        Ok(Arc::new(Self { context, compute, travel, clock: Mutex::new(None) }))
    }

    /// Whether it multiplies bf16 natively: Ampere and newer do.
    ///
    /// # Errors
    /// The driver's.
    pub fn computes_bf16(&self) -> Result<bool> {
        let capability = self.context.compute_capability();
        capability.map(|(major, _)| major >= 8).map_err(|error| failed("the GPU does not tell its generation", error))
    }

    /// Makes this GPU the one that calls of this thread speak of.
    ///
    /// # Errors
    /// The driver's.
    pub fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| failed("the GPU cannot be bound to a thread", error))
    }

    /// The stream of collectives.
    pub fn travel(&self) -> &CudaStream {
        &self.travel
    }

    /// Lets what is put on the stream of collectives from now on begin after all that libtorch has been asked for so
    /// far: before it, a collective would send what is not yet computed.
    ///
    /// # Errors
    /// The driver's.
    pub fn travel_after_compute(&self) -> Result<()> {
        let event = self.computed()?;
        self.travel.wait(&event).map_err(|error| failed("a stream cannot wait for an event", error))
    }

    /// Marks the end of what the stream of collectives has been asked for so far.
    ///
    /// # Errors
    /// The driver's.
    pub fn travelled(&self) -> Result<CudaEvent> {
        self.travel.record_event(TIMED).map_err(|error| failed("an event cannot be recorded", error))
    }

    /// Lets what libtorch is asked for from now on begin after an event: before it, it would read what has not arrived.
    ///
    /// # Errors
    /// The driver's.
    pub fn compute_after(&self, event: &CudaEvent) -> Result<()> {
        self.compute.wait(event).map_err(|error| failed("a stream cannot wait for an event", error))
    }

    /// Marks the end of what libtorch has been asked for so far.
    ///
    /// # Errors
    /// The driver's.
    pub fn computed(&self) -> Result<CudaEvent> {
        self.compute.record_event(TIMED).map_err(|error| failed("an event cannot be recorded", error))
    }

    /// Times events from now on from `past`, which a stream has just come past.
    pub fn set_clock(&self, past: CudaEvent) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((past, Moment::now()));
    }

    /// When a stream came past an event of this GPU; `None` if it has not yet, or if the clock was never set.
    pub fn moment_of(&self, event: &CudaEvent) -> Option<Moment> {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (past, moment) = clock.as_ref()?;
        let passed = event.is_complete().then(|| past.elapsed_ms(event).ok())?;
        Some(moment.shifted(f64::from(passed?) / 1e3))
    }

    /// Copies a dense tensor to a place in a buffer, on libtorch's stream. The tensor must live until the stream has
    /// come to the copy, which for one on the GPU libtorch sees to: its memory is reused in the order of that stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn copy_in(&self, tensor: &Tensor, buffer: &Buffer, at: usize) -> Result<()> {
        let bytes = size_of(tensor);
        if bytes == 0 {
            return Ok(());
        }
        let to = buffer.place(at, bytes)?;
        let from = tensor.data_ptr();
        // SAFETY: `tensor` is dense, so that its values fill the `bytes` bytes from its data pointer on, and `place` has
        // found the range in the buffer. Both outlive the copy: see above, and the buffer's owner.
        let copied = unsafe {
            match tensor.device() {
                Device::Cpu => {
                    let values = slice::from_raw_parts(from.cast::<u8>(), bytes);
                    result::memcpy_htod_async(to, values, self.compute.cu_stream())
                }
                _ => result::memcpy_dtod_async(to, from as u64, bytes, self.compute.cu_stream()),
            }
        };
        copied.map_err(|error| failed("a tensor cannot be copied to an exchange buffer", error))
    }

    /// Copies from a place in a buffer to a dense tensor, on libtorch's stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn copy_out(&self, buffer: &Buffer, at: usize, tensor: &Tensor) -> Result<()> {
        let bytes = size_of(tensor);
        if bytes == 0 {
            return Ok(());
        }
        let from = buffer.place(at, bytes)?;
        let to = tensor.data_ptr();
        // SAFETY: as in `copy_in`, in the other direction; nobody else knows the tensor yet.
        let copied = unsafe {
            match tensor.device() {
                Device::Cpu => {
                    let values = slice::from_raw_parts_mut(to.cast::<u8>(), bytes);
                    result::memcpy_dtoh_async(values, from, self.compute.cu_stream())
                }
                _ => result::memcpy_dtod_async(to as u64, from, bytes, self.compute.cu_stream()),
            }
        };
        copied.map_err(|error| failed("an exchange buffer cannot be copied to a tensor", error))
    }
}

/// Whether a stream has come past an event.
///
/// # Errors
/// The driver's, also from work that was put on the stream before.
pub fn is_complete(event: &CudaEvent) -> Result<bool> {
    event.try_is_complete().map_err(|error| failed("work on the GPU has failed", error))
}

/// The bytes in use on this thread's GPU, by whatever programs; `None` where the driver does not tell.
pub fn memory_in_use() -> Option<u64> {
    let (free, total) = result::mem_get_info().ok()?;
    Some(total.saturating_sub(free) as u64)
}

/// The bytes of a tensor's values.
pub fn size_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

/// An error of the driver, with its own words.
pub fn failed(what: &str, error: DriverError) -> Error {
    let name = error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned());
    let text = error.error_string().map_or_else(|_| String::new(), |text| format!(": {}", text.to_string_lossy()));
    Error::failed(format!("{what}: {name}{text}"))
}
