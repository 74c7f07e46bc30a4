// Memory for tensors on the CPU that is used again where it was freed.

#include "ext.h"
#include <c10/core/CPUAllocator.h>
#include <cstddef>
#include <limits>

using mpt::guarded;

namespace {

// What libtorch promises its kernels: a cache line, and the widest vector register.
constexpr size_t ALIGNMENT = 64;

// libtorch asks glibc for aligned memory, and glibc's posix_memalign looks for a block that is larger by the alignment and
// gives back what it had too much. So where a tensor was freed another of the same size does not fit, and the heap grows.
// Blocks of malloc's own fit: a tensor gets one that is larger by the alignment, lies in it where it is aligned, and has the
// block's address in front of it.
struct Reused final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void *data = bytes == 0 ? nullptr : aligned(bytes);
    return {data, data, &give_back, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void *to, const void *from, size_t bytes) const override { default_copy_data(to, from, bytes); }

private:
  static void *aligned(size_t bytes) {
    void *block = bytes <= std::numeric_limits<size_t>::max() - ALIGNMENT ? malloc(bytes + ALIGNMENT) : nullptr;
    TORCH_CHECK_WITH(OutOfMemoryError, block, "there is no memory for a tensor of ", bytes, " bytes");
    // A block begins at a multiple of 16 bytes: before the next multiple of 64 behind its beginning is room for an address.
    static_assert(alignof(std::max_align_t) >= sizeof(void *));
    auto address = (reinterpret_cast<uintptr_t>(block) / ALIGNMENT + 1) * ALIGNMENT;
    auto data = reinterpret_cast<void **>(address);
    data[-1] = block;
    return data;
  }

  static void give_back(void *data) {
    if (data) {
      free(static_cast<void **>(data)[-1]);
    }
  }
};

} // namespace

extern "C" {

// Has tensors lie in such memory from now on. A tensor knows how it is given back, but what libtorch takes for its own use
// is given back as new memory is: so this comes before libtorch is used.
char *mpt_reuse_memory() {
  return guarded([] {
    static Reused reused;
    c10::SetCPUAllocator(&reused, std::numeric_limits<uint8_t>::max());
  });
}

} // extern "C"
