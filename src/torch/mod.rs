//! The Rust face of the C++ files beside this one: what tch lacks of libtorch (`ext.cpp`), the update of the weights
//! (`update.cpp`), max-pooling (`pool.cpp`), local response normalisation (`norm.cpp`, [`norm`]), the way to a GPU
//! (`device.cpp`, [`device`]) and the store in which ranks meet (`store.cpp`, [`store`]). The rest of mpt calls tch and these.

pub mod device;
pub mod norm;
pub mod store;

use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};
use std::ptr;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mpt_free_message(message: *mut c_char);
    fn mpt_libtorch_configuration() -> *mut c_char;
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
        anywhere: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mpt_update(
        parameters: *const C_tensor,
        gradients: *const *const C_tensor,
        parts: i64,
        velocity: *const C_tensor,
        shadow: *const C_tensor,
        ends: *const i64,
        squares: *const C_tensor,
        rate: f64,
        momentum: f64,
        decay: f64,
        anywhere: bool,
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
    let PoolWindow { kernel, stride, padding } = window;
    // SAFETY: the tensor outlives the call, which only reads it, and `results` has room for two pointers.
    check(unsafe { mpt_max_pool(image.as_ptr(), kernel, stride, padding, anywhere, results.as_mut_ptr()) })?;
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
    let PoolWindow { kernel, stride, padding } = window;
    let (gradient, places) = (gradient.as_ptr(), places.as_ptr());
    // SAFETY: the tensors outlive the call, which only reads them, and `result` has room for one pointer. `places` is
    // of the gradient's shape, which the call checks, and its values are not followed but compared.
    check(unsafe {
        mpt_max_pool_backward(gradient, places, height, width, kernel, stride, padding, anywhere, &mut result)
    })?;
    owned(result).ok_or_else(|| Error::failed("max-pooling gave no gradient"))
}

/// The settings of one update.
#[derive(Clone, Copy, Debug)]
pub struct UpdateRule {
    /// The learning rate.
    pub rate: f64,
    /// The share of the velocity that is kept.
    pub momentum: f64,
    /// The weight decay, added to the gradient.
    pub decay: f64,
}

/// What an update writes to: contiguous tensors of one size.
pub struct Updated<'t> {
    /// fp32 or fp64.
    pub weights: &'t Tensor,
    /// Of the type of the weights; `None` without momentum.
    pub velocity: Option<&'t Tensor>,
    /// The weights rounded to bf16, where the layers compute with those.
    pub shadow: Option<&'t Tensor>,
}

/// PyTorch's SGD in one pass over memory, in place: `g = sum of the gradients in their order + decay * w;
/// v = momentum * v + g; w -= rate * v; shadow = w`. (With velocities of zero, the first step gives `v = g`.)
/// The gradients are of the shadow's type where there is one, else of the weights'.
///
/// Gives, in fp64, the sums of the squares of the gradient, before decay, over segments of the values: `ends` says where
/// each ends, the last one where the values do. They do not depend on the number of threads.
///
/// # Errors
/// Shapes or types that do not fit.
pub fn update(target: &Updated, gradients: &[Tensor], rule: UpdateRule, ends: &[i64]) -> Result<Tensor> {
    update_by(target, gradients, rule, ends, target.weights.device() != Device::Cpu)
}

fn update_by(target: &Updated, gradients: &[Tensor], rule: UpdateRule, ends: &[i64], anywhere: bool) -> Result<Tensor> {
    let squares = Tensor::f_empty([ends.len() as i64], (Kind::Double, target.weights.device()))?;
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(ptr::null(), Tensor::as_ptr);
    let parts: Vec<*const C_tensor> = gradients.iter().map(|part| part.as_ptr()).collect();
    // SAFETY: the tensors outlive the call; it writes to the storage of the target's, which no other thread reads at
    // that time: the caller owns them. `parts` holds as many pointers as the call is told, `ends` as many numbers as
    // `squares` has values.
    check(unsafe {
        mpt_update(
            target.weights.as_ptr(),
            parts.as_ptr(),
            parts.len() as i64,
            pointer(target.velocity),
            pointer(target.shadow),
            ends.as_ptr(),
            squares.as_ptr(),
            rule.rate,
            rule.momentum,
            rule.decay,
            anywhere,
        )
    })?;
    Ok(squares)
}

