// Max-pooling of channels-last images. libtorch keeps an index of 8 bytes for each output and scatters gradients into
// a cleared tensor; here a place in the window takes 2 bytes, and each gradient is gathered and written once.

#include "ext.h"
#include <algorithm>
#include <limits>
#include <vector>

using mpt::guarded;
using mpt::narrowed;
using mpt::widened;

namespace {

struct Window {
  int64_t kernel, stride, padding;
  bool ceil_mode;

  // The windows along an axis: as libtorch has them, each begins on the image or on the padding before it.
  int64_t outputs(int64_t size) const {
    int64_t rest = size + 2 * padding - kernel, down = rest / stride + 1;
    bool one_more = ceil_mode && rest % stride != 0 && down * stride < size + padding;
    return down + one_more;
  }
};

// Of a batch: its images, and what pooling makes of them.
struct Sizes {
  int64_t examples, channels, height, width, out_height, out_width;
};

// The places of a window that lie on the image, along one axis.
struct Places {
  int64_t begin, end;
};

Places on_image(int64_t out, int64_t size, Window window) {
  int64_t first = out * window.stride - window.padding;
  return {std::max<int64_t>(0, -first), std::min(window.kernel, size - first)};
}

// What values are compared by. Their order is libtorch's: what is not a number is above all others.
template <typename Value>
struct Order {
  using Key = Value;
  static Key key(Value value) { return value; }
  static Value value(Key key) { return key; }
  static bool above(Key left, Key right) { return left > right || left != left; }
};

// bf16 as whole numbers of the same order: twice as many in a register as fp32.
template <>
struct Order<at::BFloat16> {
  using Key = int16_t;
  static Key key(at::BFloat16 value) {
    auto bits = static_cast<int16_t>(value.x);
    auto ordered = static_cast<int16_t>(bits ^ ((bits >> 15) & 0x7fff));
    return (value.x & 0x7fff) > 0x7f80 ? std::numeric_limits<int16_t>::max() : ordered;
  }
  static at::BFloat16 value(Key key) {
    auto bits = static_cast<uint16_t>(key ^ ((key >> 15) & 0x7fff));
    return at::BFloat16(bits, at::BFloat16::from_bits());
  }
  static bool above(Key left, Key right) { return left > right; }
};

// One row of outputs on its way: the largest value so far of each column and channel, and the row of its place.
template <typename Value>
struct Columns {
  std::vector<typename Order<Value>::Key> keys;
  std::vector<uint16_t> rows;
};

template <typename Value>
inline __attribute__((always_inline)) void begin_columns(Columns<Value> &columns, const Value *image, uint16_t row) {
  auto keys = columns.keys.data();
  auto rows = columns.rows.data();
  for (size_t at = 0; at < columns.keys.size(); ++at) {
    keys[at] = Order<Value>::key(image[at]);
    rows[at] = row;
  }
}

template <typename Value>
inline __attribute__((always_inline)) void add_to_columns(Columns<Value> &columns, const Value *image, uint16_t row) {
  auto keys = columns.keys.data();
  auto rows = columns.rows.data();
  for (size_t at = 0; at < columns.keys.size(); ++at) {
    auto key = Order<Value>::key(image[at]);
    bool above = Order<Value>::above(key, keys[at]);
    keys[at] = above ? key : keys[at];
    rows[at] = above ? row : rows[at];
  }
}

// The largest of each window along the row, and its place: of equal ones the first, row by row.
template <typename Value>
inline __attribute__((always_inline)) void along_row(const Columns<Value> &columns, Value *output, uint16_t *places,
                                                     Sizes sizes, Window window) {
  using Key = typename Order<Value>::Key;
  constexpr int64_t AT_ONCE = 64;
  for (int64_t x = 0; x < sizes.out_width; ++x) {
    auto across = on_image(x, sizes.width, window);
    int64_t first = x * window.stride - window.padding;
    for (int64_t from = 0; from < sizes.channels; from += AT_ONCE) {
      int64_t count = std::min(AT_ONCE, sizes.channels - from);
      Key best[AT_ONCE];
      uint16_t found[AT_ONCE];
      for (int64_t j = across.begin; j < across.end; ++j) {
        auto keys = columns.keys.data() + (first + j) * sizes.channels + from;
        auto rows = columns.rows.data() + (first + j) * sizes.channels + from;
        for (int64_t c = 0; c < count; ++c) {
          auto place = static_cast<uint16_t>(rows[c] + j);
          bool above = j == across.begin || Order<Value>::above(keys[c], best[c]) ||
                       (keys[c] == best[c] && place < found[c]);
          best[c] = above ? keys[c] : best[c];
          found[c] = above ? place : found[c];
        }
      }
      for (int64_t c = 0; c < count; ++c) {
        output[x * sizes.channels + from + c] = Order<Value>::value(best[c]);
        places[x * sizes.channels + from + c] = found[c];
      }
    }
  }
}

// One row of outputs. `image` is the example's first row, `y` the row's number.
template <typename Value>
inline __attribute__((always_inline)) void pool_row(Columns<Value> &columns, const Value *image, int64_t y,
                                                    Value *output, uint16_t *places, Sizes sizes, Window window) {
  auto down = on_image(y, sizes.height, window);
  int64_t row_length = sizes.width * sizes.channels, first = y * window.stride - window.padding;
  for (int64_t i = down.begin; i < down.end; ++i) {
    auto row = image + (first + i) * row_length;
    auto place = static_cast<uint16_t>(i * window.kernel);
    if (i == down.begin) {
      begin_columns(columns, row, place);
    } else {
      add_to_columns(columns, row, place);
    }
  }
  along_row(columns, output, places, sizes, window);
}

#define POOL_ROW_OF(Value)                                                                                            \
  FOR_EACH_PROCESSOR void pool_row_of(Columns<Value> &columns, const Value *image, int64_t y, Value *output,          \
                                      uint16_t *places, Sizes sizes, Window window) {                                 \
    pool_row(columns, image, y, output, places, sizes, window);                                                       \
  }
POOL_ROW_OF(at::BFloat16)
POOL_ROW_OF(float)
POOL_ROW_OF(double)

template <typename Value>
void forward(const Value *image, Value *output, uint16_t *places, Sizes sizes, Window window) {
  at::parallel_for(0, sizes.examples * sizes.out_height, 1, [&](int64_t begin, int64_t end) {
    size_t row_length = sizes.width * sizes.channels;
    Columns<Value> columns{std::vector<typename Order<Value>::Key>(row_length), std::vector<uint16_t>(row_length)};
    for (int64_t row = begin; row < end; ++row) {
      auto example = image + row / sizes.out_height * sizes.height * row_length;
      int64_t at = row * sizes.out_width * sizes.channels;
      pool_row_of(columns, example, row % sizes.out_height, output + at, places + at, sizes, window);
    }
  });
}

// The outputs along one axis whose windows hold this place of the image.
Places windows_with(int64_t at, int64_t outputs, Window window) {
  int64_t reach = at + window.padding;
  int64_t first = reach < window.kernel ? 0 : (reach - window.kernel) / window.stride + 1;
  return {first, std::min(outputs, reach / window.stride + 1)};
}

// What sums of gradients are taken in.
template <typename Value> using Sum = mpt::Wide<Value>;

// One row of the image's gradient, in `sums`: from each window that holds a place of the row, the gradient of the
// channels that found their largest value there. `gradient` and `places` are the example's first rows.
template <typename Value>
inline __attribute__((always_inline)) void gather_row(const Value *gradient, const uint16_t *places, int64_t y,
                                                      std::vector<Sum<Value>> &sums, Sizes sizes, Window window) {
  std::fill(sums.begin(), sums.end(), Sum<Value>(0));
  auto down = windows_with(y, sizes.out_height, window);
  for (int64_t i = down.begin; i < down.end; ++i) {
    int64_t place_row = (y + window.padding - i * window.stride) * window.kernel;
    for (int64_t x = 0; x < sizes.out_width; ++x) {
      auto across = on_image(x, sizes.width, window);
      int64_t at = (i * sizes.out_width + x) * sizes.channels, first = x * window.stride - window.padding;
      for (int64_t j = across.begin; j < across.end; ++j) {
        auto place = static_cast<uint16_t>(place_row + j);
        auto sum = sums.data() + (first + j) * sizes.channels;
        for (int64_t c = 0; c < sizes.channels; ++c) {
          auto value = widened(gradient[at + c]);
          sum[c] += places[at + c] == place ? value : decltype(value)(0);
        }
      }
    }
  }
}

#define GATHER_ROW_OF(Value)                                                                                          \
  FOR_EACH_PROCESSOR void gather_row_of(const Value *gradient, const uint16_t *places, int64_t y,                     \
                                        std::vector<Sum<Value>> &sums, Value *target, Sizes sizes, Window window) {   \
    gather_row(gradient, places, y, sums, sizes, window);                                                             \
    for (size_t at = 0; at < sums.size(); ++at) {                                                                     \
      target[at] = narrowed<Value>(sums[at]);                                                                         \
    }                                                                                                                 \
  }
GATHER_ROW_OF(at::BFloat16)
GATHER_ROW_OF(float)
GATHER_ROW_OF(double)

template <typename Value>
void backward(const Value *gradient, const uint16_t *places, Value *result, Sizes sizes, Window window) {
  at::parallel_for(0, sizes.examples * sizes.height, 1, [&](int64_t begin, int64_t end) {
    std::vector<Sum<Value>> sums(sizes.width * sizes.channels);
    for (int64_t row = begin; row < end; ++row) {
      int64_t of_example = row / sizes.height * sizes.out_height * sizes.out_width * sizes.channels;
      gather_row_of(gradient + of_example, places + of_example, row % sizes.height, sums,
                    result + row * sizes.width * sizes.channels, sizes, window);
    }
  });
}

at::Tensor empty_like_channels_last(const at::Tensor &like, at::IntArrayRef shape, at::ScalarType type) {
  return at::empty(shape, like.options().dtype(type), at::MemoryFormat::ChannelsLast);
}

// A place in a window is kept in 16 bits.
void check(const at::Tensor &image, Window window) {
  TORCH_CHECK(image.dim() == 4, "max-pooling needs an image [N, C, H, W], not ", image.sizes());
  TORCH_CHECK(window.kernel <= 255, "max-pooling knows windows of up to 255 pixels a side, not ", window.kernel);
}

} // namespace

