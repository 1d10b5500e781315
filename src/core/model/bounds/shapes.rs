//! Operators that shape, join, repeat and reduce, and those that ask for sizes.

use super::{
    Bound, ElementType, Made, Rule, Span, choose, numbers,
    rules::{Call, Ruled, one, place, places, plain, stretched},
    span::times,
};
use crate::core::model::{RANK_MAX, VALUES_MAX, messages::AttributeValue};

pub(super) fn apply(rule: Rule, call: &Call<'_, '_>) -> Ruled {
    match rule {
        Rule::ArgReduce | Rule::Reduce => reduce(rule, call),
        Rule::CenterCropPad => center_crop_pad(call),
        Rule::Compress => compress(call),
        Rule::Concat => concat(call),
        Rule::ConstantOfShape => constant_of_shape(call),
        Rule::DepthToSpace | Rule::SpaceToDepth => blocks(rule, call),
        Rule::Expand => expand(call),
        Rule::Flatten => flatten(call),
        Rule::Gather => choose::gather(call),
        Rule::GatherElements => one(match call.input(1)?.dims.clone() {
            Some(dims) => Bound::new(call.input(0)?.element, dims),
            None => plain(call.input(1)?, call.input(0)?.element),
        }),
        Rule::GatherNd => choose::gather_nd(call),
        Rule::NonZero => non_zero(call),
        Rule::OneHot => one_hot(call),
        Rule::Pad => pad(call),
        Rule::Range => range(call),
        Rule::Reshape => reshape(call),
        Rule::Shape => shape(call),
        Rule::Size => {
            let input = call.input(0)?;
            let least =
                input.dims.iter().flat_map(|dims| dims.iter()).fold(1.0, |product, dim| times(product, dim.min));
            let least = if input.dims.is_some() { least } else { 0.0 };
            one(Bound::scalar(ElementType::Int64).with_numbers(Some(vec![Span::new(least, input.elements)])))
        }
        Rule::Slice => choose::slice(call),
        Rule::Split => choose::split(call),
        Rule::Squeeze => squeeze(call),
        Rule::Tile => tile(call),
        Rule::TopK => top_k(call),
        Rule::Transpose => choose::transpose(call),
        Rule::Unique => {
            let input = call.input(0)?;
            let list = |element| Bound::new(element, [Span::up_to(input.elements)]);
            let first = Bound { dims: None, ..plain(input, input.element) };
            let outputs = vec![first, list(ElementType::Int64), list(ElementType::Int64), list(ElementType::Int64)];
            Ok(Made { outputs, work: input.elements * 32.0 })
        }
        Rule::Unsqueeze => unsqueeze(call),
        other => Err(format!("no rule says {other:?}")),
    }
}

/// A list of as many dimensions as its values say.
fn lengths(values: &[Span]) -> Result<Vec<Span>, String> {
    if values.len() > RANK_MAX {
        return Err(format!("it has {} dimensions; at most {RANK_MAX} are let in", values.len()));
    }
    Ok(values.iter().map(|value| value.length()).collect())
}

/// Axes of which none stands twice.
pub(super) fn distinct(axes: &[usize]) -> Result<(), String> {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) { Err("it has an axis twice".into()) } else { Ok(()) }
}

fn reduce(rule: Rule, call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let element = if rule == Rule::ArgReduce { ElementType::Int64 } else { input.element };
    let work = input.elements;
    let Some(dims) = input.dims.as_deref() else {
        return Ok(Made { work, outputs: vec![plain(input, element)] });
    };
    let keeps = call.node.int("keepdims").unwrap_or(1) != 0;
    let axes = match rule {
        Rule::ArgReduce => Some(vec![call.axis(0, dims.len().max(1))? as f64]),
        _ => call.axes(1)?,
    };
    let axes = match axes {
        Some(axes) if !axes.is_empty() => places(&axes, dims.len().max(1))?,
        _ if call.node.int("noop_with_empty_axes").unwrap_or(0) != 0 => {
            return Ok(Made { work, outputs: vec![plain(input, element)] });
        }
        _ => (0..dims.len()).collect(),
    };
    let left = dims.iter().enumerate().filter_map(|(number, dim)| match (axes.contains(&number), keeps) {
        (false, _) => Some(*dim),
        (true, true) => Some(Span::exact(1.0)),
        (true, false) => None,
    });
    let output = Bound::new(element, left.collect::<Vec<_>>());
    let whole = (axes.len() == dims.len() && rule == Rule::Reduce).then_some(input.values.as_deref()).flatten();
    let number = whole.and_then(|values| numbers::reduce(call.node.operator, values));
    Ok(Made { work, outputs: vec![output.with_numbers(number.map(|number| vec![number]))] })
}

