//! Reads what inputs, outputs and inner values declare: their type and shape.

use super::{
    DOC_BYTES_MAX, ModelRefusal, NAME_BYTES_MAX, RANK_MAX, RefusalKind, VALUE_INFOS_MAX,
    element::ElementType,
    messages::ValueInfo,
    proto::{Once, Reader, bounded, count, refuse, text},
    quoted,
};

type Result<T> = std::result::Result<T, ModelRefusal>;

impl Reader<'_> {
    pub(super) fn value_info<'a>(&mut self, bytes: &'a [u8]) -> Result<ValueInfo<'a>> {
        count(&mut self.infos, VALUE_INFOS_MAX, "declared values")?;
        let mut once = Once::new("a declared value");
        let mut info = ValueInfo { name: "", element: None, dims: None };
        for field in self.fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => {
                    once.see(number)?;
                    info.name = text(value, NAME_BYTES_MAX, "a value's name")?;
                }
                2 => {
                    once.see(number)?;
                    self.type_of(value.bytes()?, &mut info)?;
                }
                3 => {
                    once.see(number)?;
                    text(value, DOC_BYTES_MAX, "a value's doc string")?;
                }
                4 => drop(value.bytes()?),
                other => return once.unknown(other),
            }
        }
        Ok(info)
    }

    /// `TypeProto`.
    fn type_of(&self, bytes: &[u8], info: &mut ValueInfo<'_>) -> Result<()> {
        let mut once = Once::new("a type");
        for field in self.fields(bytes) {
            let (number, value) = field?;
            once.see(number)?;
            match number {
                1 => self.tensor_type(value.bytes()?, info)?,
                6 => text(value, NAME_BYTES_MAX, "a denotation").map(drop)?,
                4 | 5 | 7 | 8 | 9 => {
                    let reason = format!("value {} is no tensor; only tensors are let in", quoted(info.name));
                    return Err(refuse(RefusalKind::Structure, reason));
                }
                other => return once.unknown(other),
            }
        }
        Ok(())
    }

    fn tensor_type(&self, bytes: &[u8], info: &mut ValueInfo<'_>) -> Result<()> {
        let mut once = Once::new("a tensor's type");
        let called = quoted(info.name);
        for field in self.fields(bytes) {
            let (number, value) = field?;
            once.see(number)?;
            match number {
                1 => {
                    let code = value.int()?;
                    let known = ElementType::of_code(code).ok_or_else(|| {
                        let known = "known are numbers of 8 to 64 bits and truth values";
                        refuse(RefusalKind::Tensor, format!("value {called} has data type {code}; {known}"))
                    })?;
                    info.element = Some(known);
                }
                2 => info.dims = Some(self.shape(value.bytes()?, &called)?),
                other => return once.unknown(other),
            }
        }
        Ok(())
    }

    fn shape(&self, bytes: &[u8], called: &str) -> Result<Vec<Option<u64>>> {
        let mut dims = Vec::new();
        for field in self.fields(bytes) {
            let (number, value) = field?;
            if number != 1 {
                return Once::new("a shape").unknown(number);
            }
            bounded(dims.len(), RANK_MAX, "dimensions of one tensor")?;
            dims.push(self.dimension(value.bytes()?, called)?);
        }
        Ok(dims)
    }

    fn dimension(&self, bytes: &[u8], called: &str) -> Result<Option<u64>> {
        let mut once = Once::new("a dimension");
        let (mut dim, mut named) = (None, false);
        for field in self.fields(bytes) {
            let (number, value) = field?;
            once.see(number)?;
            match number {
                1 => dim = Some(value.int()?),
                2 => named = !text(value, NAME_BYTES_MAX, "a dimension's name")?.is_empty(),
                3 => text(value, NAME_BYTES_MAX, "a denotation").map(drop)?,
                other => return once.unknown(other),
            }
        }
        match dim {
            // Some exporters write -1 for an open dimension.
            None | Some(-1) => Ok(None),
            Some(_) if named => Err(refuse(RefusalKind::NotOnnx, "a dimension has both a name and a length")),
            Some(dim) => u64::try_from(dim)
                .map(Some)
                .map_err(|_| refuse(RefusalKind::Shape, format!("value {called} declares a dimension of {dim}"))),
        }
    }
}
