//! Operators that choose among values, and put them in another order.

use super::{
    Bound, Made, Span,
    rules::{Call, Ruled, one, place, plain},
};
use crate::core::model::VALUES_MAX;

pub(super) fn gather(call: &Call<'_, '_>) -> Ruled {
    let (data, chosen) = (call.dims(0)?, call.dims(1)?);
    let axis = call.axis(0, data.len())?;
    let dims = [&data[..axis], chosen, &data[axis + 1..]].concat();
    let output = Bound::new(call.input(0)?.element, dims);
    let pick = |values: &[Span]| -> Option<Vec<Span>> {
        let pick = |index: &Span| {
            let at = if index.is_exact() { place(index.min, values.len()).ok() } else { None };
            at.map(|at| values[at])
        };
        call.values(1)?.iter().map(pick).collect()
    };
    let values = call.values(0).filter(|_| data.len() == 1).and_then(pick);
    one(output.with_values(values))
}

pub(super) fn gather_nd(call: &Call<'_, '_>) -> Ruled {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let batch = call.node.int("batch_dims").unwrap_or(0).max(0) as usize;
    let (last, before) = indices.split_last().ok_or("its indices are a number")?;
    let taken = batch.saturating_add(last.min.max(0.0) as usize);
    if !last.is_exact() || taken > data.len() {
        return Err("its indices do not fit its data".into());
    }
    one(Bound::new(call.input(0)?.element, [before, &data[taken..]].concat()))
}

pub(super) fn slice(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let mut dims = call.dims(0)?.to_vec();
    let cut = |dims: &[Span]| dims.iter().map(|dim| Span::up_to(dim.max)).collect::<Vec<_>>();
    let (Some(starts), Some(ends)) = (call.values(1), call.values(2)) else {
        return one(Bound::new(input.element, cut(&dims)));
    };
    let steps = match (call.optional(4), call.values(4)) {
        (None, _) => vec![Span::exact(1.0); starts.len()],
        (_, Some(steps)) => steps.to_vec(),
        (_, None) => return one(Bound::new(input.element, cut(&dims))),
    };
    let axes = match (call.optional(3), call.values(3)) {
        (None, _) => (0..starts.len().min(dims.len())).collect(),
        (_, Some(axes)) if axes.iter().all(|axis| axis.is_exact()) => {
            axes.iter().map(|axis| place(axis.min, dims.len())).collect::<Result<Vec<_>, _>>()?
        }
        _ => return one(Bound::new(input.element, cut(&dims))),
    };
    if [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] {
        return Err("it has other ends than axes".into());
    }
    let from = dims.clone();
    let mut kept: Vec<(f64, f64)> = vec![(0.0, 1.0); dims.len()];
    for (number, axis) in axes.iter().enumerate() {
        let (start, end, step) = (starts[number], ends[number], steps[number]);
        let all = [start, end, step, dims[*axis]];
        dims[*axis] = if all.iter().all(|span| span.is_exact()) && step.min != 0.0 {
            let (first, count) = sliced(dims[*axis].min, start.min, end.min, step.min);
            kept[*axis] = (first, step.min);
            Span::exact(count)
        } else {
            Span::up_to(dims[*axis].max)
        };
    }
    let output = Bound::new(input.element, dims.clone());
    let chosen = input.values.as_deref().and_then(|values| {
        moved(values, &from, &dims, |place| {
            place.iter().zip(&kept).map(|(at, (first, step))| (first + step * *at as f64) as usize).collect()
        })
    });
    one(output.with_values(chosen))
}

