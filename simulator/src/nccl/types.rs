//! Types of elements and kinds of reduction, as `nccl.h` numbers them.

use std::fmt;

/// `ncclDataType_t`, as far as it is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// Signed 8 bits.
    Int8,
    /// Unsigned 8 bits.
    Uint8,
    /// Signed 32 bits.
    Int32,
    /// Unsigned 32 bits.
    Uint32,
    /// Signed 64 bits.
    Int64,
    /// Unsigned 64 bits.
    Uint64,
    /// IEEE half precision.
    Float16,
    /// IEEE single precision.
    Float32,
    /// IEEE double precision.
    Float64,
    /// Single precision's upper half.
    Bfloat16,
}

/// In the header's order, from 0.
const TYPES: [DataType; 10] = [
    DataType::Int8,
    DataType::Uint8,
    DataType::Int32,
    DataType::Uint32,
    DataType::Int64,
    DataType::Uint64,
    DataType::Float16,
    DataType::Float32,
    DataType::Float64,
    DataType::Bfloat16,
];

impl DataType {
    /// The type that the header gives this number.
    pub fn numbered(number: u32) -> Option<Self> {
        TYPES.get(number as usize).copied()
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 => 1,
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Int64 | Self::Uint64 | Self::Float64 => 8,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", format!("{self:?}").to_lowercase())
    }
}

/// `ncclRedOp_t`, as far as it is simulated: averages and a program's own operations are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Reduction {
    /// The reduction that the header gives this number.
    pub fn numbered(number: u32) -> Option<Self> {
        [Self::Sum, Self::Product, Self::Max, Self::Min].get(number as usize).copied()
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", format!("{self:?}").to_lowercase())
    }
}
