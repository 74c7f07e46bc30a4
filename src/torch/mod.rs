//! The Rust face of the C++ files beside this one: what tch lacks of libtorch (`ext.cpp`), the update of the weights
//! (`update.cpp`, [`update`]), max-pooling (`pool.cpp`), local response normalisation (`norm.cpp`, [`norm`]), memory that tensors
//! use again (`memory.cpp`, [`memory`]), the way to a GPU (`device.cpp`, [`device`]) and the store in which ranks meet (`store.cpp`,
//! [`store`]). The rest of mpt calls tch and these.

pub mod device;
pub mod memory;
pub mod norm;
pub mod store;
pub mod update;

use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};
use std::ptr;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mpt_free_message(message: *mut c_char);
    fn mpt_libtorch_configuration() -> *mut c_char;
    fn mpt_set_threads(threads: i64) -> *mut c_char;
    fn mpt_convolution_backward(
        gradient: *const C_tensor,
        input: *const C_tensor,
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        groups: i64,
        wanted: *const bool,
        gradients: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mpt_channels_last(tensor: *const C_tensor, result: *mut *mut C_tensor) -> *mut c_char;
    fn mpt_max_pool(
        image: *const C_tensor,
        kernel: i64,
        stride: i64,
        padding: i64,
        ceil_mode: bool,
        anywhere: bool,
        results: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mpt_max_pool_backward(
        gradient: *const C_tensor,
        places: *const C_tensor,
        height: i64,
        width: i64,
        kernel: i64,
        stride: i64,
        padding: i64,
        ceil_mode: bool,
        anywhere: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// The version of the libtorch that is loaded.
pub fn version() -> String {
    // SAFETY: ext.cpp returns a NUL-terminated copy that belongs to the caller until it is freed, here and only here.
    let configuration = unsafe {
        let text = mpt_libtorch_configuration();
        let configuration = CStr::from_ptr(text).to_string_lossy().into_owned();
        mpt_free_message(text);
        configuration
    };
    let version = configuration.split_once("TORCH_VERSION=").map(|(_, rest)| rest);
    let version = version.and_then(|rest| rest.split([',', ' ', '\n']).next());
    version.unwrap_or("unknown").to_owned()
}

/// The first line of libtorch's message, if there is one: what follows it is of no use to a user.
fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: ext.cpp returns a NUL-terminated copy that belongs to the caller until it is freed, here and only here.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        mpt_free_message(message);
        text
    };
    Err(Error::failed(format!("libtorch: {}", text.lines().next().unwrap_or("unknown error"))))
}

/// Takes ownership of a tensor that ext.cpp made.
fn owned(tensor: *mut C_tensor) -> Option<Tensor> {
    // SAFETY: a pointer that is not null was made by `new at::Tensor` and given to us alone; tch deletes it.
    (!tensor.is_null()).then(|| unsafe { Tensor::from_ptr(tensor) })
}

/// How a convolution slides: square, the same along both axes.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    /// Pixels from one window to the next.
    pub stride: i64,
    /// Pixels of zeros around the image.
    pub padding: i64,
    /// Groups of channels.
    pub groups: i64,
}

/// The gradient of a convolution's input, `[N, C_in, H, W]`, from that of its output, `[N, C_out, H', W']`.
///
/// # Errors
/// libtorch's own message: shapes or types that do not fit, no memory.
pub fn convolution_backward_input(
    gradient: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    sliding: Sliding,
) -> Result<Tensor> {
    let [input, ..] = convolution_backward(gradient, input, weight, sliding, [true, false, false])?;
    input.ok_or_else(|| Error::failed("libtorch gave no gradient of an input"))
}

/// The gradients of a convolution's weight, `[C_out, C_in / groups, k, k]`, and of its bias, `[C_out]`, where it is
/// wanted, from that of its output, `[N, C_out, H', W']`.
///
/// # Errors
/// libtorch's own message: shapes or types that do not fit, no memory.
pub fn convolution_backward_weight(
    gradient: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    sliding: Sliding,
    wants_bias: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let [_, weight, bias] = convolution_backward(gradient, input, weight, sliding, [false, true, wants_bias])?;
    Ok((weight.ok_or_else(|| Error::failed("libtorch gave no gradient of a weight"))?, bias))
}

/// The gradients of a convolution's input, weight and bias, as far as they are wanted.
fn convolution_backward(
    gradient: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    Sliding { stride, padding, groups }: Sliding,
    wanted: [bool; 3],
) -> Result<[Option<Tensor>; 3]> {
    let mut gradients = [ptr::null_mut(); 3];
    // SAFETY: the three tensors outlive the call, which only reads them; `wanted` and `gradients` have room for three.
    check(unsafe {
        mpt_convolution_backward(
            gradient.as_ptr(),
            input.as_ptr(),
            weight.as_ptr(),
            stride,
            padding,
            groups,
            wanted.as_ptr(),
            gradients.as_mut_ptr(),
        )
    })?;
    Ok(gradients.map(owned))
}

