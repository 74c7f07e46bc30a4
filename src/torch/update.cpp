// The update of the weights: SGD in one pass over memory.

#include "ext.h"
#include <algorithm>
#include <vector>

using mpt::guarded;

namespace {

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

FOR_EACH_PROCESSOR void round_to(at::BFloat16 *shadow, const float *values, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    shadow[i].x = mpt::rounded(values[i]);
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

// The same by libtorch's own operations, on any device.
void update_anywhere(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
                     const at::Tensor *velocity, const at::Tensor *shadow, Rule rule) {
  auto sum = gradients[0]->to(parameters.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  for (int64_t part = 1; part < parts; ++part) {
    sum.add_(*gradients[part]);
  }
  sum.add_(parameters, rule.decay);
  if (velocity != nullptr) {
    velocity->mul_(rule.momentum).add_(sum);
  }
  parameters.sub_(velocity != nullptr ? *velocity : sum, rule.rate);
  if (shadow != nullptr) {
    shadow->copy_(parameters);
  }
}

} // namespace

extern "C" {

// One pass over memory, see update() above. `velocity` may be nullptr where there is no momentum, `shadow` where the layers
// compute with the parameters themselves. `gradients` are `parts` summands of one shape. `anywhere` is for tensors that
// are not in the memory of the CPU.
char *mpt_update(const at::Tensor *parameters, const at::Tensor *const *gradients, int64_t parts,
                 const at::Tensor *velocity, const at::Tensor *shadow, double rate, double momentum, double decay,
                 bool anywhere) {
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
    }
    if (anywhere) {
      update_anywhere(*parameters, gradients, parts, velocity, shadow, {rate, momentum, decay});
    } else if (shadow != nullptr) {
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