/// The values of a tensor whose shape is `to`, each taken from that place of a tensor of shape `from` which `source`
/// names.
fn moved(values: &[Span], from: &[Span], to: &[Span], source: impl Fn(&[usize]) -> Vec<usize>) -> Option<Vec<Span>> {
    let lengths = |dims: &[Span]| -> Option<Vec<usize>> {
        dims.iter().map(|dim| (dim.is_exact() && dim.max <= VALUES_MAX as f64).then_some(dim.max as usize)).collect()
    };
    let (from, to) = (lengths(from)?, lengths(to)?);
    let count = to.iter().try_fold(1_usize, |count, length| count.checked_mul(*length))?;
    if count > VALUES_MAX {
        return None;
    }
    let mut place = vec![0; to.len()];
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let source = source(&place);
        let at = source
            .iter()
            .zip(&from)
            .try_fold(0, |at, (index, length)| (index < length).then_some(at * length + index))?;
        taken.push(*values.get(at)?);
        // The next place, the last dimension first.
        for (index, length) in place.iter_mut().zip(&to).rev() {
            *index += 1;
            if *index < *length {
                break;
            }
            *index = 0;
        }
    }
    Some(taken)
}

/// First index and number of indices of a slice, as ONNX clamps them.
fn sliced(length: f64, start: f64, end: f64, step: f64) -> (f64, f64) {
    let counted = |end: f64| if end < 0.0 { end + length } else { end };
    let (start, end) = if step > 0.0 {
        (counted(start).clamp(0.0, length), counted(end).clamp(0.0, length))
    } else {
        (counted(start).clamp(0.0, (length - 1.0).max(0.0)), counted(end).clamp(-1.0, (length - 1.0).max(-1.0)))
    };
    (start, ((end - start) / step).ceil().clamp(0.0, length))
}

pub(super) fn split(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let dims = call.dims(0)?;
    let axis = call.axis(0, dims.len())?;
    let count = call.node.outputs.len();
    let whole = dims[axis];
    let attribute = call.node.ints("split").map(|sizes| sizes.iter().map(|size| Span::exact(*size as f64)).collect());
    let sizes: Vec<Span> = match attribute.or_else(|| call.values(1).map(<[Span]>::to_vec)) {
        Some(sizes) => sizes,
        None if call.optional(1).is_some() => vec![Span::up_to(whole.max); count],
        None => {
            // Equal parts; the last may be smaller.
            let part = whole.map(|length| (length / count as f64).ceil());
            let rest = whole.minus(part.times(Span::exact(count as f64 - 1.0))).length();
            (0..count).map(|number| if number + 1 == count { rest } else { part }).collect()
        }
    };
    if sizes.len() != count {
        return Err("it has other sizes than outputs".into());
    }
    let of_list = input.values.as_deref().filter(|_| dims.len() == 1);
    let mut at = 0.0;
    let part = |size: Span| {
        let mut dims = dims.to_vec();
        dims[axis] = Span::new(size.min.clamp(0.0, whole.max), size.max.clamp(0.0, whole.max));
        let range = at as usize..(at + size.max.max(0.0)) as usize;
        at += size.max.max(0.0);
        let values = of_list.and_then(|values| values.get(range)).map(<[Span]>::to_vec);
        Bound::new(input.element, dims).with_values(values)
    };
    let outputs: Vec<Bound> = sizes.into_iter().map(part).collect();
    Ok(Made { work: input.elements, outputs })
}

pub(super) fn transpose(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let Some(dims) = input.dims.as_deref() else { return one(plain(input, input.element)) };
    let order = match call.node.ints("perm") {
        Some(order) => order.iter().map(|axis| place(*axis as f64, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).rev().collect(),
    };
    if order.len() != dims.len() {
        return Err("it orders other dimensions than it has".into());
    }
    let turned: Vec<Span> = order.iter().map(|axis| dims[*axis]).collect();
    let output = Bound { dims: Some(turned.clone().into()), ..plain(input, input.element) };
    let values = input.values.as_deref().and_then(|values| {
        moved(values, dims, &turned, |place| {
            let mut source = vec![0; order.len()];
            order.iter().zip(place).for_each(|(axis, at)| source[*axis] = *at);
            source
        })
    });
    one(output.with_values(values))
}
