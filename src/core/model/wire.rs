//! The protobuf wire format, read in place: nothing is copied and nothing is allocated, so that no file can make its
//! reader large. Source: protobuf.dev/programming-guides/encoding.
//!
//! Not `prost`: it builds every message before anything can be counted, and two bytes of an empty `NodeProto` become
//! two hundred in memory, so that a file of 512 MiB would ask for 50 GiB before its first check.

use std::cell::Cell;

/// Fields one file may have, all messages together; a ResNet-152 has 20,000, stacked ViTs some 200,000.
pub const FIELDS_MAX: u64 = 4_000_000;

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("a number in it has more than ten bytes")]
    LongVarint,
    #[error("it has a field of wire type {0}, which no ONNX message has")]
    WireType(u8),
    #[error("it has a field numbered {0}")]
    FieldNumber(u64),
    #[error("it has more than {FIELDS_MAX} fields")]
    TooManyFields,
    #[error("a field has another wire type than ONNX gives it")]
    OtherType,
}

/// Counts the fields of a whole file.
#[derive(Debug, Default)]
pub struct Meter(Cell<u64>);

impl Meter {
    fn count(&self) -> Result<(), WireError> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > FIELDS_MAX { Err(WireError::TooManyFields) } else { Ok(()) }
    }
}

/// A field's value as it lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    /// Of `int32`, `int64`, `bool` and `enum`.
    pub fn int(self) -> Result<i64, WireError> {
        match self {
            Self::Varint(value) => Ok(value.cast_signed()),
            _ => Err(WireError::OtherType),
        }
    }

    pub fn float(self) -> Result<f32, WireError> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(WireError::OtherType),
        }
    }

    /// Of `bytes`, `string` and messages.
    pub fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::OtherType),
        }
    }
}

/// The fields of one message, in the order in which they lie there.
pub struct Fields<'a, 'm> {
    rest: &'a [u8],
    meter: &'m Meter,
}

impl<'a, 'm> Fields<'a, 'm> {
    pub fn new(message: &'a [u8], meter: &'m Meter) -> Self {
        Self { rest: message, meter }
    }

    /// Bytes of the message that no field was read from yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), WireError> {
        self.meter.count()?;
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(WireError::FieldNumber(tag >> 3))?;
        let value = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.rest)?),
            1 => Wire::Fixed64(u64::from_le_bytes(take(&mut self.rest)?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(take(&mut self.rest)?)),
            other => return Err(WireError::WireType(u8::try_from(other).unwrap_or(u8::MAX))),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a, '_> {
    type Item = Result<(u32, Wire<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The numbers of a repeated field, of which `value` is one occurrence: packed, or a single one.
pub fn each_int(value: Wire<'_>, mut take: impl FnMut(i64)) -> Result<(), WireError> {
    match value {
        Wire::Varint(one) => take(one.cast_signed()),
        Wire::Bytes(mut packed) => {
            while !packed.is_empty() {
                take(varint(&mut packed)?.cast_signed());
            }
        }
        Wire::Fixed32(_) | Wire::Fixed64(_) => return Err(WireError::OtherType),
    }
    Ok(())
}

/// As [`each_int`], for `float`.
pub fn each_float(value: Wire<'_>, mut each: impl FnMut(f32)) -> Result<(), WireError> {
    match value {
        Wire::Fixed32(bits) => each(f32::from_bits(bits)),
        Wire::Bytes(mut packed) => {
            while !packed.is_empty() {
                each(f32::from_le_bytes(take(&mut packed)?));
            }
        }
        Wire::Varint(_) | Wire::Fixed64(_) => return Err(WireError::OtherType),
    }
    Ok(())
}

/// As [`each_int`], for `double`.
pub fn each_double(value: Wire<'_>, mut each: impl FnMut(f64)) -> Result<(), WireError> {
    match value {
        Wire::Fixed64(bits) => each(f64::from_bits(bits)),
        Wire::Bytes(mut packed) => {
            while !packed.is_empty() {
                each(f64::from_le_bytes(take(&mut packed)?));
            }
        }
        Wire::Varint(_) | Wire::Fixed32(_) => return Err(WireError::OtherType),
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for (number, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 127) << (7 * number);
        if byte & 128 == 0 {
            *bytes = &bytes[number + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < 10 { WireError::Truncated } else { WireError::LongVarint })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, WireError> {
        Fields::new(bytes, &Meter::default()).collect()
    }

    #[test]
    fn the_four_wire_types_are_read_as_the_specification_writes_them() {
        // The specification's own examples: field 1 = 150, field 2 = "testing".
        assert_eq!(read(&[0x08, 0x96, 0x01]).unwrap(), [(1, Wire::Varint(150))]);
        let testing = [&[0x12, 0x07][..], b"testing"].concat();
        assert_eq!(read(&testing).unwrap(), [(2, Wire::Bytes(b"testing"))]);
        assert_eq!(read(&[0x0d, 0, 0, 0x80, 0x3f]).unwrap()[0].1.float().unwrap(), 1.0);
        assert_eq!(read(&[0x09, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap(), [(1, Wire::Fixed64(1))]);
        let minus_one = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(read(&minus_one).unwrap()[0].1.int().unwrap(), -1);
    }

    #[test]
    fn every_cut_and_every_wrong_tag_is_an_error() {
        let whole = [&[0x08, 0x96, 0x01, 0x12, 0x07][..], b"testing"].concat();
        for length in [1, 2, 4, 5, 8, 11] {
            assert_eq!(read(&whole[..length]), Err(WireError::Truncated), "{length}");
        }
        assert_eq!(read(&[0x0b]), Err(WireError::WireType(3)));
        assert_eq!(read(&[0x00, 0x00]), Err(WireError::FieldNumber(0)));
        assert_eq!(read(&[0xff; 11]), Err(WireError::LongVarint));
        assert_eq!(
            read(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Err(WireError::Truncated)
        );
    }

    #[test]
    fn a_file_of_nothing_but_empty_fields_is_given_up_on() {
        let bytes = [0x0a, 0x00].repeat(usize::try_from(FIELDS_MAX).unwrap() + 1);
        let last = Fields::new(&bytes, &Meter::default()).last().unwrap();
        assert_eq!(last, Err(WireError::TooManyFields));
    }
}