extern "C" {

// results[0] is the largest value of each window, results[1] where in its window it was found, as 16-bit numbers.
// `anywhere` is for tensors that are not in the memory of the CPU: libtorch's own pooling, whose results[1] are places in
// the image.
char *mpt_max_pool(const at::Tensor *image, int64_t kernel, int64_t stride, int64_t padding, bool ceil_mode,
                   bool anywhere, at::Tensor **results) {
  return guarded([&] {
    Window window{kernel, stride, padding, ceil_mode};
    check(*image, window);
    if (anywhere) {
      auto [output, places] = at::max_pool2d_with_indices(*image, kernel, stride, padding, 1, ceil_mode);
      results[0] = new at::Tensor(output);
      results[1] = new at::Tensor(places);
      return;
    }
    auto input = image->contiguous(at::MemoryFormat::ChannelsLast);
    Sizes sizes{input.size(0), input.size(1),                 input.size(2),
                input.size(3), window.outputs(input.size(2)), window.outputs(input.size(3))};
    auto shape = {sizes.examples, sizes.channels, sizes.out_height, sizes.out_width};
    auto output = empty_like_channels_last(input, shape, input.scalar_type());
    auto places = empty_like_channels_last(input, shape, at::kUInt16);
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, input.scalar_type(), "mpt_max_pool", [&] {
      forward(input.const_data_ptr<scalar_t>(), output.data_ptr<scalar_t>(), places.data_ptr<uint16_t>(), sizes,
              window);
    });
    results[0] = new at::Tensor(output);
    results[1] = new at::Tensor(places);
  });
}

