//! What stands in a constant tensor: as many values as it declares, and the first few.

use super::{
    ModelRefusal, RANK_MAX, RefusalKind, VALUES_MAX,
    element::ElementType,
    wire::{self, Wire},
};

/// What a tensor's data fields hold: how many values, and the first few.
#[derive(Default)]
pub(super) struct Data<'a> {
    pub raw: Option<&'a [u8]>,
    field: Option<u32>,
    count: u64,
    first: Vec<f64>,
}

impl Data<'_> {
    pub fn typed(&mut self, field: u32, value: Wire<'_>) -> Result<(), ModelRefusal> {
        if *self.field.get_or_insert(field) != field {
            return Err(ModelRefusal::new(RefusalKind::Tensor, "it has a tensor whose values stand in two fields"));
        }
        let (count, first) = (&mut self.count, &mut self.first);
        let mut take = |value: f64| {
            *count += 1;
            if first.len() < VALUES_MAX {
                first.push(value);
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 are far over every budget")]
        match field {
            4 => wire::each_float(value, |one| take(one.into()))?,
            5 | 7 => wire::each_int(value, |one| take(one as f64))?,
            10 => wire::each_double(value, take)?,
            11 => wire::each_int(value, |one| take(one.cast_unsigned() as f64))?,
            _ => return Err(ModelRefusal::new(RefusalKind::Tensor, "it has a tensor of texts")),
        }
        Ok(())
    }

    pub fn check(&self, element: ElementType, elements: u64) -> Result<(), String> {
        match (self.raw, self.field) {
            (Some(_), Some(_)) => Err("has its values twice".into()),
            (Some(raw), None) => {
                let declared = elements.saturating_mul(element.bytes());
                if raw.len() as u64 == declared {
                    return Ok(());
                }
                Err(format!("declares {elements} values of {} bytes and holds {} bytes", element.bytes(), raw.len()))
            }
            (None, None) if elements == 0 => Ok(()),
            (None, _) if self.count != elements => Err(format!("declares {elements} values and holds {}", self.count)),
            (None, Some(field)) if field != element.field() => {
                Err(format!("is of type {element} and holds values of another"))
            }
            (None, _) => Ok(()),
        }
    }

    pub fn values(self, element: ElementType, elements: u64) -> Option<Vec<f64>> {
        if elements > VALUES_MAX as u64 {
            return None;
        }
        match self.raw {
            Some(raw) => element.decode(raw),
            None if element.decode(&[]).is_some() => Some(self.first),
            None => None,
        }
    }
}

/// Its dimensions, and how many values that makes.
pub(super) fn product(dims: &[i64]) -> Result<(Vec<u64>, u64), String> {
    if dims.len() > RANK_MAX {
        return Err(format!("has {} dimensions; at most {RANK_MAX} are let in", dims.len()));
    }
    let dims: Result<Vec<u64>, String> =
        dims.iter().map(|dim| u64::try_from(*dim).map_err(|_| format!("has a dimension of {dim}"))).collect();
    let dims = dims?;
    let elements = dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim));
    let elements = elements.ok_or_else(|| format!("has the shape {dims:?}, more values than can be counted"))?;
    Ok((dims, elements))
}
