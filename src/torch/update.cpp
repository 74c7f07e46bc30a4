// The update of the weights: SGD in one pass over memory.

#include "ext.h"
#include <algorithm>
#include <vector>

using mpt::guarded;

namespace {

struct Rule {
  double momentum;
  bool rate_in_velocity;
};

// A parameter among those that are updated together: where it ends, and how it is trained, if it is.
struct Segment {
  int64_t end;
  double rate, decay;
  bool trained;

  bool is_trained_like(const Segment &other) const {
    return rate == other.rate && decay == other.decay && trained == other.trained;
  }
};

// Values that stay in the first-level cache between the loops below.
constexpr int64_t BLOCK = 1024;

FOR_EACH_PROCESSOR void add_part(float *sum, const at::BFloat16 *part, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    sum[i] += mpt::widened(part[i]);
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

template <typename T>
inline __attribute__((always_inline)) void apply_to(T *weights, T *velocity, const T *gradient, Rule rule,
                                                    Segment segment, int64_t size) {
  auto rate = static_cast<T>(segment.rate), decay = static_cast<T>(segment.decay);
  auto momentum = static_cast<T>(rule.momentum);
  if (velocity == nullptr) {
    for (int64_t i = 0; i < size; ++i) {
      weights[i] -= rate * (gradient[i] + decay * weights[i]);
    }
  } else if (rule.rate_in_velocity) {
    for (int64_t i = 0; i < size; ++i) {
      velocity[i] = momentum * velocity[i] - rate * (gradient[i] + decay * weights[i]);
      weights[i] += velocity[i];
    }
  } else {
    for (int64_t i = 0; i < size; ++i) {
      velocity[i] = momentum * velocity[i] + (gradient[i] + decay * weights[i]);
      weights[i] -= rate * velocity[i];
    }
  }
}

FOR_EACH_PROCESSOR void apply(float *weights, float *velocity, const float *gradient, Rule rule, Segment segment,
                              int64_t size) {
  apply_to(weights, velocity, gradient, rule, segment, size);
}
FOR_EACH_PROCESSOR void apply(double *weights, double *velocity, const double *gradient, Rule rule, Segment segment,
                              int64_t size) {
  apply_to(weights, velocity, gradient, rule, segment, size);
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

// The segments of the parameters, in order.
struct Segments {
  const Segment *all;
  int64_t count;

  // Goes through those of so many values: the number of each, and where its piece begins and how long it is.
  template <typename Visit> void pieces(int64_t at, int64_t size, Visit visit) const {
    auto ends_after = [](int64_t place, const Segment &segment) { return place < segment.end; };
    int64_t segment = std::upper_bound(all, all + count, at, ends_after) - all;
    for (int64_t place = at; place < at + size; ++segment) {
      int64_t end = std::min(all[segment].end, at + size);
      visit(segment, place, end - place);
      place = end;
    }
  }
};

// The sums of the squares of the gradient by segment. A block has a sum of its own for each segment in it, and those are
// added up in order, so that the result does not depend on the number of threads.
class Squares {
public:
  Squares(Segments segments, double *sums, int64_t size)
      : segments(segments), sums(sums), partial((size + BLOCK - 1) / BLOCK + segments.count, 0.0) {}

  // From one piece of a block to the next, either the block or the segment is another: the sum of both numbers is the
  // place of the piece.
  template <typename T> void add(const T *gradient, int64_t segment, int64_t at, int64_t size) {
    partial[at / BLOCK + segment] = squares_of(gradient, size);
  }

  void finish() {
    int64_t begin = 0;
    for (int64_t segment = 0; segment < segments.count; ++segment) {
      sums[segment] = 0;
      int64_t end = segments.all[segment].end;
      for (int64_t block = begin / BLOCK; block * BLOCK < end; ++block) {
        sums[segment] += partial[block + segment];
      }
      begin = end;
    }
  }

private:
  Segments segments;
  double *sums;
  std::vector<double> partial;
};

// g = sum of the parts, in their order; g += decay * p; v = momentum * v + g; p -= rate * v; shadow = p, rounded. Or, with
// the rate in the velocity, v = momentum * v - rate * g; p += v.
template <typename Master, typename Computed>
void update(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
            const at::Tensor *velocity, const at::Tensor *shadow, Rule rule, Segments segments, Squares &squares) {
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
      segments.pieces(at, size, [&](int64_t number, int64_t from, int64_t count) {
        auto segment = segments.all[number];
        auto gradient = sum + (from - at);
        squares.add(gradient, number, from, count);
        if (segment.trained) {
          apply(weights + from, velocities != nullptr ? velocities + from : nullptr, gradient, rule, segment, count);
        }
      });
      if (shadows != nullptr) {
        round_to(shadows + at, weights + at, size);
      }
    }
  });
  squares.finish();
}

