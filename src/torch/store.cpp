// The key-value store in which the ranks of a run find each other: libtorch's own, which torchrun speaks too. None of
// these calls ends by itself if the network swallows the answer: the caller has to bound them.

#include "ext.h"
#include <c10/util/Flags.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

C10_DECLARE_int(caffe2_log_level);

using mpt::guarded;
using Store = c10::intrusive_ptr<c10d::TCPStore>;

// Bytes for Rust, which belong to it until mpt_free_message takes them.
static void hand_over(const std::vector<uint8_t> &found, char **value, size_t *size) {
  *value = static_cast<char *>(malloc(found.size() + 1));
  TORCH_CHECK(*value != nullptr, "no memory for a value of ", found.size(), " bytes");
  memcpy(*value, found.data(), found.size());
  *size = found.size();
}

extern "C" {

// Joins the store at an address, or serves it there (port 0: any that is free) without waiting for others. `bound` gets
// the port. `store` is to be given back with mpt_store_close.
char *mpt_store_open(const char *host, uint16_t port, bool serve, int64_t milliseconds, Store **store, uint16_t *bound) {
  return guarded([&] {
    // libtorch writes about every attempt to connect and every wait that ends in vain. Both are usual here, and what
    // matters of them mpt says itself.
    if (getenv("TORCH_CPP_LOG_LEVEL") == nullptr) {
      FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    }
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

// Sets a key that is not set yet; gives what it holds then.
char *mpt_store_set_first(Store *store, const char *key, const uint8_t *wish, size_t wished, char **value, size_t *size) {
  return guarded([&] { hand_over((*store)->compareSet(key, {}, std::vector<uint8_t>(wish, wish + wished)), value, size); });
}

// The value of a key that is set.
char *mpt_store_get(Store *store, const char *key, char **value, size_t *size) {
  return guarded([&] { hand_over((*store)->get(key), value, size); });
}

// Waits until a key is set; `came` says whether it was within the time.
char *mpt_store_wait(Store *store, const char *key, int64_t milliseconds, bool *came) {
  return guarded([&] {
    try {
      (*store)->wait({std::string(key)}, std::chrono::milliseconds(milliseconds));
      *came = true;
    } catch (const c10::DistStoreError &) {
      *came = false;
    }
  });
}

// Adds to the number of a key, 0 where it has none; `sum` gets the result. No two ranks get the same from adding 1.
char *mpt_store_add(Store *store, const char *key, int64_t amount, int64_t *sum) {
  return guarded([&] { *sum = (*store)->add(key, amount); });
}

// Removes a key, whether it is set or not.
char *mpt_store_remove(Store *store, const char *key) {
  return guarded([&] { (*store)->deleteKey(key); });
}

// The number of keys that are set, and one of the store's own: for tests.
char *mpt_store_count(Store *store, int64_t *count) {
  return guarded([&] { *count = (*store)->getNumKeys(); });
}

// Whether a key has been set, without waiting for it.
char *mpt_store_contains(Store *store, const char *key, bool *found) {
  return guarded([&] { *found = (*store)->check({std::string(key)}); });
}

} // extern "C"