fn center_crop_pad(call: &Call<'_, '_>) -> Ruled {
    let mut dims = call.dims(0)?.to_vec();
    let sizes = lengths(call.sizes(1)?)?;
    let axes = match call.node.ints("axes") {
        Some(axes) => axes.iter().map(|axis| place(*axis as f64, dims.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    if axes.len() != sizes.len() {
        return Err("it has other sizes than axes".into());
    }
    distinct(&axes)?;
    axes.iter().zip(sizes).for_each(|(axis, size)| dims[*axis] = size);
    one(Bound::new(call.input(0)?.element, dims))
}

fn compress(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let Some(axis) = call.node.int("axis") else {
        return one(Bound::new(input.element, [Span::up_to(input.elements)]));
    };
    let mut dims = call.dims(0)?.to_vec();
    let axis = place(axis as f64, dims.len())?;
    dims[axis] = Span::up_to(dims[axis].max);
    one(Bound::new(input.element, dims))
}

fn concat(call: &Call<'_, '_>) -> Ruled {
    let inputs: Vec<&Bound> = call.inputs.iter().copied().flatten().collect();
    let first = inputs.first().ok_or("it has no input")?;
    let all: Option<Vec<&[Span]>> = inputs.iter().map(|input| input.dims.as_deref()).collect();
    let Some(all) = all else {
        let elements = inputs.iter().map(|input| input.elements).sum();
        return one(Bound { elements, dims: None, ..plain(first, first.element) });
    };
    let rank = all[0].len();
    if all.iter().any(|dims| dims.len() != rank) {
        return Err("it joins tensors of unlike dimensions".into());
    }
    let axis = call.axis(0, rank)?;
    // Beside the axis all lengths are equal, so the most certain one holds.
    let beside = |place: usize| {
        let certain = all.iter().map(|dims| dims[place]).find(|dim| dim.is_exact());
        certain.unwrap_or_else(|| all.iter().map(|dims| dims[place]).fold(all[0][place], Span::hull))
    };
    let along = all.iter().fold(Span::exact(0.0), |sum, dims| sum.plus(dims[axis]));
    let dims: Vec<Span> = (0..rank).map(|place| if place == axis { along } else { beside(place) }).collect();
    let values: Option<Vec<&[Span]>> = inputs.iter().map(|input| input.values.as_deref()).collect();
    let values = values.filter(|_| rank == 1 && along.max <= VALUES_MAX as f64).map(|lists| lists.concat());
    one(Bound::new(first.element, dims).with_values(values))
}

fn constant_of_shape(call: &Call<'_, '_>) -> Ruled {
    let dims = lengths(call.sizes(0)?)?;
    let (element, value) = match call.node.attribute("value") {
        None => (ElementType::Float32, Some(0.0)),
        Some(AttributeValue::Tensor(tensor)) => {
            (tensor.element, tensor.values.as_ref().and_then(|values| values.first().copied()))
        }
        Some(_) => return Err("its value is no tensor".into()),
    };
    one(filled(Bound::new(element, dims), value.map(Span::exact)))
}

/// A tensor that holds one number everywhere.
fn filled(bound: Bound, value: Option<Span>) -> Bound {
    let count = bound.elements;
    let values = value.filter(|_| bound.is_certain() && count <= VALUES_MAX as f64);
    bound.with_values(values.map(|value| vec![value; count as usize]))
}

fn blocks(rule: Rule, call: &Call<'_, '_>) -> Ruled {
    let [batch, channels, height, width] = call.dims(0)? else { return Err("it takes four dimensions".into()) };
    let block =
        Span::exact(call.node.int("blocksize").filter(|block| *block > 0).ok_or("it has no block size")? as f64);
    let area = block.times(block);
    let shrunk = |dim: &Span, by: Span| dim.over(by).map(|dim| dim.map(f64::floor)).unwrap_or(*dim);
    let dims = if rule == Rule::DepthToSpace {
        [*batch, shrunk(channels, area), height.times(block), width.times(block)]
    } else {
        [*batch, channels.times(area), shrunk(height, block), shrunk(width, block)]
    };
    one(Bound::new(call.input(0)?.element, dims))
}

fn expand(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let dims = stretched(call.dims(0)?, &lengths(call.sizes(1)?)?);
    if dims.len() > RANK_MAX {
        return Err(format!("it has {} dimensions", dims.len()));
    }
    let output = Bound::new(input.element, dims);
    let value = input.values.as_deref().filter(|values| values.len() == 1).map(|values| values[0]);
    one(filled(output, value))
}

fn flatten(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let Some(dims) = input.dims.as_deref() else { return one(Bound { values: None, ..input.clone() }) };
    let axis = call.node.int("axis").unwrap_or(1);
    let axis = if axis == dims.len() as i64 { dims.len() } else { place(axis as f64, dims.len().max(1))? };
    let product = |dims: &[Span]| dims.iter().fold(Span::exact(1.0), |product, dim| product.times(*dim));
    one(Bound::new(input.element, [product(&dims[..axis]), product(&dims[axis..])]))
}

fn non_zero(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let rank = input.dims.as_deref().map_or(Span::up_to(RANK_MAX as f64), |dims| Span::exact(dims.len().max(1) as f64));
    // What is known to be set, or not, is counted; the rest may be either.
    let found = match input.values.as_deref() {
        Some(values) => values.iter().fold(Span::exact(0.0), |count, value| {
            let may_be_zero = value.min <= 0.0 && value.max >= 0.0;
            let is_zero = value.min == 0.0 && value.max == 0.0;
            count.plus(Span::new(f64::from(u8::from(!may_be_zero)), f64::from(u8::from(!is_zero))))
        }),
        None => Span::up_to(input.elements),
    };
    let output = Bound::new(ElementType::Int64, [rank, found]);
    let positions = |values: &[Span]| {
        let set = values.iter().enumerate().filter(|(_, value)| value.min > 0.0 || value.max < 0.0);
        set.map(|(at, _)| Span::exact(at as f64)).collect::<Vec<_>>()
    };
    let is_list = input.dims.as_deref().is_some_and(|dims| dims.len() == 1);
    let values = input.values.as_deref().filter(|_| is_list && found.is_exact()).map(positions);
    Ok(Made { work: input.elements, outputs: vec![output.with_values(values)] })
}

fn one_hot(call: &Call<'_, '_>) -> Ruled {
    let mut dims = call.dims(0)?.to_vec();
    let depth = call.sizes(1)?.first().ok_or("it has no depth")?.length();
    let axis = call.node.int("axis").unwrap_or(-1);
    let axis = if axis == -1 { dims.len() } else { place(axis as f64, dims.len() + 1)? };
    dims.insert(axis, depth);
    one(Bound::new(call.input(2)?.element, dims))
}

fn pad(call: &Call<'_, '_>) -> Ruled {
    let mut dims = call.dims(0)?.to_vec();
    let pads = call.sizes(1)?;
    let axes = match call.values(3) {
        Some(axes) if axes.iter().all(|axis| axis.is_exact()) => {
            axes.iter().map(|axis| place(axis.min, dims.len())).collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err("its axes are computed from the picture".into()),
        None if call.optional(3).is_some_and(|axes| axes.elements > 0.0) => {
            return Err("its axes are computed from the picture".into());
        }
        None => (0..dims.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err("it has other pads than axes".into());
    }
    for (number, axis) in axes.iter().enumerate() {
        dims[*axis] = dims[*axis].plus(pads[number]).plus(pads[axes.len() + number]).length();
    }
    one(Bound::new(call.input(0)?.element, dims))
}

fn range(call: &Call<'_, '_>) -> Ruled {
    let number = |at: usize| -> Result<Span, String> { call.sizes(at)?.first().copied().ok_or("it has no end".into()) };
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let steps = limit.minus(start).over(delta).ok_or("its step may be nothing")?;
    let count = steps.map(f64::ceil).length();
    let output = Bound::new(call.input(0)?.element, [count]);
    let is_exact = start.is_exact() && delta.is_exact() && count.is_exact() && count.max <= VALUES_MAX as f64;
    let value = |number: usize| Span::exact(start.min + delta.min * number as f64);
    let values = is_exact.then(|| (0..count.max as usize).map(value).collect());
    one(output.with_numbers(values))
}

fn reshape(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let all = Span::new(least_elements(input), input.elements);
    let unknown = |dims| one(Bound { dims, ..plain(input, input.element) });
    let Some(target) = call.values(1) else {
        // No dimension has more than all values.
        let rank = call.optional(1).and_then(|target| target.dims.as_deref()).and_then(|dims| dims.first().copied());
        let rank = rank.filter(|rank| rank.is_exact() && rank.max <= RANK_MAX as f64);
        return unknown(rank.map(|rank| vec![Span::up_to(all.max); rank.max as usize].into()));
    };
    if target.len() > RANK_MAX {
        return Err(format!("it has {} dimensions; at most {RANK_MAX} are let in", target.len()));
    }
    let copies_zero = call.node.int("allowzero").unwrap_or(0) == 0;
    let from = input.dims.as_deref();
    let mut open = None;
    let mut dims = Vec::new();
    for (number, length) in target.iter().enumerate() {
        dims.push(match *length {
            rest if rest == Span::exact(-1.0) && open.is_none() => {
                open = Some(number);
                Span::exact(1.0)
            }
            zero if zero == Span::exact(0.0) && copies_zero => {
                from.and_then(|dims| dims.get(number).copied()).unwrap_or(Span::up_to(all.max))
            }
            length if length.is_exact() && length.min >= 0.0 => length,
            length if length.min >= 1.0 => Span::new(length.min, length.max.min(all.max.max(length.min))),
            _ => Span::up_to(all.max),
        });
    }
    if let Some(open) = open {
        let others = dims.iter().fold(Span::exact(1.0), |product, dim| product.times(*dim));
        dims[open] = if others.min >= 1.0 {
            Span::new((all.min / others.max).floor(), (all.max / others.min).floor())
        } else {
            Span::up_to(all.max)
        };
    }
    let output = Bound::new(input.element, dims);
    let elements = output.elements.min(input.elements);
    one(Bound { elements, ..output }.with_values(input.values.as_deref().map(<[Span]>::to_vec)))
}

/// Fewest values it can have.
fn least_elements(bound: &Bound) -> f64 {
    bound.dims.as_deref().map_or(0.0, |dims| dims.iter().fold(1.0, |product, dim| times(product, dim.min)))
}

fn shape(call: &Call<'_, '_>) -> Ruled {
    let dims = call.dims(0)?;
    let rank = dims.len() as i64;
    let end = |name: &str, default: i64| {
        let at = call.node.int(name).unwrap_or(default);
        usize::try_from(if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank)).unwrap_or(0)
    };
    let (start, stop) = (end("start", 0), end("end", rank));
    let dims = dims.get(start..stop.max(start)).unwrap_or(&[]).to_vec();
    one(Bound::new(ElementType::Int64, [Span::exact(dims.len() as f64)]).with_numbers(Some(dims)))
}

fn squeeze(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let values = input.values.as_deref().map(<[Span]>::to_vec);
    let Some(dims) = input.dims.as_deref() else { return one(plain(input, input.element)) };
    let left: Option<Vec<Span>> = match call.axes(1)? {
        Some(axes) => {
            let axes = places(&axes, dims.len())?;
            let left = dims.iter().enumerate().filter(|(number, _)| !axes.contains(number));
            Some(left.map(|(_, dim)| *dim).collect())
        }
        // Which dimensions are one long must be known.
        None if dims.iter().all(|dim| dim.is_exact() || dim.min > 1.0) => {
            Some(dims.iter().filter(|dim| dim.max != 1.0).copied().collect())
        }
        None => None,
    };
    one(match left {
        Some(left) => {
            let output = Bound::new(input.element, left);
            let elements = output.elements.min(input.elements);
            Bound { elements, ..output }.with_values(values)
        }
        None => Bound { dims: None, ..plain(input, input.element) },
    })
}

fn tile(call: &Call<'_, '_>) -> Ruled {
    let (dims, repeats) = (call.dims(0)?, call.sizes(1)?);
    if dims.len() != repeats.len() {
        return Err("it has other repeats than dimensions".into());
    }
    let dims: Vec<Span> = dims.iter().zip(repeats).map(|(dim, times)| dim.times(times.length())).collect();
    one(Bound::new(call.input(0)?.element, dims))
}

fn top_k(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let mut dims = call.dims(0)?.to_vec();
    let axis = call.axis(-1, dims.len())?;
    let whole = dims[axis];
    let kept = call.values(1).and_then(|values| values.first()).map(|kept| kept.length());
    dims[axis] = match kept {
        Some(kept) => Span::new(kept.min.min(whole.max), kept.max.min(whole.max)),
        None => Span::up_to(whole.max),
    };
    let (values, places) = (Bound::new(input.element, dims.clone()), Bound::new(ElementType::Int64, dims));
    Ok(Made { work: input.elements * 32.0, outputs: vec![values, places] })
}

fn unsqueeze(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let axes = call.axes(1)?.ok_or("it has no axes")?;
    let Some(dims) = input.dims.as_deref() else { return one(plain(input, input.element)) };
    let rank = dims.len() + axes.len();
    if rank > RANK_MAX {
        return Err(format!("it has {rank} dimensions; at most {RANK_MAX} are let in"));
    }
    let axes = places(&axes, rank)?;
    let mut rest = dims.iter();
    let longer = (0..rank).map(|number| {
        let dim = if axes.contains(&number) { None } else { rest.next().copied() };
        dim.unwrap_or(Span::exact(1.0))
    });
    let output = Bound::new(input.element, longer.collect::<Vec<_>>());
    let elements = output.elements.min(input.elements);
    one(Bound { elements, ..output }.with_values(input.values.as_deref().map(<[Span]>::to_vec)))
}
