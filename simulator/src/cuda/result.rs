//! The driver's result codes, as far as the simulator gives them.

use crate::boundary::Outcome;
use std::ffi::CStr;

/// `CUresult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct CuResult(pub u32);

/// Declares the codes with their names and the driver's sentences.
macro_rules! codes {
    ($($name:ident = $value:literal, $header_name:literal, $sentence:literal;)*) => {
        impl CuResult {
            $(#[allow(missing_docs)] pub const $name: Self = Self($value);)*

            /// The code's name in `cuda.h` and the driver's sentence for it.
            pub fn described(self) -> Option<(&'static CStr, &'static CStr)> {
                match self.0 {
                    $($value => Some(($header_name, $sentence)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    SUCCESS = 0, c"CUDA_SUCCESS", c"no error";
    INVALID_VALUE = 1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    OUT_OF_MEMORY = 2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    NOT_INITIALIZED = 3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    NO_DEVICE = 100, c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected";
    INVALID_DEVICE = 101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    INVALID_CONTEXT = 201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    OPERATING_SYSTEM = 304, c"CUDA_ERROR_OPERATING_SYSTEM", c"OS call failed or operation not supported on this OS";
    INVALID_HANDLE = 400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    NOT_READY = 600, c"CUDA_ERROR_NOT_READY", c"device not ready";
    ILLEGAL_ADDRESS = 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    NOT_SUPPORTED = 801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported";
    UNKNOWN = 999, c"CUDA_ERROR_UNKNOWN", c"unknown error";
}

impl Outcome for CuResult {
    const SUCCESS: Self = Self::SUCCESS;
    const DEFECT: Self = Self::UNKNOWN;
    const NULL: Self = Self::INVALID_VALUE;

    fn name(self) -> &'static str {
        self.described().and_then(|(name, _)| name.to_str().ok()).unwrap_or("CUDA_ERROR_UNKNOWN")
    }
}
