//! NCCL's result codes, and failures with their sentences.

use crate::boundary::Outcome;
use crate::rules;
use crate::sync::lock;
use std::ffi::{CStr, CString, c_char};
use std::fmt::Display;
use std::sync::Mutex;

/// `ncclResult_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct NcclResult(pub u32);

/// Declares the codes with their names and NCCL's sentences.
macro_rules! codes {
    ($($name:ident = $value:literal, $header_name:literal, $sentence:literal;)*) => {
        impl NcclResult {
            $(#[allow(missing_docs)] pub const $name: Self = Self($value);)*

            /// The code's name in `nccl.h` and NCCL's sentence for it.
            fn described(self) -> (&'static str, &'static CStr) {
                match self.0 {
                    $($value => ($header_name, $sentence),)*
                    _ => ("unknown ncclResult_t", c"unknown result code"),
                }
            }
        }
    };
}

codes! {
    SUCCESS = 0, "ncclSuccess", c"no error";
    UNHANDLED_CUDA_ERROR = 1, "ncclUnhandledCudaError", c"unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    SYSTEM_ERROR = 2, "ncclSystemError", c"unhandled system error (run with NCCL_DEBUG=INFO for details)";
    INTERNAL_ERROR = 3, "ncclInternalError", c"internal error - please report this issue to the NCCL developers";
    INVALID_ARGUMENT = 4, "ncclInvalidArgument", c"invalid argument (run with NCCL_DEBUG=WARN for details)";
    INVALID_USAGE = 5, "ncclInvalidUsage", c"invalid usage (run with NCCL_DEBUG=WARN for details)";
    REMOTE_ERROR = 6, "ncclRemoteError", c"remote process exited or there was a network error";
    IN_PROGRESS = 7, "ncclInProgress", c"NCCL operation in progress";
}

impl NcclResult {
    /// NCCL's sentence for the code.
    pub fn sentence(self) -> &'static CStr {
        self.described().1
    }
}

impl Outcome for NcclResult {
    const SUCCESS: Self = Self::SUCCESS;
    const DEFECT: Self = Self::INTERNAL_ERROR;
    const NULL: Self = Self::INVALID_ARGUMENT;

    fn name(self) -> &'static str {
        self.described().0
    }
}

/// Why something failed; its sentence is what `ncclGetLastError` gives.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The code that the program is given.
    pub code: NcclResult,
    /// What happened.
    pub sentence: String,
}

static LAST: Mutex<String> = Mutex::new(String::new());

impl Failure {
    /// A failure that breaks no rule: a peer that died, a fault that was asked for.
    pub fn new(code: NcclResult, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    /// A broken rule, told at once.
    pub fn broken_rule(place: impl Display, code: NcclResult, sentence: impl Into<String>) -> Self {
        let failure = Self::new(code, sentence);
        rules::broken(place, &failure.sentence);
        failure
    }

    /// The code for the program; the sentence is kept for `ncclGetLastError`.
    pub fn told(&self) -> NcclResult {
        lock(&LAST).clone_from(&self.sentence);
        self.code
    }
}

/// The newest sentence. The text stays where it is until the same thread asks again.
pub fn last_sentence() -> *const c_char {
    thread_local! {
        static TEXT: std::cell::RefCell<CString> = std::cell::RefCell::default();
    }
    let sentence = lock(&LAST).replace('\0', " ");
    TEXT.with_borrow_mut(|text| {
        *text = CString::new(sentence).unwrap_or_default();
        text.as_ptr()
    })
}
