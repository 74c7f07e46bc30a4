// What tch lacks of libtorch: the backward pass of a convolution, and memory formats.

#include "ext.h"
#include <ATen/Version.h>

using mpt::guarded;

extern "C" {

void mpt_free_message(char *message) { free(message); }

// How the libtorch that is loaded was built, to be freed with mpt_free_message.
char *mpt_libtorch_configuration() { return strdup(at::show_config().c_str()); }

// Sets how many threads an operation uses that is called from this thread. Whoever has libtorch's headers in it, which are
// libtorch and the files beside this, gives a thread the number that any thread has set last when it first asks for one
// there: so both ask before the own number is set.
char *mpt_set_threads(int64_t threads) {
  return guarded([&] {
    at::get_num_threads();
    at::internal::lazy_init_num_threads();
    at::set_num_threads(static_cast<int>(threads));
  });
}

// The gradients of the input, the weight and the bias: those that are wanted, else nullptr.
char *mpt_convolution_backward(const at::Tensor *gradient, const at::Tensor *input, const at::Tensor *weight,
                               int64_t stride, int64_t padding, int64_t groups, const bool *wanted,
                               at::Tensor **gradients) {
  return guarded([&] {
    auto [of_input, of_weight, of_bias] = at::convolution_backward(
        *gradient, *input, *weight, at::OptionalIntArrayRef({weight->size(0)}), {stride, stride}, {padding, padding},
        {1, 1}, false, {0, 0}, groups, {wanted[0], wanted[1], wanted[2]});
    gradients[0] = wanted[0] ? new at::Tensor(of_input) : nullptr;
    gradients[1] = wanted[1] ? new at::Tensor(of_weight) : nullptr;
    gradients[2] = wanted[2] ? new at::Tensor(of_bias) : nullptr;
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

} // extern "C"
