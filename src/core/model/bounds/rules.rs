//! What each operator makes of its inputs, as the ONNX operator specifications say.

use super::{
    Bound, ElementType, Made, Node, Rule, Span, numbers, pictures, shapes,
    span::{self, times},
};
use crate::core::model::messages::AttributeValue;

/// Why a size cannot be told.
pub(super) type Ruled = Result<Made, String>;

/// A node as its rule sees it.
#[derive(Clone, Copy)]
pub(super) struct Call<'c, 'a> {
    pub node: &'c Node<'a>,
    pub inputs: &'c [Option<&'c Bound>],
}

impl<'c> Call<'c, '_> {
    /// An input that must be there.
    pub fn input(&self, at: usize) -> Result<&'c Bound, String> {
        self.optional(at).ok_or_else(|| format!("its input {at} is missing"))
    }

    pub fn optional(&self, at: usize) -> Option<&'c Bound> {
        self.inputs.get(at).copied().flatten()
    }

    /// The dimensions of an input that must be there.
    pub fn dims(&self, at: usize) -> Result<&'c [Span], String> {
        let dims = self.input(at)?.dims.as_deref();
        dims.ok_or_else(|| format!("it is not known how many dimensions its input {at} has"))
    }

    /// The numbers in an input, if they are known.
    pub fn values(&self, at: usize) -> Option<&'c [Span]> {
        self.optional(at)?.values.as_deref()
    }

    /// The numbers in an input that a size is made of.
    pub fn sizes(&self, at: usize) -> Result<&'c [Span], String> {
        self.values(at).ok_or_else(|| format!("its size is in input {at}, which is computed from the picture"))
    }

    /// The axes in an attribute or, in newer operator sets, in an input. None: there are none.
    pub fn axes(&self, at: usize) -> Result<Option<Vec<f64>>, String> {
        if let Some(axes) = self.node.ints("axes") {
            return Ok(Some(axes.iter().map(|axis| *axis as f64).collect()));
        }
        if self.optional(at).is_none_or(|input| input.elements == 0.0) {
            return Ok(None);
        }
        let axes = self.values(at).filter(|values| values.iter().all(|value| value.is_exact()));
        let axes = axes.ok_or_else(|| "its axes are computed from the picture".to_owned())?;
        Ok(Some(axes.iter().map(|axis| axis.min).collect()))
    }

    /// The attribute `axis`.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, String> {
        place(self.node.int("axis").unwrap_or(default) as f64, rank)
    }
}

/// The place that an axis means, counted from the end where it is negative.
pub(super) fn place(axis: f64, rank: usize) -> Result<usize, String> {
    let counted = if axis < 0.0 { axis + rank as f64 } else { axis };
    if counted >= 0.0 && counted < rank as f64 {
        Ok(counted as usize)
    } else {
        Err(format!("it has an axis {axis}, and {rank} dimensions"))
    }
}

/// Places of several axes, each once, in order.
pub(super) fn places(axes: &[f64], rank: usize) -> Result<Vec<usize>, String> {
    let mut places = axes.iter().map(|axis| place(*axis, rank)).collect::<Result<Vec<_>, _>>()?;
    places.sort_unstable();
    places.dedup();
    if places.len() == axes.len() { Ok(places) } else { Err("it has an axis twice".into()) }
}

/// One output that takes as many multiplications as it has values.
pub(super) fn one(output: Bound) -> Ruled {
    Ok(Made { work: output.elements, outputs: vec![output] })
}

/// What ONNX Runtime needs beside the outputs while it works: so many float32.
pub(super) fn scratch(numbers: f64) -> Bound {
    Bound::new(ElementType::Float32, [Span::exact(numbers)])
}

