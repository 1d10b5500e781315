//! Reading and writing the bytes of values. Reading trusts nothing: damage is an error, never a panic.

/// What was expected and not found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(Malformed("a longer value"))?;
        self.bytes = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    /// LEB128.
    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed("a number below 2^32"));
            }
        }
        Err(Malformed("a number below 2^32"))
    }

    /// The end of the value.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed("a shorter value")) }
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Numbers as differences from their smallest, each in as few bytes as the largest difference takes.
pub(super) fn encode_numbers(numbers: &[i64]) -> Vec<u8> {
    let base = numbers.iter().copied().min().unwrap_or(0);
    let widest = numbers.iter().map(|number| number.wrapping_sub(base) as u64).max().unwrap_or(0);
    let width = 8 - widest.leading_zeros() as usize / 8;
    let mut out = Vec::with_capacity(9 + numbers.len() * width);
    out.extend_from_slice(&base.to_le_bytes());
    out.push(width as u8);
    for number in numbers {
        out.extend_from_slice(&(number.wrapping_sub(base) as u64).to_le_bytes()[..width]);
    }
    out
}

/// Reads what [`encode_numbers`] wrote.
pub(super) fn decode_numbers(bytes: &[u8], count: usize) -> Result<Vec<i64>, Malformed> {
    let mut reader = Reader::new(bytes);
    let base = reader.i64()?;
    let width = usize::from(reader.u8()?);
    if width > 8 {
        return Err(Malformed("numbers of at most 8 bytes"));
    }
    let packed = reader.take(count * width)?;
    reader.end()?;
    let number = |row: usize| {
        let mut difference = [0; 8];
        difference[..width].copy_from_slice(&packed[row * width..(row + 1) * width]);
        base.wrapping_add(u64::from_le_bytes(difference) as i64)
    };
    Ok((0..count).map(number).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back_whatever_their_spread(numbers in prop::collection::vec(any::<i64>(), 0..50)) {
            prop_assert_eq!(decode_numbers(&encode_numbers(&numbers), numbers.len()), Ok(numbers));
        }

        #[test]
        fn varints_read_back(value: u32) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Reader::new(&out).varint(), Ok(value));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0_usize..70) {
            let _ = decode_numbers(&bytes, count);
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() {}
        }
    }

    #[test]
    fn times_of_one_block_take_five_bytes_each() {
        let times: Vec<i64> = (0..1024).map(|row| 1_795_470_228_000_000_000 + row * 33_000_000).collect();
        assert_eq!(encode_numbers(&times).len(), 9 + 1024 * 5);
    }
}
