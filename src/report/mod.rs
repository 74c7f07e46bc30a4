//! What people read: progress, results and tables. Everything here listens to events or shows pure data.
//!
//! * [`console`] stdout and stderr
//! * [`mod@line`] what is said on stderr, for people or as JSON
//! * [`progress`] the run as it goes, on stderr
//! * [`results`] the lines at its end, on stdout
//! * [`run_log`] the run directory
//! * [`model_table`] the layers of models side by side
//! * [`plan_table`] a plan, layer by layer
//! * [`bench_table`] what `mpt bench` measured
//! * [`evaluation_table`] what an evaluation came to
//! * [`diagram`] a plan as a diagram of its devices
//! * [`doctor_table`] what a machine has and lacks
//! * [`epochs`] the epochs of a run, read back
//! * [`curves`] the curves of runs as pictures
//! * [`curves_table`] the same as tables
//! * [`filters`] the kernels of a first convolution, as a picture
//! * [`gradients`] the gradient of each layer over runs, as tables and pictures
//! * [`plot`] curves, as SVG
//! * [`verify_table`] two runs, layer by layer

pub mod bench_table;
pub mod console;
pub mod curves;
pub mod curves_table;
pub mod diagram;
pub mod doctor_table;
pub mod epochs;
pub mod evaluation_table;
pub mod filters;
pub mod gradients;
pub mod line;
pub mod model_table;
pub mod plan_table;
pub mod plot;
pub mod progress;
pub mod results;
pub mod run_log;
pub mod table;
pub mod verify_table;
