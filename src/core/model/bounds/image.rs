//! How large the graph's inputs are.

use super::{
    super::{ASSUMED_SIDE_PX, RANK_MAX},
    Bound, ModelRefusal, RefusalKind, Span, ValueInfo, quoted,
};

/// The bound of an input: what it declares; its open dimensions are the image's where it could be the image.
pub(super) fn input(input: &ValueInfo<'_>, image: Option<[usize; 4]>) -> Result<Bound, ModelRefusal> {
    let refuse = |what: &str| {
        let reason = format!("input {} declares no {what}; export the model with it", quoted(input.name));
        ModelRefusal::new(RefusalKind::Shape, reason)
    };
    let element = input.element.ok_or_else(|| refuse("type"))?;
    let dims = input.dims.as_ref().ok_or_else(|| refuse("shape"))?;
    debug_assert!(dims.len() <= RANK_MAX, "the reader bounds ranks");
    let image = image.filter(|_| dims.len() == 4);
    let length = |(number, dim): (usize, &Option<u64>)| {
        let assumed = if number == 0 { 1 } else { ASSUMED_SIDE_PX };
        let open = image.map_or(assumed, |shape| shape[number] as u64);
        Span::exact(dim.unwrap_or(open) as f64)
    };
    Ok(Bound::new(element, dims.iter().enumerate().map(length).collect::<Vec<_>>()))
}
