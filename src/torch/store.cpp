// The key-value store in which the ranks of a run find each other: libtorch's own, which torchrun speaks too.

#include "ext.h"
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using mpt::guarded;
using Store = c10::intrusive_ptr<c10d::TCPStore>;

extern "C" {

// Joins the store at an address, or serves it there (port 0: any that is free) without waiting for others. `bound` gets
// the port. `store` is to be given back with mpt_store_close.
char *mpt_store_open(const char *host, uint16_t port, bool serve, int64_t milliseconds, Store **store, uint16_t *bound) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(milliseconds);
    auto opened = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
    *bound = opened->getPort();
    *store = new Store(std::move(opened));
  });
}

void mpt_store_close(Store *store) { delete store; }

char *mpt_store_set(Store *store, const char *key, const uint8_t *value, size_t size) {
  return guarded([&] { (*store)->set(key, std::vector<uint8_t>(value, value + size)); });
}

// Waits for a key and its value, `size` bytes that belong to the caller until mpt_free_message takes them.
char *mpt_store_get(Store *store, const char *key, char **value, size_t *size) {
  return guarded([&] {
    auto found = (*store)->get(key);
    *value = static_cast<char *>(malloc(found.size() + 1));
    TORCH_CHECK(*value != nullptr, "no memory for a value of ", found.size(), " bytes");
    memcpy(*value, found.data(), found.size());
    *size = found.size();
  });
}

// Adds to the number of a key, 0 where it has none; `sum` gets the result. No two ranks get the same from adding 1.
char *mpt_store_add(Store *store, const char *key, int64_t amount, int64_t *sum) {
  return guarded([&] { *sum = (*store)->add(key, amount); });
}

// Whether a key has been set, without waiting for it.
char *mpt_store_contains(Store *store, const char *key, bool *found) {
  return guarded([&] { *found = (*store)->check({std::string(key)}); });
}

} // extern "C"
