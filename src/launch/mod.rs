//! How ranks are started and stopped.
//!
//! * [`threads`] ranks as threads of this process: CPU devices
//! * [`control`] what ends a run early
//! * [`environment`] what libtorch's run-time libraries are told before they are loaded

pub mod control;
pub mod environment;
pub mod threads;