// Parameters that are trained alike and lie side by side, by libtorch's own operations, on any device.
void apply_anywhere(const at::Tensor &weights, const at::Tensor *velocity, at::Tensor gradient, Rule rule,
                    Segment segment) {
  gradient.add_(weights, segment.decay);
  if (velocity == nullptr) {
    weights.sub_(gradient, segment.rate);
  } else if (rule.rate_in_velocity) {
    weights.add_(velocity->mul_(rule.momentum).sub_(gradient, segment.rate));
  } else {
    weights.sub_(velocity->mul_(rule.momentum).add_(gradient), segment.rate);
  }
}

// The same as update(), on any device.
void update_anywhere(const at::Tensor &parameters, const at::Tensor *const *gradients, int64_t parts,
                     const at::Tensor *velocity, const at::Tensor *shadow, Rule rule, Segments segments,
                     const at::Tensor &squares) {
  auto sum = gradients[0]->to(parameters.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  for (int64_t part = 1; part < parts; ++part) {
    sum.add_(*gradients[part]);
  }
  int64_t begin = 0;
  for (int64_t segment = 0; segment < segments.count; begin = segments.all[segment++].end) {
    auto gradient = sum.narrow(0, begin, segments.all[segment].end - begin);
    squares[segment].copy_(at::linalg_vector_norm(gradient, 2, {}, false, at::kDouble).square());
  }
  begin = 0;
  for (int64_t segment = 0; segment < segments.count; ++segment) {
    auto own = segments.all[segment];
    if (segment + 1 < segments.count && own.is_trained_like(segments.all[segment + 1])) {
      continue;
    }
    if (own.trained && own.end > begin) {
      auto part = [&](const at::Tensor &tensor) { return tensor.narrow(0, begin, own.end - begin); };
      auto its_velocity = velocity != nullptr ? part(*velocity) : at::Tensor();
      apply_anywhere(part(parameters), velocity != nullptr ? &its_velocity : nullptr, part(sum), rule, own);
    }
    begin = own.end;
  }
  if (shadow != nullptr) {
    shadow->copy_(parameters);
  }
}

} // namespace

extern "C" {

// One pass over memory, see update() above. `velocity` may be nullptr where there is no momentum, `shadow` where the layers
// compute with the parameters themselves. `gradients` are `parts` summands of one shape. `anywhere` is for tensors that
// are not in the memory of the CPU. Each of `segments` is trained as it says, the last one ends where the parameters do.
// `squares`, of fp64 and where the parameters are, gets the sums of the squares of the gradient of each, before decay.
char *mpt_update(const at::Tensor *parameters, const at::Tensor *const *gradients, int64_t parts,
                 const at::Tensor *velocity, const at::Tensor *shadow, const Segment *listed, const at::Tensor *squares,
                 double momentum, bool rate_in_velocity, bool anywhere) {
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
    auto earlier = [](const Segment &one, const Segment &other) { return one.end < other.end; };
    TORCH_CHECK(std::is_sorted(listed, listed + count, earlier) &&
                    (count > 0 ? listed[count - 1].end : 0) == parameters->numel(),
                "the segments do not end where the parameters do");
    Segments segments{listed, count};
    Rule rule{momentum, rate_in_velocity};
    if (anywhere) {
      update_anywhere(*parameters, gradients, parts, velocity, shadow, rule, segments, *squares);
      return;
    }
    Squares sums(segments, squares->data_ptr<double>(), parameters->numel());
    if (shadow != nullptr) {
      update<float, at::BFloat16>(*parameters, gradients, parts, velocity, shadow, rule, segments, sums);
    } else if (type == at::kFloat) {
      update<float, float>(*parameters, gradients, parts, velocity, shadow, rule, segments, sums);
    } else {
      TORCH_CHECK(type == at::kDouble, "the update does not know parameters of ", type);
      update<double, double>(*parameters, gradients, parts, velocity, shadow, rule, segments, sums);
    }
  });
}

} // extern "C"
