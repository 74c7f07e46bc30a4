//! How ranks are started and stopped.
//!
//! * [`supervisor`] ranks as processes of this machine: GPUs
//! * [`launchers`] who started this process as a rank: torchrun, srun, mpirun, Kubeflow, or mpt
//! * [`listening`] what ranks say, on its way through the supervisor
//! * [`rank_logs`] and filed
//! * [`word`] what a rank tells the supervisor
//! * [`watchdog`] what sees a call that does not end, says whose fault it is, and ends the run
//! * [`world`] the run that a process is a rank of, and the store in which it meets the others
//! * [`board`] what the ranks of a run tell each other
//! * [`patience`] and how long one bears with a store that does not answer
//! * [`peers`] and when they write a checkpoint together
//! * [`agreement`] what the ranks of a run must have in common
//! * [`heartbeat`] signs of life while they train
//! * [`host`] how the ranks of a host come to share one loader
//! * [`meeting`] how ranks that are processes become groups
//! * [`last_word`] what a process that failed says and leaves
//! * [`simulator`] simulated GPUs, for rehearsals
//! * [`threads`] ranks as threads of this process: CPU devices
//! * [`control`] what ends a run early
//! * [`environment`] what libtorch's run-time libraries are told before they are loaded
//! * [`visible`] which GPUs of this machine are used

pub mod agreement;
pub mod board;
pub mod control;
pub mod environment;
pub mod heartbeat;
pub mod host;
pub mod last_word;
pub mod launchers;
pub mod listening;
pub mod meeting;
pub mod patience;
pub mod peers;
pub mod rank_logs;
pub mod simulator;
pub mod supervisor;
pub mod threads;
pub mod visible;
pub mod watchdog;
pub mod word;
pub mod world;