/// `[N, C, H, W]` with the channels of each pixel side by side in memory: the layout that convolutions run fastest in.
/// Gives the tensor itself where it has that layout already.
///
/// # Errors
/// The tensor has not four dimensions.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    let mut result = ptr::null_mut();
    // SAFETY: the tensor outlives the call, which only reads it, and `result` has room for one pointer.
    check(unsafe { mpt_channels_last(tensor.as_ptr(), &mut result) })?;
    owned(result).ok_or_else(|| Error::failed("libtorch gave no tensor"))
}

/// How a pool slides: square, the same along both axes.
#[derive(Clone, Copy, Debug)]
pub struct PoolWindow {
    /// Pixels of a side of the window, at most 255.
    pub kernel: i64,
    /// Pixels from one window to the next.
    pub stride: i64,
    /// Pixels around the image, which are never the largest.
    pub padding: i64,
    /// Whether a last window may reach beyond those.
    pub ceil_mode: bool,
}

/// The largest value of each window of `[N, C, H, W]`, and where in its window it was found: the row times the kernel
/// plus the column, the first of equal ones; both `[N, C, H', W']`, channels last. (On a GPU the place is that in the
/// image.)
///
/// # Errors
/// The window is too large, or the tensor no image.
pub fn max_pool(image: &Tensor, window: PoolWindow) -> Result<(Tensor, Tensor)> {
    max_pool_by(image, window, image.device() != Device::Cpu)
}

/// `anywhere`: by libtorch's own operations, which know every device.
fn max_pool_by(image: &Tensor, window: PoolWindow, anywhere: bool) -> Result<(Tensor, Tensor)> {
    let mut results = [ptr::null_mut(); 2];
    let PoolWindow { kernel, stride, padding, ceil_mode } = window;
    // SAFETY: the tensor outlives the call, which only reads it, and `results` has room for two pointers.
    check(unsafe { mpt_max_pool(image.as_ptr(), kernel, stride, padding, ceil_mode, anywhere, results.as_mut_ptr()) })?;
    match results.map(owned) {
        [Some(output), Some(places)] => Ok((output, places)),
        _ => Err(Error::failed("max-pooling gave no tensor")),
    }
}

/// The gradient of the image, `[N, C, height, width]`, from that of the output and what [`max_pool`] found.
///
/// # Errors
/// The tensors do not fit together.
pub fn max_pool_backward(gradient: &Tensor, places: &Tensor, size: [i64; 2], window: PoolWindow) -> Result<Tensor> {
    max_pool_backward_by(gradient, places, size, window, gradient.device() != Device::Cpu)
}

fn max_pool_backward_by(
    gradient: &Tensor,
    places: &Tensor,
    [height, width]: [i64; 2],
    window: PoolWindow,
    anywhere: bool,
) -> Result<Tensor> {
    let mut result = ptr::null_mut();
    let PoolWindow { kernel, stride, padding, ceil_mode } = window;
    let (gradient, places) = (gradient.as_ptr(), places.as_ptr());
    // SAFETY: the tensors outlive the call, which only reads them, and `result` has room for one pointer. `places` is
    // of the gradient's shape, which the call checks, and its values are not followed but compared.
    check(unsafe {
        mpt_max_pool_backward(
            gradient,
            places,
            height,
            width,
            kernel,
            stride,
            padding,
            ceil_mode,
            anywhere,
            &mut result,
        )
    })?;
    owned(result).ok_or_else(|| Error::failed("max-pooling gave no gradient"))
}

