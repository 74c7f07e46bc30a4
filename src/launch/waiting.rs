//! How libtorch's OpenMP threads wait for each other.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What OpenMP reads once, when its library is loaded.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Starts this program again with OpenMP threads that sleep while they wait, unless the user has chosen otherwise. By
/// default they spin, and on a machine that has anything else to do each of them burns the time that the one it waits
/// for would need: a hundredfold slowdown was seen.
///
/// Returns only if there is nothing to do or the program cannot be started again; then it runs on as it is.
pub fn passively() {
    if env::var_os(POLICY).is_some() || env::var_os("GOMP_SPINCOUNT").is_some() {
        return;
    }
    if let Ok(program) = env::current_exe() {
        // `exec` comes back only if it failed.
        let _ = Command::new(program).args(env::args_os().skip(1)).env(POLICY, "passive").exec();
    }
}