/// Sets how many threads libtorch uses for an operation called from this thread. (OpenMP keeps the number per thread.)
pub fn set_threads(threads: usize) {
    // The first question of a thread gives it the number that any thread has set last: so it comes before the own number.
    let _ = tch::get_num_threads();
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (shape, kernel, stride, padding) in [
            ([2, 5, 9, 8], 3, 2, 0),
            ([1, 48, 7, 7], 3, 2, 1),
            ([3, 1, 6, 6], 2, 2, 0),
            ([2, 33, 5, 7], 2, 1, 1),
            ([1, 4, 5, 5], 5, 3, 2),
            ([1, 3, 4, 4], 2, 3, 0),
            ([2, 3, 3, 4], 5, 1, 2),
        ] {
            let window = PoolWindow { kernel, stride, padding };
            for kind in [Kind::BFloat16, Kind::Float, Kind::Double] {
                let image = pooled_image(shape, kind);
                let (output, places) = max_pool(&image, window).unwrap();
                let (expected, indices) =
                    image.max_pool2d_with_indices([kernel; 2], [stride; 2], [padding; 2], [1; 2], false);
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
                    false,
                    &indices,
                );
                assert_eq!(found, expected, "{shape:?} {window:?} {kind:?}");
                let (output, places) = max_pool_by(&image, window, true).unwrap();
                assert!(same(&output, &image.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1; 2], false)));
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
        let error = max_pool(&image, PoolWindow { kernel: 256, stride: 1, padding: 0 }).unwrap_err();
        assert!(error.to_string().contains("up to 255"), "{error}");
    }

    #[test]
    fn an_update_is_pytorchs_formula() {
        let weights = Tensor::from_slice(&[1.0f64, -2.0]);
        let velocity = Tensor::zeros([2], (Kind::Double, Device::Cpu));
        let target = Updated { weights: &weights, velocity: Some(&velocity), shadow: None };
        let rule = UpdateRule { rate: 0.1, momentum: 0.9, decay: 0.01 };
        let (mut p, mut v) = ([1.0f64, -2.0], [0.0f64, 0.0]);
        for step in 0..3 {
            let parts = [[0.5 + f64::from(step), -0.5], [1.0, 0.25]];
            let squares = update(&target, &parts.map(|part| Tensor::from_slice(&part)), rule, &[1, 2]).unwrap();
            let squares = Vec::<f64>::try_from(&squares).unwrap();
            assert!((0..2).all(|i| (squares[i] - (parts[0][i] + parts[1][i]).powi(2)).abs() < 1e-14), "{squares:?}");
            for i in 0..2 {
                let g = parts[0][i] + parts[1][i];
                v[i] = if step == 0 { g + 0.01 * p[i] } else { 0.9 * v[i] + g + 0.01 * p[i] };
                p[i] -= 0.1 * v[i];
            }
        }
        let found = Vec::<f64>::try_from(&weights).unwrap();
        assert!(found.iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?} {p:?}");
    }

    #[test]
    fn the_shadow_is_the_rounded_weights() {
        // More than one block of the kernel, and a rest; without a gradient and with a rate of 0 nothing else changes.
        let size = 5000;
        let weights = (Tensor::arange(size, (Kind::Float, Device::Cpu)) - 2500.0) * 1.000_123;
        let shadow = Tensor::zeros([size], (Kind::BFloat16, Device::Cpu));
        let gradient = Tensor::zeros([size], (Kind::BFloat16, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: Some(&shadow) };
        let squares =
            update(&target, &[gradient], UpdateRule { rate: 0.0, momentum: 0.0, decay: 0.0 }, &[size]).unwrap();
        assert_eq!(squares.double_value(&[0]), 0.0);
        assert_eq!(shadow, weights.to_kind(Kind::BFloat16));
    }

    /// What GPUs run is what the CPU runs, but for the last bit of a fused multiplication and addition.
    #[test]
    fn an_update_anywhere_is_the_same() {
        let numbers = |seed: i64| (Tensor::arange(5000, (Kind::Float, Device::Cpu)) + seed).sin();
        for (momentum, kind) in [(0.9, Kind::BFloat16), (0.0, Kind::BFloat16), (0.9, Kind::Float), (0.0, Kind::Float)] {
            let rule = UpdateRule { rate: 0.1, momentum, decay: 0.01 };
            let parts = [numbers(10).to_kind(kind), numbers(20).to_kind(kind), numbers(30).to_kind(kind)];
            let run = |anywhere| {
                let (weights, velocity, shadow) = (numbers(1), numbers(2), numbers(1).to_kind(kind));
                let target = Updated {
                    weights: &weights,
                    velocity: (momentum > 0.0).then_some(&velocity),
                    shadow: (kind == Kind::BFloat16).then_some(&shadow),
                };
                // Segments that begin and end inside of blocks, and one that is longer than a block.
                let squares = update_by(&target, &parts, rule, &[16, 1000, 1024, 4000, 5000], anywhere).unwrap();
                (weights, velocity, shadow, squares)
            };
            let (here, anywhere) = (run(false), run(true));
            let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(apart(&here.0, &anywhere.0) < 1e-6 && apart(&here.1, &anywhere.1) < 1e-6);
            assert!(apart(&(&here.3 / &anywhere.3), &Tensor::from(1.0)) < 1e-6, "{} {}", here.3, anywhere.3);
            assert!(
                apart(&here.2, &anywhere.2) < 1e-2 && anywhere.2 == anywhere.0.to_kind(kind) || kind == Kind::Float
            );
        }
    }

    #[test]
    fn an_update_refuses_gradients_of_another_type() {
        let weights = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: None };
        let gradient = Tensor::zeros([4], (Kind::BFloat16, Device::Cpu));
        let rule = UpdateRule { rate: 0.1, momentum: 0.0, decay: 0.0 };
        assert!(update(&target, &[gradient], rule, &[4]).unwrap_err().to_string().contains("BFloat16"));
        let gradient = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        assert!(update(&target, &[gradient], rule, &[2, 3]).unwrap_err().to_string().contains("segments"));
    }

    #[test]
    fn sums_of_squares_do_not_depend_on_threads_and_tell_what_is_not_finite() {
        let size = 300_000;
        let weights = Tensor::zeros([size], (Kind::Float, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: None };
        let rule = UpdateRule { rate: 0.1, momentum: 0.0, decay: 0.0 };
        let gradient = (Tensor::arange(size, (Kind::Float, Device::Cpu)) * 0.37).sin();
        let sums = |threads| {
            set_threads(threads);
            let squares = update(&target, &[gradient.shallow_clone()], rule, &[48, 70_000, size]).unwrap();
            set_threads(1);
            Vec::<f64>::try_from(&squares).unwrap()
        };
        let expected = gradient.to_kind(Kind::Double).square();
        let alone = sums(1);
        for (found, (from, to)) in alone.iter().zip([(0, 48), (48, 70_000), (70_000, size)]) {
            let expected = expected.narrow(0, from, to - from).sum(Kind::Double).double_value(&[]);
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(sums(2), alone);
        assert_eq!(sums(3), alone);
        let _ = gradient.get(60).fill_(f64::NAN);
        let _ = gradient.get(size - 1).fill_(f64::INFINITY);
        let spoilt = sums(2);
        assert!(spoilt[0] == alone[0] && spoilt[1].is_nan() && spoilt[2] == f64::INFINITY, "{spoilt:?}");
    }
}
