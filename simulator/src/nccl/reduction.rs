//! Adding one rank's elements to what the ranks before it gave. Each step is rounded to the element's type, so the sum
//! in fp32 is bitwise `((a0 + a1) + a2) + ...`, and bf16 rounds to nearest even after each addition.

use super::types::{DataType, Reduction};
use half::{bf16, f16};

/// Combines each element of `sum` with that of `next`. Both have the same whole number of elements.
pub fn combine(datatype: DataType, reduction: Reduction, sum: &mut [u8], next: &[u8]) {
    match datatype {
        DataType::Int8 => each::<i8, 1>(reduction, sum, next),
        DataType::Uint8 => each::<u8, 1>(reduction, sum, next),
        DataType::Int32 => each::<i32, 4>(reduction, sum, next),
        DataType::Uint32 => each::<u32, 4>(reduction, sum, next),
        DataType::Int64 => each::<i64, 8>(reduction, sum, next),
        DataType::Uint64 => each::<u64, 8>(reduction, sum, next),
        DataType::Float16 => each::<f16, 2>(reduction, sum, next),
        DataType::Float32 => each::<f32, 4>(reduction, sum, next),
        DataType::Float64 => each::<f64, 8>(reduction, sum, next),
        DataType::Bfloat16 => each::<bf16, 2>(reduction, sum, next),
    }
}

/// An element of `SIZE` bytes.
trait Element<const SIZE: usize>: Copy {
    fn read(bytes: [u8; SIZE]) -> Self;
    fn write(self) -> [u8; SIZE];
    fn sum(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
}

fn each<T: Element<SIZE>, const SIZE: usize>(reduction: Reduction, sum: &mut [u8], next: &[u8]) {
    let step: fn(T, T) -> T = match reduction {
        // The sum has a loop of its own, which the compiler can make wide.
        Reduction::Sum => return fold(sum, next, T::sum),
        Reduction::Product => T::product,
        Reduction::Max => T::max,
        Reduction::Min => T::min,
    };
    fold(sum, next, step);
}

fn fold<T: Element<SIZE>, const SIZE: usize>(sum: &mut [u8], next: &[u8], step: impl Fn(T, T) -> T) {
    let (sums, _) = sum.as_chunks_mut::<SIZE>();
    let (nexts, _) = next.as_chunks::<SIZE>();
    for (sum, next) in sums.iter_mut().zip(nexts) {
        *sum = step(T::read(*sum), T::read(*next)).write();
    }
}

macro_rules! integers {
    ($($type:ty, $size:literal;)*) => {$(
        impl Element<$size> for $type {
            fn read(bytes: [u8; $size]) -> Self { Self::from_ne_bytes(bytes) }
            fn write(self) -> [u8; $size] { self.to_ne_bytes() }
            fn sum(self, other: Self) -> Self { self.wrapping_add(other) }
            fn product(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn max(self, other: Self) -> Self { Ord::max(self, other) }
            fn min(self, other: Self) -> Self { Ord::min(self, other) }
        }
    )*};
}

macro_rules! floats {
    ($($type:ty, $size:literal;)*) => {$(
        impl Element<$size> for $type {
            fn read(bytes: [u8; $size]) -> Self { Self::from_ne_bytes(bytes) }
            fn write(self) -> [u8; $size] { self.to_ne_bytes() }
            fn sum(self, other: Self) -> Self { self + other }
            fn product(self, other: Self) -> Self { self * other }
            fn max(self, other: Self) -> Self { <$type>::max(self, other) }
            fn min(self, other: Self) -> Self { <$type>::min(self, other) }
        }
    )*};
}

integers! { i8, 1; u8, 1; i32, 4; u32, 4; i64, 8; u64, 8; }
floats! { f16, 2; f32, 4; f64, 8; bf16, 2; }

#[cfg(test)]
mod tests {
    use super::combine;
    use crate::nccl::types::{DataType, Reduction};
    use half::bf16;

    #[test]
    fn bf16_rounds_to_nearest_even_after_each_addition() {
        // 256 + 1 lies half-way between 256 and 258: to even, twice, where fp32 in between would give 258.
        let mut sum = bf16::from_f32(256.0).to_ne_bytes();
        for _ in 0..2 {
            combine(DataType::Bfloat16, Reduction::Sum, &mut sum, &bf16::from_f32(1.0).to_ne_bytes());
        }
        assert_eq!(bf16::from_ne_bytes(sum), bf16::from_f32(256.0));
    }

    #[test]
    fn integers_wrap_and_the_other_reductions_are_what_they_are_called() {
        for (reduction, expected) in
            [(Reduction::Sum, 4_u8), (Reduction::Product, 196), (Reduction::Max, 250), (Reduction::Min, 10)]
        {
            let mut sum = [250_u8];
            combine(DataType::Uint8, reduction, &mut sum, &[10]);
            assert_eq!(sum, [expected]);
        }
    }
}
