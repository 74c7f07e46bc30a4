// What the C++ files beside this one share. Every function that Rust calls returns nullptr, or the message of what
// went wrong, to be freed with mpt_free_message.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <cstdint>
#include <cstring>
#include <exception>
#include <type_traits>

// One body, compiled for each generation of vector registers and chosen when the library is loaded.
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace mpt {

template <typename Call>
char *guarded(Call call) {
  try {
    call();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}

// The bits of the bf16 number nearest to a value, of two equally near ones the even one; what is not a number stays so.
inline uint16_t rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  auto nearest = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  return value != value ? 0x7fc0 : nearest;
}

// What values are computed with: bf16 in fp32.
template <typename Value> using Wide = std::conditional_t<std::is_same_v<Value, at::BFloat16>, float, Value>;

// bf16 is the upper half of fp32.
inline float widened(at::BFloat16 value) {
  uint32_t bits = static_cast<uint32_t>(value.x) << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}
inline float widened(float value) { return value; }
inline double widened(double value) { return value; }

template <typename Value> inline Value narrowed(Value value) { return value; }
template <typename Value>
inline std::enable_if_t<std::is_same_v<Value, at::BFloat16>, Value> narrowed(float value) {
  return at::BFloat16(rounded(value), at::BFloat16::from_bits());
}

} // namespace mpt
