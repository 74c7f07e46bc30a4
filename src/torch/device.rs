//! CUDA at run time: libtorch's CUDA library is loaded when it is asked for, and tensors travel to the GPU.

use super::{check, owned};
use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};
use std::ptr;
use tch::{Cuda, Device, Tensor};
use torch_sys::C_tensor;

/// libtorch's CUDA library, which lies beside the CPU's.
const LIBRARY: &CStr = c"libtorch_cuda.so";

unsafe extern "C" {
    fn mpt_exact_cuda() -> *mut c_char;
    fn mpt_upload(tensor: *const C_tensor, index: i64, result: *mut *mut C_tensor) -> *mut c_char;
    fn mpt_synchronize(index: i64) -> *mut c_char;
}

/// Loads libtorch's CUDA library. It must come before libtorch is first asked about CUDA, which would else have no CUDA
/// for the rest of the process.
///
/// # Errors
/// The library, or one that it needs, is missing; or it finds no GPU.
pub fn load_cuda() -> Result<()> {
    // SAFETY: the library's initialisers are those that PyTorch's own Python module runs. It stays loaded for good.
    let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        // SAFETY: after a failure of this thread's dlopen it gives a text, or null.
        let reason = unsafe { libc::dlerror() };
        let reason = match reason.is_null() {
            true => "for an unknown reason".into(),
            // SAFETY: it is ended by a zero and stays until the next such call of this thread.
            false => unsafe { CStr::from_ptr(reason) }.to_string_lossy(),
        };
        return Err(Error::usage(format!(
            "libtorch's CUDA library cannot be loaded ({reason}): run scripts/setup on this machine, or use --device cpu"
        )));
    }
    if Cuda::device_count() < 1 {
        return Err(Error::usage("libtorch finds no GPU that it can use: see nvidia-smi, or use --device cpu"));
    }
    // SAFETY: sets three options of libtorch's.
    check(unsafe { mpt_exact_cuda() })
}

/// The tensor on a device: itself on the CPU, else a copy that is on its way while the GPU goes on computing.
///
/// # Errors
/// What libtorch reports, as when the GPU's memory runs out.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor> {
    let Device::Cuda(index) = device else { return Ok(tensor.shallow_clone()) };
    let mut result = ptr::null_mut();
    // SAFETY: the tensor outlives the call, which copies it to pinned memory first, and `result` has room for one pointer.
    check(unsafe { mpt_upload(tensor.as_ptr(), index as i64, &mut result) })?;
    owned(result).ok_or_else(|| Error::failed("libtorch gave no tensor"))
}

/// Waits until a device has done all that it was asked for: a GPU computes while the processor goes on. For benchmarks;
/// training waits for nothing that it does not read.
///
/// # Errors
/// What went wrong on the GPU, in what it was asked for before too.
pub fn synchronize(device: Device) -> Result<()> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: takes any number, and refuses what is not that of a GPU.
    check(unsafe { mpt_synchronize(index as i64) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn on_the_cpu_a_tensor_stays_where_it_is() {
        let tensor = Tensor::ones([3], (Kind::Float, Device::Cpu));
        assert_eq!(upload(&tensor, Device::Cpu).unwrap().data_ptr(), tensor.data_ptr());
    }

    #[test]
    fn a_gpu_that_there_is_not_is_not_waited_for() {
        assert_eq!(synchronize(Device::Cpu), Ok(()));
        assert!(synchronize(Device::Cuda(4096)).is_err());
    }

    #[test]
    fn a_machine_without_a_gpu_says_what_is_missing() {
        let gpu = std::path::Path::new("/proc/driver/nvidia/version").exists();
        let found = load_cuda();
        assert!(gpu || found.is_err());
        if let Err(error) = found {
            assert!(error.to_string().contains("--device cpu") && error.exit_code() == 2, "{error}");
        }
    }
}
