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

// The sum of the squares of some values, in fp64. One sum would wait for itself at every value: each of the sixteen takes
// every sixteenth.
template <typename T> inline __attribute__((always_inline)) double sum_of_squares(const T *values, int64_t size) {
  constexpr int64_t LANES = 16;
  double sums[LANES] = {}, total = 0;
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) {
    for (int64_t lane = 0; lane < LANES; ++lane) {
      double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  for (; i < size; ++i) {
    double value = values[i];
    total += value * value;
  }
  for (double sum : sums) {
    total += sum;
  }
  return total;
}

FOR_EACH_PROCESSOR double squares_of(const float *values, int64_t size) { return sum_of_squares(values, size); }
FOR_EACH_PROCESSOR double squares_of(const double *values, int64_t size) { return sum_of_squares(values, size); }

// Segments of the parameters: where each ends, and the sum of the squares of its gradient. A block has a sum of its own
// for each segment in it, and those are added up in order, so that the result does not depend on the number of threads.
class Squares {
public:
  Squares(const int64_t *ends, int64_t count, double *sums, int64_t size)
      : ends(ends), count(count), sums(sums), partial((size + BLOCK - 1) / BLOCK + count, 0.0) {}

  // From one piece of a block to the next, either the block or the segment is another: the sum of both numbers is the
  // place of the piece.
  template <typename T> void add(const T *gradient, int64_t at, int64_t size) {
    int64_t segment = std::upper_bound(ends, ends + count, at) - ends;
    for (int64_t place = at; place < at + size; ++segment) {
      int64_t end = std::min(ends[segment], at + size);
      partial[at / BLOCK + segment] = squares_of(gradient + (place - at), end - place);
      place = end;
    }
  }

  void finish() {
    int64_t begin = 0;
    for (int64_t segment = 0; segment < count; ++segment) {
      sums[segment] = 0;
      for (int64_t block = begin / BLOCK; block * BLOCK < ends[segment]; ++block) {
        sums[segment] += partial[block + segment];
      }
      begin = ends[segment];
    }
  }

private:
  const int64_t *ends;
  int64_t count;
  double *sums;
  std::vector<double> partial;
};

// g = sum of the parts, in their order; g += decay * p; v = momentum * v + g; p -= rate * v; shadow = p, rounded.
template <typename Master, typename Computed>
void update(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
            const at::Tensor *velocity, const at::Tensor *shadow, Rule rule, Squares &squares) {
  auto weights = parameters.data_ptr<Master>();
  auto velocities = velocity != nullptr ? velocity->data_ptr<Master>() : nullptr;
  auto shadows = shadow != nullptr ? shadow->data_ptr<Computed>() : nullptr;
  std::vector<const Computed *> summands;
  for (int64_t part = 0; part < parts; ++part) {
    summands.push_back(gradients[part]->const_data_ptr<Computed>());
  }
  int64_t all = parameters.numel();
  at::parallel_for(0, (all + BLOCK - 1) / BLOCK, 64, [&](int64_t begin, int64_t end) {
    Master sum[BLOCK];
    for (int64_t at = begin * BLOCK; at < std::min(end * BLOCK, all); at += BLOCK) {
      int64_t size = std::min(BLOCK, all - at);
      std::fill(sum, sum + size, Master(0));
      for (auto summand : summands) {
        add_part(sum, summand + at, size);
      }
      squares.add(sum, at, size);
      apply(weights + at, velocities != nullptr ? velocities + at : nullptr, sum, rule, size);
      if (shadows != nullptr) {
        round_to(shadows + at, weights + at, size);
      }
    }
  });
  squares.finish();
}

// The same by libtorch's own operations, on any device.
void update_anywhere(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
                     const at::Tensor *velocity, const at::Tensor *shadow, Rule rule, const int64_t *ends,
                     const at::Tensor &squares) {
  auto sum = gradients[0]->to(parameters.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  for (int64_t part = 1; part < parts; ++part) {
    sum.add_(*gradients[part]);
  }
  int64_t begin = 0;
  for (int64_t segment = 0; segment < squares.numel(); begin = ends[segment++]) {
    auto gradient = sum.narrow(0, begin, ends[segment] - begin);
    squares[segment].copy_(at::linalg_vector_norm(gradient, 2, {}, false, at::kDouble).square());
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
// are not in the memory of the CPU. `squares`, of fp64 and where the parameters are, gets the sums of the squares of the
// gradient, before decay, over segments of the parameters that end at `ends`, the last one at their end.
char *mpt_update(const at::Tensor *parameters, const at::Tensor *const *gradients, int64_t parts,
                 const at::Tensor *velocity, const at::Tensor *shadow, const int64_t *ends, const at::Tensor *squares,
                 double rate, double momentum, double decay, bool anywhere) {
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
    auto count = squares->numel();
    TORCH_CHECK(squares->is_contiguous() && squares->scalar_type() == at::kDouble, "sums of squares are of fp64");
    TORCH_CHECK(std::is_sorted(ends, ends + count) && (count > 0 ? ends[count - 1] : 0) == parameters->numel(),
                "the segments do not end where the parameters do");
    Rule rule{rate, momentum, decay};
    if (anywhere) {
      update_anywhere(*parameters, gradients, parts, velocity, shadow, rule, ends, *squares);
      return;
    }
    Squares sums(ends, count, squares->data_ptr<double>(), parameters->numel());
    if (shadow != nullptr) {
      update<float, at::BFloat16>(*parameters, gradients, parts, velocity, shadow, rule, sums);
    } else if (type == at::kFloat) {
      update<float, float>(*parameters, gradients, parts, velocity, shadow, rule, sums);
    } else {
      TORCH_CHECK(type == at::kDouble, "the update does not know parameters of ", type);
      update<double, double>(*parameters, gradients, parts, velocity, shadow, rule, sums);
    }
  });
}

} // extern "C"
