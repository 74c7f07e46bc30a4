//! Compiles the C++ files of `src/torch/` against the libtorch that torch-sys links, and gives every binary the way to it.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 7] = [
    "src/torch/device.cpp",
    "src/torch/ext.cpp",
    "src/torch/memory.cpp",
    "src/torch/norm.cpp",
    "src/torch/pool.cpp",
    "src/torch/store.cpp",
    "src/torch/update.cpp",
];

fn main() {
    for file in SOURCES.iter().chain(&["src/torch/ext.h"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let libraries = env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where it found libtorch");
    let link = Path::new(&libraries).parent().expect("the folder `lib` lies in the link directory").to_path_buf();
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        // libtorch's own threads, through at::parallel_for; the run-time library is the one beside libtorch.
        .flag("-fopenmp")
        // The same bits from a vector's lanes and from the values left over at its end.
        .flag("-ffp-contract=off")
        // Roots of whole vectors: nobody asks what errno is after one.
        .flag("-fno-math-errno")
        .include(link.join("include"))
        .files(SOURCES)
        .compile("mpt_ext");
    println!("cargo:rustc-link-lib=gomp");
    let libraries = library_folder(&link);
    // As a RUNPATH, which LD_LIBRARY_PATH comes before: that is how a rehearsal's simulator is found instead.
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", nccl_folder(&link).display());
}

/// The folder of the real libraries: they find each other, and the runtime libraries beside them, from there.
fn library_folder(link: &Path) -> PathBuf {
    let library = link.join("lib").join("libtorch_cpu.so");
    let real = library.canonicalize().unwrap_or_else(|error| {
        panic!("{}: {error}; run scripts/setup, which fetches libtorch", library.display());
    });
    real.parent().expect("a file lies in a folder").to_path_buf()
}

/// The folder in which set-up gives NCCL the name that cudarc asks for, on machines that have it. Where there is none the
/// loader goes on looking.
fn nccl_folder(link: &Path) -> PathBuf {
    link.canonicalize().expect("a library was found in it").join("cuda")
}