// The gradient of the image [N, C, height, width].
char *mpt_max_pool_backward(const at::Tensor *gradient, const at::Tensor *places, int64_t height, int64_t width,
                            int64_t kernel, int64_t stride, int64_t padding, bool ceil_mode, bool anywhere,
                            at::Tensor **result) {
  return guarded([&] {
    Window window{kernel, stride, padding, ceil_mode};
    check(*gradient, window);
    TORCH_CHECK(places->sizes() == gradient->sizes(), "the gradient ", gradient->sizes(), " is not of the output ",
                places->sizes());
    auto given = gradient->contiguous(at::MemoryFormat::ChannelsLast);
    if (anywhere) {
      // Of the image only its form is read.
      auto image = empty_like_channels_last(given, {given.size(0), given.size(1), height, width}, given.scalar_type());
      *result = new at::Tensor(at::max_pool2d_with_indices_backward(given, image, kernel, stride, padding, 1, ceil_mode, *places));
      return;
    }
    Sizes sizes{given.size(0), given.size(1), height, width, given.size(2), given.size(3)};
    auto shape = {sizes.examples, sizes.channels, height, width};
    auto whole = empty_like_channels_last(given, shape, given.scalar_type());
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, given.scalar_type(), "mpt_max_pool_backward", [&] {
      backward(given.const_data_ptr<scalar_t>(), places->const_data_ptr<uint16_t>(), whole.data_ptr<scalar_t>(),
               sizes, window);
    });
    *result = new at::Tensor(whole);
  });
}

} // extern "C"
