// The way of a tensor to a GPU, in terms of what libc10 knows of every kind of device: nothing here links CUDA.

#include "ext.h"
#include <ATen/Context.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <optional>

using mpt::guarded;

extern "C" {

// Same numbers in every run: no products in TF32, no choice of algorithms by their speed, and none that adds up in
// whatever order its threads come.
char *mpt_exact_cuda() {
  return guarded([] {
    auto &context = at::globalContext();
    context.setBenchmarkCuDNN(false);
    context.setDeterministicCuDNN(true);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
  });
}

// Copies a tensor from the CPU's memory to a GPU, through pinned memory and on a stream of its own, so that the copy goes
// on while the GPU computes. What is put on the GPU's current stream from then on comes after it.
char *mpt_upload(const at::Tensor *tensor, int64_t index, at::Tensor **result) {
  return guarded([&] {
    c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
    c10::impl::VirtualGuardImpl guard(c10::kCUDA);
    static thread_local std::optional<c10::Stream> copies;
    if (!copies || copies->device() != device) {
      copies = guard.getStreamFromGlobalPool(device);
    }
    auto compute = guard.getStream(device);
    auto pinned = tensor->pin_memory();
    guard.exchangeStream(*copies);
    auto copy = pinned.to(device, /*non_blocking=*/true);
    guard.exchangeStream(compute);
    c10::Event arrived(c10::kCUDA);
    arrived.record(*copies);
    arrived.block(compute);
    // The allocator knows the memory as that of the stream of copies: it is told who reads it.
    guard.recordDataPtrOnStream(copy.storage().data_ptr(), compute);
    *result = new at::Tensor(copy);
  });
}

// Waits until a GPU has done all that it was asked for, on every stream.
char *mpt_synchronize(int64_t index) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(c10::kCUDA).synchronizeDevice(static_cast<c10::DeviceIndex>(index));
  });
}

} // extern "C"