/// Sets how many threads libtorch, and what is here, use for an operation called from this thread: at least one. (OpenMP keeps
/// the number per thread.)
pub fn set_threads(threads: usize) {
    // SAFETY: takes a number, and gives a message that `check` frees.
    let set = check(unsafe { mpt_set_threads(threads.clamp(1, i32::MAX as usize) as i64) });
    debug_assert!(set.is_ok(), "any number from 1 on will do");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn one_channel_gets_the_strides_of_channels_last() {
        let image = Tensor::ones([2, 1, 5, 7], (Kind::Float, Device::Cpu));
        assert_eq!(channels_last(&image).unwrap().stride(), [35, 1, 7, 1]);
        let colours = Tensor::ones([2, 3, 5, 7], (Kind::Float, Device::Cpu));
        assert_eq!(channels_last(&colours).unwrap().stride(), [105, 1, 21, 3]);
    }

    #[test]
    fn a_thread_keeps_its_number_of_threads_whatever_others_ask_for() {
        let (asked, go_on) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                set_threads(1);
                asked.wait();
                go_on.wait();
                // In a parallel region of libtorch's own code, and in one of the files beside this.
                let image = Tensor::ones([1, 8, 64, 64], (Kind::Float, Device::Cpu));
                let _ = &image
                    + max_pool(&image, PoolWindow { kernel: 3, stride: 1, padding: 1, ceil_mode: false }).unwrap().0;
                tch::get_num_threads()
            });
            scope.spawn(|| {
                asked.wait();
                set_threads(3);
                go_on.wait();
            });
            assert_eq!(first.join().unwrap(), 1);
        });
    }

    #[test]
    fn errors_are_one_line() {
        let flat = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let message = channels_last(&flat).unwrap_err().to_string();
        assert!(message.starts_with("libtorch: ") && !message.contains('\n'), "{message}");
    }

    /// So few numbers that windows hold equal values in rows and columns, and one that is no number.
    fn pooled_image(shape: [i64; 4], kind: Kind) -> Tensor {
        let count: i64 = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| f64::from((i * 7919 % 13 % 4) as i32 - 2) * 0.5).collect();
        let mut image = Tensor::from_slice(&values).view(shape);
        if count > 40 {
            let _ = image.view(-1).get(37).fill_(-f64::NAN);
        }
        image = image.to_kind(kind);
        channels_last(&image).unwrap()
    }

    #[test]
    fn max_pooling_is_libtorchs() {
        for (shape, kernel, stride, padding, ceil_mode) in [
            ([2, 5, 9, 8], 3, 2, 0, false),
            ([1, 48, 7, 7], 3, 2, 1, false),
            ([3, 1, 6, 6], 2, 2, 0, false),
            ([2, 33, 5, 7], 2, 1, 1, false),
            ([1, 4, 5, 5], 5, 3, 2, false),
            ([1, 3, 4, 4], 2, 3, 0, false),
            ([2, 3, 3, 4], 5, 1, 2, false),
            ([2, 5, 9, 8], 3, 2, 0, true),
            ([1, 4, 6, 5], 2, 3, 1, true),
            ([1, 3, 8, 10], 4, 3, 1, true),
        ] {
            let window = PoolWindow { kernel, stride, padding, ceil_mode };
            for kind in [Kind::BFloat16, Kind::Float, Kind::Double] {
                let image = pooled_image(shape, kind);
                let (output, places) = max_pool(&image, window).unwrap();
                let (expected, indices) =
                    image.max_pool2d_with_indices([kernel; 2], [stride; 2], [padding; 2], [1; 2], ceil_mode);
                assert!(same(&output, &expected), "{shape:?} {window:?} {kind:?}");
                assert!(output.is_contiguous() || output.stride()[1] == 1);
                let values: Vec<f64> = (0..output.numel() as i64).map(|i| (i % 9) as f64 - 4.0).collect();
                let gradient = Tensor::from_slice(&values).to_kind(kind).view(&output.size()[..]);
                let found = max_pool_backward(&gradient, &places, [shape[2], shape[3]], window).unwrap();
                let gradient = channels_last(&gradient).unwrap();
                let expected = image.max_pool2d_with_indices_backward(
                    &gradient,
                    [kernel; 2],
                    [stride; 2],
                    [padding; 2],
                    [1; 2],
                    ceil_mode,
                    &indices,
                );
                assert_eq!(found, expected, "{shape:?} {window:?} {kind:?}");
                let (output, places) = max_pool_by(&image, window, true).unwrap();
                assert!(same(&output, &image.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1; 2], ceil_mode)));
                let found = max_pool_backward_by(&gradient, &places, [shape[2], shape[3]], window, true).unwrap();
                assert_eq!(found, expected, "anywhere: {shape:?} {window:?} {kind:?}");
            }
        }
    }

    /// Equal, where what is no number equals itself.
    fn same(left: &Tensor, right: &Tensor) -> bool {
        let known = |tensor: &Tensor| tensor.nan_to_num(12345.0, None, None);
        left.isnan() == right.isnan() && known(left) == known(right)
    }

    #[test]
    fn a_window_that_is_too_large_is_an_error() {
        let image = pooled_image([1, 1, 300, 300], Kind::Float);
        let error = max_pool(&image, PoolWindow { kernel: 256, stride: 1, padding: 0, ceil_mode: false }).unwrap_err();
        assert!(error.to_string().contains("up to 255"), "{error}");
    }
}
