//! Memory that the tensors of CPU devices use again.

use super::check;
use std::ffi::c_char;

unsafe extern "C" {
    fn mpt_reuse_memory() -> *mut c_char;
}

/// Has the tensors of CPU devices lie in memory that others fit into when they are gone.
///
/// # Safety
/// Nothing in this process has used libtorch yet: what it holds for itself would be given back as if it were of this memory.
pub unsafe fn reuse() {
    // SAFETY: what it hands to libtorch stays until the process ends, and by the caller's word libtorch holds nothing yet.
    let set = check(unsafe { mpt_reuse_memory() });
    debug_assert!(set.is_ok(), "no allocator has a higher priority");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use tch::{Device, Kind, Tensor};

    /// libtorch's memory is a matter of the whole process, and so this test has one of its own.
    const ALONE: &str = "TEST_IN_A_PROCESS_OF_ITS_OWN";

    #[test]
    fn a_tensor_fits_where_one_of_its_size_was() {
        if std::env::var_os(ALONE).is_none() {
            let name = "torch::memory::tests::a_tensor_fits_where_one_of_its_size_was";
            let alone = Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1").output();
            let alone = alone.unwrap();
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(alone.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        // SAFETY: no other test runs in this process, and this one has no tensor yet.
        unsafe { reuse() };
        // Less than what malloc maps afresh.
        let tensor = || Tensor::zeros([100_000], (Kind::Uint8, Device::Cpu));
        let mut all: Vec<Tensor> = (0..9).map(|_| tensor()).collect();
        for place in [3, 5, 7] {
            let address = all[place].data_ptr();
            assert_eq!(address as usize % 64, 0);
            all[place] = Tensor::new();
            all[place] = tensor();
            assert_eq!(all[place].data_ptr(), address);
        }
        assert_eq!(Tensor::zeros([0], (Kind::Float, Device::Cpu)).numel(), 0);
        let whole_memory = Tensor::f_empty([1 << 60], (Kind::Uint8, Device::Cpu)).unwrap_err().to_string();
        assert!(whole_memory.contains("no memory for a tensor of 1152921504606846976 bytes"), "{whole_memory}");
    }
}
