// What tch lacks of libtorch: the backward pass of a convolution, memory formats and the update of the weights.
// Every function returns nullptr, or the message of what went wrong, to be freed with mpt_free_message.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <algorithm>
#include <cstring>
#include <exception>
#include <vector>

// One body, compiled for each generation of vector registers and chosen when the library is loaded.
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))

namespace {

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

struct Rule {
  double rate, momentum, decay;
};

// Values that stay in the first-level cache between the loops below.
constexpr int64_t BLOCK = 1024;

// bf16 is the upper half of fp32.
FOR_EACH_PROCESSOR void add_part(float *sum, const at::BFloat16 *part, int64_t size) {
  auto halves = reinterpret_cast<const uint16_t *>(part);
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits = static_cast<uint32_t>(halves[i]) << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    sum[i] += value;
  }
}

FOR_EACH_PROCESSOR void add_part(float *sum, const float *part, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    sum[i] += part[i];
  }
}

FOR_EACH_PROCESSOR void add_part(double *sum, const double *part, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    sum[i] += part[i];
  }
}

// To the nearest, halves to even; what is not a number stays so.
FOR_EACH_PROCESSOR void round_to(at::BFloat16 *shadow, const float *values, int64_t size) {
  auto halves = reinterpret_cast<uint16_t *>(shadow);
  for (int64_t i = 0; i < size; ++i) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    auto rounded = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    halves[i] = values[i] != values[i] ? 0x7fc0 : rounded;
  }
}

void round_to(float *, const float *, int64_t) {}
void round_to(double *, const double *, int64_t) {}

FOR_EACH_PROCESSOR void apply(float *weights, float *velocity, const float *gradient, Rule rule, int64_t size) {
  auto rate = static_cast<float>(rule.rate), decay = static_cast<float>(rule.decay);
  auto momentum = static_cast<float>(rule.momentum);
  if (velocity == nullptr) {
    for (int64_t i = 0; i < size; ++i) {
      weights[i] -= rate * (gradient[i] + decay * weights[i]);
    }
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    velocity[i] = momentum * velocity[i] + (gradient[i] + decay * weights[i]);
    weights[i] -= rate * velocity[i];
  }
}

FOR_EACH_PROCESSOR void apply(double *weights, double *velocity, const double *gradient, Rule rule, int64_t size) {
  if (velocity == nullptr) {
    for (int64_t i = 0; i < size; ++i) {
      weights[i] -= rule.rate * (gradient[i] + rule.decay * weights[i]);
    }
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    velocity[i] = rule.momentum * velocity[i] + (gradient[i] + rule.decay * weights[i]);
    weights[i] -= rule.rate * velocity[i];
  }
}

// g = sum of the parts, in their order; g += decay * p; v = momentum * v + g; p -= rate * v; shadow = p, rounded.
template <typename Master, typename Computed>
void update(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
            const at::Tensor *velocity, const at::Tensor *shadow, Rule rule) {
  auto weights = parameters.data_ptr<Master>();
  auto velocities = velocity != nullptr ? velocity->data_ptr<Master>() : nullptr;
  auto shadows = shadow != nullptr ? shadow->data_ptr<Computed>() : nullptr;
  std::vector<const Computed *> summands;
  for (int64_t part = 0; part < parts; ++part) {
    summands.push_back(gradients[part]->const_data_ptr<Computed>());
  }
  at::parallel_for(0, parameters.numel(), 64 * BLOCK, [&](int64_t begin, int64_t end) {
    Master sum[BLOCK];
    for (int64_t at = begin; at < end; at += BLOCK) {
      int64_t size = std::min(BLOCK, end - at);
      std::fill(sum, sum + size, Master(0));
      for (auto summand : summands) {
        add_part(sum, summand + at, size);
      }
      apply(weights + at, velocities != nullptr ? velocities + at : nullptr, sum, rule, size);
      if (shadows != nullptr) {
        round_to(shadows + at, weights + at, size);
      }
    }
  });
}

} // namespace

extern "C" {

void mpt_free_message(char *message) { free(message); }

// gradients[0] is that of the input (only where wanted, else nullptr), gradients[1] that of the weight,
// gradients[2] that of the bias (only where wanted).
char *mpt_convolution_backward(const at::Tensor *gradient, const at::Tensor *input, const at::Tensor *weight,
                               int64_t stride, int64_t padding, int64_t groups, bool wants_input, bool wants_bias,
                               at::Tensor **gradients) {
  return guarded([&] {
    auto [of_input, of_weight, of_bias] = at::convolution_backward(
        *gradient, *input, *weight, at::OptionalIntArrayRef({weight->size(0)}), {stride, stride}, {padding, padding},
        {1, 1}, false, {0, 0}, groups, {wants_input, true, wants_bias});
    gradients[0] = wants_input ? new at::Tensor(of_input) : nullptr;
    gradients[1] = new at::Tensor(of_weight);
    gradients[2] = wants_bias ? new at::Tensor(of_bias) : nullptr;
  });
}

// The tensor [N, C, H, W] laid out with the channels of a pixel side by side; the tensor itself where it is so.
// libtorch takes a tensor of one channel for either layout and then computes in the slower one: with C = 1 the result
// has the strides [H * W, 1, W, 1], which only the channels-last layout has.
char *mpt_channels_last(const at::Tensor *tensor, at::Tensor **result) {
  return guarded([&] {
    auto laid_out = tensor->contiguous(at::MemoryFormat::ChannelsLast);
    if (laid_out.size(1) == 1) {
      int64_t height = laid_out.size(2), width = laid_out.size(3);
      laid_out = laid_out.as_strided(laid_out.sizes(), {height * width, 1, width, 1});
    }
    *result = new at::Tensor(laid_out);
  });
}

// One pass over memory, see UpdateOf. `velocity` may be nullptr where there is no momentum, `shadow` where the layers
// compute with the parameters themselves. `gradients` are `parts` summands of one shape.
char *mpt_update(const at::Tensor *parameters, const at::Tensor *const *gradients, int64_t parts,
                 const at::Tensor *velocity, const at::Tensor *shadow, double rate, double momentum, double decay) {
  return guarded([&] {
    auto check = [&](const at::Tensor &tensor, at::ScalarType type) {
      TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == type && tensor.numel() == parameters->numel(),
                  "the update needs contiguous tensors of one size, of ", type, ", not ", tensor.sizes(), " of ",
                  tensor.scalar_type());
    };
    auto type = parameters->scalar_type();
    auto computed = shadow != nullptr ? at::kBFloat16 : type;
    check(*parameters, type);
    for (int64_t part = 0; part < parts; ++part) {
      check(*gradients[part], computed);
    }
    if (velocity != nullptr) {
      check(*velocity, type);
    }
    if (shadow != nullptr) {
      check(*shadow, computed);
      update<float, at::BFloat16>(*parameters, gradients, parts, velocity, shadow, {rate, momentum, decay});
    } else if (type == at::kFloat) {
      update<float, float>(*parameters, gradients, parts, velocity, shadow, {rate, momentum, decay});
    } else {
      TORCH_CHECK(type == at::kDouble, "the update does not know parameters of ", type);
      update<double, double>(*parameters, gradients, parts, velocity, shadow, {rate, momentum, decay});
    }
  });
}

} // extern "C"