/// Applies a rule to a node.
pub(super) fn apply(rule: Rule, node: &Node<'_>, inputs: &[Option<&Bound>]) -> Ruled {
    let call = Call { node, inputs };
    match rule {
        Rule::Same => same(&call),
        Rule::Broadcast => broadcast(&call),
        Rule::Cast => cast(&call),
        Rule::Constant => constant(&call),
        Rule::DynamicQuantizeLinear => {
            let input = call.input(0)?;
            let quantised = plain(input, ElementType::Uint8);
            let scale = Bound::scalar(ElementType::Float32);
            Ok(Made { work: input.elements, outputs: vec![quantised, scale, Bound::scalar(ElementType::Uint8)] })
        }
        Rule::Normalization => {
            let input = call.input(0)?;
            let outputs = vec![plain(input, input.element); node.outputs.len().max(1)];
            Ok(Made { work: 4.0 * input.elements, outputs })
        }
        Rule::MatMul | Rule::QLinearMatMul => mat_mul(&call, rule),
        Rule::Gemm => gemm(&call),
        Rule::Einsum => einsum(&call),
        Rule::AffineGrid
        | Rule::Col2Im
        | Rule::Conv
        | Rule::ConvTranspose
        | Rule::GlobalPool
        | Rule::GridSample
        | Rule::MaxUnpool
        | Rule::NonMaxSuppression
        | Rule::Pool
        | Rule::QLinearConv
        | Rule::Resize
        | Rule::RoiAlign => pictures::apply(rule, &call),
        Rule::If => Err("its branches were not looked at".into()),
        _ => shapes::apply(rule, &call),
    }
}

/// A bound of the same size, of which no values are known.
pub(super) fn plain(input: &Bound, element: ElementType) -> Bound {
    Bound { element, values: None, is_constant: false, ..input.clone() }
}

fn same(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    // A type that is not followed is taken for the widest.
    let is_other = call.node.operator == "EyeLike" && call.node.int("dtype").is_some();
    let element = if is_other { ElementType::Float64 } else { input.element };
    let values = numbers::unary(call.node, call.inputs);
    let output = plain(input, element);
    let output =
        if call.node.operator == "Identity" { output.with_values(values) } else { output.with_numbers(values) };
    let neighbours = if call.node.operator == "LRN" { call.node.int("size").unwrap_or(1).max(1) as f64 } else { 1.0 };
    Ok(Made { work: times(output.elements, neighbours), outputs: vec![output] })
}

fn broadcast(call: &Call<'_, '_>) -> Ruled {
    let inputs: Vec<&Bound> = call.inputs.iter().copied().flatten().collect();
    let (first, rest) = inputs.split_first().ok_or("it has no input")?;
    let element = match call.node.operator {
        "And" | "Or" | "Xor" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => ElementType::Bool,
        "Where" => call.input(1)?.element,
        _ => first.element,
    };
    let mut dims = first.dims.as_deref().map(<[Span]>::to_vec);
    let mut elements = first.elements;
    for other in rest {
        // A dimension of one is stretched, so that a product is the most there can be.
        elements = times(elements.max(1.0), other.elements.max(1.0));
        dims = dims.zip(other.dims.as_deref()).map(|(a, b)| stretched(&a, b));
    }
    let output = match dims {
        Some(dims) => Bound::new(element, dims),
        None => Bound { element, dims: None, elements, values: None, is_constant: false },
    };
    one(output.with_numbers(numbers::broadcast(call.node, &inputs)))
}

/// Two shapes broadcast together.
pub(super) fn stretched(a: &[Span], b: &[Span]) -> Vec<Span> {
    let rank = a.len().max(b.len());
    let dim = |dims: &[Span], place: usize| (place + dims.len()).checked_sub(rank).map(|place| dims[place]);
    let both = |place| match (dim(a, place), dim(b, place)) {
        (Some(a), Some(b)) => a.broadcast(b),
        (one, other) => one.or(other).unwrap_or(Span::exact(1.0)),
    };
    (0..rank).map(both).collect()
}

fn cast(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let element = match call.node.operator {
        "Cast" => call.node.int("to").and_then(ElementType::of_code).ok_or("it casts to a type that is not let in")?,
        _ => call.input(1)?.element,
    };
    let output = plain(input, element);
    if call.node.operator == "DequantizeLinear" {
        return one(output);
    }
    if element == input.element {
        return one(output.with_values(input.values.as_deref().map(<[Span]>::to_vec)));
    }
    let convert = |value: &Span| match element {
        ElementType::Bool if value.is_exact() => Span::exact(f64::from(u8::from(value.min != 0.0))),
        ElementType::Bool => Span::up_to(1.0),
        integer if integer.is_integer() => value.map(f64::trunc),
        _ => *value,
    };
    let values = input.values.as_deref().map(|values| values.iter().map(convert).collect());
    one(output.with_numbers(values))
}

