//! How ranks are started and stopped.
//!
//! * [`threads`] ranks as threads of this process: CPU devices
//! * [`control`] what ends a run early
//! * [`waiting`] how OpenMP threads wait

pub mod control;
pub mod threads;
pub mod waiting;
