//! NCCL's own library, from NVIDIA's wheel, in what it does without a GPU. A simulator could have functions that the real
//! one lacks, or lack what it asks for; here the real one is asked.

use mpt::comm::nccl::communicator::UniqueId;
use mpt::comm::nccl::library;
use std::fs;

/// The pinned version, as 10000 * major + 100 * minor + patch.
const PINNED: i32 = 22_907;

#[test]
#[ignore = "needs NCCL's wheel: scripts/test --all"]
fn nccls_own_library_is_found_where_set_up_puts_it_and_has_every_function() {
    library::load_nccl().unwrap();
    assert_eq!(library::nccl_version().unwrap(), PINNED);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loaded = maps.lines().find(|line| line.contains("libnccl")).unwrap();
    assert!(loaded.ends_with("/nvidia/nccl/lib/libnccl.so.2"), "{loaded}");
}

#[test]
#[ignore = "needs NCCL's wheel: scripts/test --all"]
fn each_id_of_nccls_own_library_is_another() {
    library::load_nccl().unwrap();
    let ids = [UniqueId::new().unwrap(), UniqueId::new().unwrap()];
    assert!(ids[0] != ids[1]);
    assert!(ids.iter().all(|id| id.bytes().iter().any(|&byte| byte != 0)));
}
