//! Functions that are there only to say that they are not simulated: without them cudarc would panic at a missing
//! symbol.

use crate::boundary::call;
use crate::cuda::CuResult;
use crate::rules;

/// Exports functions that refuse. They take no arguments here, though their callers pass some: in C's calling
/// conventions the caller removes them.
macro_rules! refused {
    ($($name:ident: $what:literal;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`: not simulated.")]
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> CuResult {
                call(stringify!($name), |_| {
                    rules::say(concat!("simulator: ", stringify!($name), ": ", $what));
                    Err(CuResult::NOT_SUPPORTED)
                })
            }
        )*
    };
}

refused! {
    cuMemAllocAsync: "memory pools are not simulated, as CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED says";
    cuMemFreeAsync: "memory pools are not simulated, as CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED says";
    cuMemAllocManaged: "managed memory is not simulated";
    cuCtxCreate_v4: "only primary contexts are simulated";
    cuModuleLoadData: "kernels are not simulated";
    cuModuleLoad: "kernels are not simulated";
    cuModuleGetFunction: "kernels are not simulated";
    cuModuleUnload: "kernels are not simulated";
    cuLaunchKernel: "kernels are not simulated";
    cuStreamBeginCapture_v2: "graphs are not simulated";
}
