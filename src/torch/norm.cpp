// Local response normalisation across the channels of channels-last images, y = x s^-beta with s = k + weight * (the sum of
// the squares of the channels in a window): the channels of a pixel lie side by side, so that one pass over memory does it.

#include "ext.h"
#include <algorithm>
#include <cmath>
#include <vector>

using mpt::guarded;
using mpt::narrowed;
using mpt::Wide;
using mpt::widened;

namespace {

struct Rule {
  int64_t size;
  double weight, beta, k;
};

// Channels of one group: those that are read, and those that are given. `before` of the former lie before the latter.
struct Call {
  int64_t input, inputs, output, outputs, before;
};

// Of a batch: its pixels, and the channels of each that are read and given.
struct Sizes {
  int64_t pixels, inputs, outputs;
};

// What is computed of one pixel on the way. In `squares` and `shares` zeros lie before the first value and after the last one:
// those outside of a group.
template <typename T> struct Pixel {
  Pixel(Sizes sizes, Rule rule)
      : values(sizes.inputs), sums(sizes.inputs), squares(sizes.inputs + 2 * rule.size),
        shares(sizes.outputs + 2 * rule.size), scales(sizes.outputs), factors(sizes.outputs), totals(sizes.inputs) {}

  std::vector<T> values, sums, squares, shares, scales, factors, totals;
};

// sums[i] = values[i] + ... + values[i + size - 1]
template <typename T>
inline __attribute__((always_inline)) void add_windows(const T *values, T *sums, int64_t count, int64_t size) {
  std::fill(sums, sums + count, T(0));
  for (int64_t d = 0; d < size; ++d) {
    for (int64_t i = 0; i < count; ++i) {
      sums[i] += values[i + d];
    }
  }
}

// factors = scales^-beta. The exponent of 2012 by roots, of which processors make whole vectors.
template <typename T>
inline __attribute__((always_inline)) void powers(const T *scales, T *factors, int64_t count, double beta) {
  if (beta == 0.75) {
    for (int64_t i = 0; i < count; ++i) {
      T root = std::sqrt(scales[i]);
      factors[i] = T(1) / (root * std::sqrt(root));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    factors[i] = std::pow(scales[i], T(-beta));
  }
}

// The scales s and the factors s^-beta of the channels that a call gives.
template <typename T>
inline __attribute__((always_inline)) void scale(Pixel<T> &pixel, Call call, Rule rule) {
  auto values = pixel.values.data() + call.input;
  auto squares = pixel.squares.data() + rule.size;
  auto scales = pixel.scales.data();
  for (int64_t i = 0; i < call.inputs; ++i) {
    squares[i] = values[i] * values[i];
  }
  std::fill(squares + call.inputs, squares + call.inputs + rule.size, T(0));
  add_windows(squares + call.before - rule.size / 2, scales, call.outputs, rule.size);
  auto weight = T(rule.weight), k = T(rule.k);
  for (int64_t i = 0; i < call.outputs; ++i) {
    scales[i] = k + weight * scales[i];
  }
  powers(scales, pixel.factors.data(), call.outputs, rule.beta);
}

template <typename Value, typename T>
inline __attribute__((always_inline)) void read_pixel(Pixel<T> &pixel, const Value *input) {
  for (size_t i = 0; i < pixel.values.size(); ++i) {
    pixel.values[i] = widened(input[i]);
  }
}

template <typename Value>
inline __attribute__((always_inline)) void forward_pixel(Pixel<Wide<Value>> &pixel, const Value *input, Value *output,
                                                         const std::vector<Call> &calls, Rule rule) {
  read_pixel(pixel, input);
  for (auto call : calls) {
    scale(pixel, call, rule);
    auto values = pixel.values.data() + call.input + call.before;
    auto factors = pixel.factors.data();
    for (int64_t i = 0; i < call.outputs; ++i) {
      output[call.output + i] = narrowed<Value>(values[i] * factors[i]);
    }
  }
}

// dx_i = g_i s_i^-beta - 2 weight beta x_i * (the sum of g_j x_j s_j^(-beta - 1) over the j whose windows hold i)
template <typename Value>
inline __attribute__((always_inline)) void backward_pixel(Pixel<Wide<Value>> &pixel, const Value *gradient,
                                                          const Value *input, Value *result,
                                                          const std::vector<Call> &calls, Rule rule) {
  using T = Wide<Value>;
  read_pixel(pixel, input);
  std::fill(pixel.sums.begin(), pixel.sums.end(), T(0));
  auto twice = T(2 * rule.weight * rule.beta);
  for (auto call : calls) {
    scale(pixel, call, rule);
    auto values = pixel.values.data() + call.input, sums = pixel.sums.data() + call.input;
    auto shares = pixel.shares.data() + rule.size, totals = pixel.totals.data();
    auto scales = pixel.scales.data(), factors = pixel.factors.data();
    for (int64_t i = 0; i < call.outputs; ++i) {
      T own = widened(gradient[call.output + i]) * factors[i];
      sums[call.before + i] += own;
      shares[i] = own * values[call.before + i] / scales[i];
    }
    std::fill(shares + call.outputs, shares + call.outputs + rule.size, T(0));
    add_windows(shares - call.before - (rule.size - 1) / 2, totals, call.inputs, rule.size);
    for (int64_t i = 0; i < call.inputs; ++i) {
      sums[i] -= twice * values[i] * totals[i];
    }
  }
  for (size_t i = 0; i < pixel.sums.size(); ++i) {
    result[i] = narrowed<Value>(pixel.sums[i]);
  }
}

#define PIXELS_OF(Value)                                                                                              \
  FOR_EACH_PROCESSOR void forward_pixels(const Value *input, Value *output, int64_t begin, int64_t end, Sizes sizes,  \
                                         const std::vector<Call> &calls, Rule rule) {                                 \
    Pixel<Wide<Value>> pixel(sizes, rule);                                                                            \
    for (int64_t at = begin; at < end; ++at) {                                                                        \
      forward_pixel(pixel, input + at * sizes.inputs, output + at * sizes.outputs, calls, rule);                      \
    }                                                                                                                 \
  }                                                                                                                   \
  FOR_EACH_PROCESSOR void backward_pixels(const Value *gradient, const Value *input, Value *result, int64_t begin,    \
                                          int64_t end, Sizes sizes, const std::vector<Call> &calls, Rule rule) {      \
    Pixel<Wide<Value>> pixel(sizes, rule);                                                                            \
    for (int64_t at = begin; at < end; ++at) {                                                                        \
      backward_pixel(pixel, gradient + at * sizes.outputs, input + at * sizes.inputs, result + at * sizes.inputs,     \
                     calls, rule);                                                                                    \
    }                                                                                                                 \
  }
PIXELS_OF(at::BFloat16)
PIXELS_OF(float)
PIXELS_OF(double)

// Pixels that are worth a thread of their own.
constexpr int64_t GRAIN = 256;

// The sums over windows of `size` channels, the first of which begins at channel `first`; what is not there is zero.
at::Tensor windows(const at::Tensor &values, int64_t first, int64_t count, int64_t size) {
  auto padded = at::constant_pad_nd(values, {0, 0, 0, 0, size, size});
  auto sum = padded.narrow(1, size + first, count).clone();
  for (int64_t d = 1; d < size; ++d) {
    sum.add_(padded.narrow(1, size + first + d, count));
  }
  return sum;
}

at::Tensor wide(const at::Tensor &values, int64_t first, int64_t count) {
  auto part = values.narrow(1, first, count);
  return part.to(part.scalar_type() == at::kBFloat16 ? at::kFloat : part.scalar_type());
}

// The same by libtorch's own operations, on any device.
void forward_anywhere(const at::Tensor &input, at::Tensor &output, const std::vector<Call> &calls, Rule rule) {
  for (auto call : calls) {
    auto values = wide(input, call.input, call.inputs);
    auto scales = windows(values.square(), call.before - rule.size / 2, call.outputs, rule.size) * rule.weight + rule.k;
    auto own = values.narrow(1, call.before, call.outputs);
    output.narrow(1, call.output, call.outputs).copy_(own * scales.pow(-rule.beta));
  }
}

void backward_anywhere(const at::Tensor &gradient, const at::Tensor &input, at::Tensor &result,
                       const std::vector<Call> &calls, Rule rule) {
  auto sums = at::zeros_like(wide(input, 0, input.size(1)));
  for (auto call : calls) {
    auto values = wide(input, call.input, call.inputs);
    auto scales = windows(values.square(), call.before - rule.size / 2, call.outputs, rule.size) * rule.weight + rule.k;
    auto own = wide(gradient, call.output, call.outputs) * scales.pow(-rule.beta);
    auto target = sums.narrow(1, call.input, call.inputs);
    target.narrow(1, call.before, call.outputs).add_(own);
    auto shares = own * values.narrow(1, call.before, call.outputs) / scales;
    auto totals = windows(shares, -call.before - (rule.size - 1) / 2, call.inputs, rule.size);
    target.sub_(values * totals, 2 * rule.weight * rule.beta);
  }
  result.copy_(sums);
}

// Five numbers a call. No call may read or write outside of its tensors.
std::vector<Call> checked(const int64_t *numbers, int64_t count, int64_t inputs, int64_t outputs, Rule rule) {
  TORCH_CHECK(rule.size > 0, "a window of ", rule.size, " channels");
  std::vector<Call> calls;
  for (int64_t call = 0; call < count; ++call) {
    auto of = numbers + 5 * call;
    calls.push_back({of[0], of[1], of[2], of[3], of[4]});
    auto [input, read, output, given, before] = calls.back();
    int64_t after = read - before - given;
    TORCH_CHECK(input >= 0 && read >= 0 && input + read <= inputs && output >= 0 && given >= 0 &&
                    output + given <= outputs && before >= 0 && before <= rule.size / 2 && after >= 0 &&
                    after <= (rule.size - 1) / 2,
                "a call does not fit ", inputs, " channels that are read and ", outputs, " that are given");
  }
  return calls;
}

at::Tensor image(const at::Tensor &like, int64_t channels) {
  auto shape = {like.size(0), channels, like.size(2), like.size(3)};
  return at::empty(shape, like.options(), at::MemoryFormat::ChannelsLast);
}

} // namespace

extern "C" {

// The output [N, outputs, H, W] of the input [N, inputs, H, W]. `calls` are five numbers each, see `Call`; together they give
// every output channel once. `anywhere` is for tensors that are not in the memory of the CPU.
char *mpt_local_response_norm(const at::Tensor *input, int64_t outputs, const int64_t *calls, int64_t count,
                              int64_t size, double weight, double beta, double k, bool anywhere, at::Tensor **result) {
  return guarded([&] {
    Rule rule{size, weight, beta, k};
    TORCH_CHECK(input->dim() == 4, "the normalisation needs an image [N, C, H, W], not ", input->sizes());
    auto read = input->contiguous(at::MemoryFormat::ChannelsLast);
    auto listed = checked(calls, count, read.size(1), outputs, rule);
    auto output = image(read, outputs);
    if (anywhere) {
      forward_anywhere(read, output, listed, rule);
    } else {
      Sizes sizes{read.size(0) * read.size(2) * read.size(3), read.size(1), outputs};
      AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, read.scalar_type(), "mpt_local_response_norm", [&] {
        auto from = read.const_data_ptr<scalar_t>();
        auto to = output.data_ptr<scalar_t>();
        at::parallel_for(0, sizes.pixels, GRAIN, [&](int64_t begin, int64_t end) {
          forward_pixels(from, to, begin, end, sizes, listed, rule);
        });
      });
    }
    *result = new at::Tensor(output);
  });
}

// The gradient of the input, from that of the output.
char *mpt_local_response_norm_backward(const at::Tensor *gradient, const at::Tensor *input, const int64_t *calls,
                                       int64_t count, int64_t size, double weight, double beta, double k, bool anywhere,
                                       at::Tensor **result) {
  return guarded([&] {
    Rule rule{size, weight, beta, k};
    TORCH_CHECK(input->dim() == 4 && gradient->dim() == 4 && gradient->size(0) == input->size(0) &&
                    gradient->size(2) == input->size(2) && gradient->size(3) == input->size(3) &&
                    gradient->scalar_type() == input->scalar_type(),
                "the gradient ", gradient->sizes(), " is not of what is given for ", input->sizes());
    auto read = input->contiguous(at::MemoryFormat::ChannelsLast);
    auto given = gradient->contiguous(at::MemoryFormat::ChannelsLast);
    auto listed = checked(calls, count, read.size(1), given.size(1), rule);
    auto of_input = image(read, read.size(1));
    if (anywhere) {
      backward_anywhere(given, read, of_input, listed, rule);
    } else {
      Sizes sizes{read.size(0) * read.size(2) * read.size(3), read.size(1), given.size(1)};
      AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, read.scalar_type(), "mpt_local_response_norm_backward", [&] {
        auto of_output = given.const_data_ptr<scalar_t>();
        auto from = read.const_data_ptr<scalar_t>();
        auto to = of_input.data_ptr<scalar_t>();
        at::parallel_for(0, sizes.pixels, GRAIN, [&](int64_t begin, int64_t end) {
          backward_pixels(of_output, from, to, begin, end, sizes, listed, rule);
        });
      });
    }
    *result = new at::Tensor(of_input);
  });
}

} // extern "C"
