//! The element types of tensors that are let in.

use std::fmt;

/// `TensorProto.DataType`, without texts, complex numbers and formats below eight bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    Float32,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Int32,
    Int64,
    Bool,
    Float16,
    Float64,
    Uint32,
    Uint64,
    Bfloat16,
}

/// Code in the protobuf, name, bytes, field of `TensorProto` that holds such values where they are not raw.
const TYPES: &[(ElementType, i64, &str, u64, u32)] = &[
    (ElementType::Float32, 1, "float32", 4, 4),
    (ElementType::Uint8, 2, "uint8", 1, 5),
    (ElementType::Int8, 3, "int8", 1, 5),
    (ElementType::Uint16, 4, "uint16", 2, 5),
    (ElementType::Int16, 5, "int16", 2, 5),
    (ElementType::Int32, 6, "int32", 4, 5),
    (ElementType::Int64, 7, "int64", 8, 7),
    (ElementType::Bool, 9, "bool", 1, 5),
    (ElementType::Float16, 10, "float16", 2, 5),
    (ElementType::Float64, 11, "float64", 8, 10),
    (ElementType::Uint32, 12, "uint32", 4, 11),
    (ElementType::Uint64, 13, "uint64", 8, 11),
    (ElementType::Bfloat16, 16, "bfloat16", 2, 5),
];

impl ElementType {
    #[must_use]
    pub fn of_code(code: i64) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    fn row(self) -> &'static (Self, i64, &'static str, u64, u32) {
        TYPES.iter().find(|row| row.0 == self).expect("every type has a row")
    }

    /// Bytes of one value in memory.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.row().3
    }

    /// The field of `TensorProto` that holds such values where they are not raw.
    #[must_use]
    pub(super) fn field(self) -> u32 {
        self.row().4
    }

    #[must_use]
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float16 | Self::Float64 | Self::Bfloat16)
    }

    /// The values of raw bytes, if shapes are made of this type.
    #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 are far over every budget")]
    pub(super) fn decode(self, raw: &[u8]) -> Option<Vec<f64>> {
        fn each<const N: usize>(raw: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            raw.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
        }
        Some(match self {
            Self::Float32 => each(raw, |bytes| f32::from_le_bytes(bytes).into()),
            Self::Float64 => each(raw, f64::from_le_bytes),
            Self::Int32 => each(raw, |bytes| i32::from_le_bytes(bytes).into()),
            Self::Int64 => each(raw, |bytes| i64::from_le_bytes(bytes) as f64),
            Self::Bool | Self::Uint8 => each(raw, |[byte]: [u8; 1]| byte.into()),
            _ => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}