fn constant(call: &Call<'_, '_>) -> Ruled {
    let list =
        |element, values: Vec<Span>| Bound::new(element, [Span::exact(values.len() as f64)]).with_values(Some(values));
    let [attribute] = call.node.attributes.as_slice() else { return Err("it has not one value".into()) };
    one(match (attribute.name, &attribute.value) {
        ("value", AttributeValue::Tensor(tensor)) => Bound::of_tensor(tensor),
        ("value_int", AttributeValue::Int(value)) => {
            Bound::scalar(ElementType::Int64).with_values(Some(vec![Span::exact(*value as f64)]))
        }
        ("value_float", AttributeValue::Float(value)) => {
            Bound::scalar(ElementType::Float32).with_values(Some(vec![Span::exact((*value).into())]))
        }
        ("value_ints", AttributeValue::Ints(values)) => {
            list(ElementType::Int64, values.iter().map(|value| Span::exact(*value as f64)).collect())
        }
        ("value_floats", AttributeValue::Floats(values)) => {
            list(ElementType::Float32, values.iter().map(|value| Span::exact((*value).into())).collect())
        }
        _ => return Err("its value is of a kind that is not let in".into()),
    })
}

fn mat_mul(call: &Call<'_, '_>, rule: Rule) -> Ruled {
    let (left, right) = if rule == Rule::QLinearMatMul { (0, 3) } else { (0, 1) };
    let element = match call.node.operator {
        "MatMulInteger" => ElementType::Int32,
        _ => call.input(left)?.element,
    };
    let (a, b) = (call.dims(left)?, call.dims(right)?);
    let (Some((inner, before)), Some(_)) = (a.split_last(), b.first()) else {
        return Err("it multiplies a number".into());
    };
    let (batch_a, rows) = before.split_last().map_or((before, None), |(rows, batch)| (batch, Some(*rows)));
    let (batch_b, columns) = if b.len() == 1 { (&b[..0], None) } else { (&b[..b.len() - 2], b.last().copied()) };
    let mut dims = stretched(batch_a, batch_b);
    dims.extend(rows.into_iter().chain(columns));
    let output = Bound::new(element, dims);
    Ok(Made { work: times(output.elements, inner.max), outputs: vec![output] })
}

fn gemm(call: &Call<'_, '_>) -> Ruled {
    let (a, b) = (call.dims(0)?, call.dims(1)?);
    let ([a0, a1], [b0, b1]) = (a, b) else { return Err("its inputs are no matrices".into()) };
    let is_turned = |name| call.node.int(name).unwrap_or(0) != 0;
    let (rows, inner) = if is_turned("transA") { (a1, a0) } else { (a0, a1) };
    let columns = if is_turned("transB") { b0 } else { b1 };
    let output = Bound::new(call.input(0)?.element, [*rows, *columns]);
    Ok(Made { work: times(output.elements, inner.max), outputs: vec![output] })
}

fn einsum(call: &Call<'_, '_>) -> Ruled {
    let unknown = || "its equation is not followed".to_owned();
    let equation: String = call.node.text("equation").ok_or_else(unknown)?.split_whitespace().collect();
    let (terms, output) = equation.split_once("->").ok_or_else(unknown)?;
    let mut lengths: Vec<(char, Span)> = Vec::new();
    for (at, term) in terms.split(',').enumerate() {
        let dims = call.dims(at)?;
        if term.chars().count() != dims.len() || !term.chars().all(|label| label.is_ascii_alphabetic()) {
            return Err(unknown());
        }
        for (label, dim) in term.chars().zip(dims) {
            match lengths.iter_mut().find(|(known, _)| *known == label) {
                Some((_, length)) => *length = length.broadcast(*dim),
                None => lengths.push((label, *dim)),
            }
        }
    }
    let length = |label| lengths.iter().find(|(known, _)| *known == label).map(|(_, length)| *length);
    let dims: Option<Vec<Span>> = output.chars().map(length).collect();
    let output = Bound::new(call.input(0)?.element, dims.ok_or_else(unknown)?);
    let work = lengths.iter().fold(1.0, |product, (_, length)| span::times(product, length.max));
    let mut outputs = vec![output];
    if call.inputs.len() > 2 {
        // It goes pair by pair, over something in between that may have every dimension.
        outputs.push(scratch(work));
    }
    Ok(Made { work, outputs })
}
