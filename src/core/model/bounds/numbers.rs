//! How the numbers that shapes are made of go through arithmetic. What is not known stays unknown.

use super::{Bound, ElementType, Span};
use crate::core::model::messages::Node;

/// Integers up to here are exact in `f64`; beyond, int64 arithmetic might wrap round and this one would not.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
const ANY_TRUTH: Span = Span { min: 0.0, max: 1.0 };

/// A computed number as its type holds it; None where the type would wrap round, round otherwise or give no number.
pub(super) fn settle(value: Span, element: ElementType) -> Option<Span> {
    let within = |min: f64, max: f64| (value.min >= min && value.max <= max).then_some(value);
    match element {
        #[expect(clippy::cast_possible_truncation, reason = "this is how float32 rounds")]
        ElementType::Float32 => Some(value.map(|end| f64::from(end as f32))).filter(Span::is_number),
        ElementType::Float64 => Some(value).filter(Span::is_number),
        ElementType::Int64 => within(-EXACT_MAX, EXACT_MAX),
        ElementType::Int32 => within(i32::MIN.into(), i32::MAX.into()),
        ElementType::Uint8 => within(0.0, 255.0),
        ElementType::Bool => within(0.0, 1.0),
        _ => None,
    }
}

/// The values of an operator of one input, number by number.
pub(super) fn unary(node: &Node<'_>, inputs: &[Option<&Bound>]) -> Option<Vec<Span>> {
    let values = inputs.first().copied().flatten()?.values.as_deref()?;
    let map = |function: fn(f64) -> f64| Some(values.iter().map(|value| value.map(function)).collect::<Vec<_>>());
    match node.operator {
        "Identity" => Some(values.to_vec()),
        "Floor" => map(f64::floor),
        "Ceil" => map(f64::ceil),
        "Round" => map(f64::round_ties_even),
        "Sqrt" => map(|value| value.max(0.0).sqrt()),
        "Relu" => map(|value| value.max(0.0)),
        "Neg" => Some(values.iter().map(|value| Span::new(-value.max, -value.min)).collect()),
        "Reciprocal" => values.iter().map(|value| Span::exact(1.0).over(*value)).collect(),
        "Abs" => Some(values.iter().map(absolute).collect()),
        "Not" => Some(values.iter().map(|value| Span::new(1.0 - value.max, 1.0 - value.min)).collect()),
        "Clip" if node.inputs.len() == 3 => {
            let bound = |at: usize, none: f64| match inputs.get(at).copied().flatten() {
                None => Some(Span::exact(none)),
                Some(bound) => bound.values.as_deref()?.first().copied(),
            };
            let (low, high) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
            let clip =
                |value: &Span| Span::new(value.min.max(low.min).min(high.min), value.max.max(low.max).min(high.max));
            Some(values.iter().map(clip).collect())
        }
        _ => None,
    }
}

fn absolute(value: &Span) -> Span {
    let ends = (value.min.abs(), value.max.abs());
    let holds_zero = value.min <= 0.0 && value.max >= 0.0;
    Span::new(if holds_zero { 0.0 } else { ends.0.min(ends.1) }, ends.0.max(ends.1))
}

/// The values of an operator whose inputs are broadcast: where they have as many, or one.
pub(super) fn broadcast(node: &Node<'_>, inputs: &[&Bound]) -> Option<Vec<Span>> {
    let lists: Option<Vec<&[Span]>> = inputs.iter().map(|input| input.values.as_deref()).collect();
    let lists = lists?;
    let length = lists.iter().map(|list| list.len()).max()?;
    if length == 0 || !lists.iter().all(|list| list.len() == 1 || list.len() == length) {
        return None;
    }
    // Lists of one length are the same list only where none is a column and none a row of the other.
    let ranks = inputs.iter().filter(|input| input.elements > 1.0).map(|input| input.dims.as_deref());
    let ranks: Vec<_> = ranks.collect();
    if ranks.windows(2).any(|pair| pair[0] != pair[1]) {
        return None;
    }
    let is_integer = inputs[0].element.is_integer();
    (0..length)
        .map(|number| {
            let operands: Vec<Span> = lists.iter().map(|list| list[if list.len() == 1 { 0 } else { number }]).collect();
            arithmetic(node.operator, &operands, is_integer)
        })
        .collect()
}

fn arithmetic(operator: &str, operands: &[Span], is_integer: bool) -> Option<Span> {
    if operator == "Where" {
        let [condition, then, otherwise] = operands else { return None };
        return Some(match (condition.is_exact(), condition.min == 0.0) {
            (true, false) => *then,
            (true, true) => *otherwise,
            (false, _) => then.hull(*otherwise),
        });
    }
    let (first, rest) = operands.split_first()?;
    rest.iter().try_fold(*first, |a, b| pair(operator, a, *b, is_integer))
}

fn pair(operator: &str, a: Span, b: Span, is_integer: bool) -> Option<Span> {
    let is_large = |span: Span| span.min < -EXACT_MAX || span.max > EXACT_MAX;
    if is_integer && (is_large(a) || is_large(b)) && !matches!(operator, "Min" | "Max") {
        return None;
    }
    let truth =
        |certain: Option<bool>| Some(certain.map_or(ANY_TRUTH, |holds| Span::exact(f64::from(u8::from(holds)))));
    let compare = |holds: fn(f64, f64) -> bool| truth((a.is_exact() && b.is_exact()).then(|| holds(a.min, b.min)));
    match operator {
        "Add" | "Sum" => Some(a.plus(b)),
        "Sub" => Some(a.minus(b)),
        "Mul" => Some(a.times(b)),
        "Div" => a.over(b).map(|quotient| if is_integer { quotient.map(f64::trunc) } else { quotient }),
        "Min" => Some(Span::new(a.min.min(b.min), a.max.min(b.max))),
        "Max" => Some(Span::new(a.min.max(b.min), a.max.max(b.max))),
        "Mod" if a.min >= 0.0 && b.min > 0.0 => {
            Some(if a.is_exact() && b.is_exact() { Span::exact(a.min % b.min) } else { Span::up_to(b.max) })
        }
        "Pow" if a.is_exact() && b.is_exact() => Some(Span::exact(a.min.powf(b.min))),
        "Equal" => compare(|a, b| a == b),
        "Greater" => compare(|a, b| a > b),
        "GreaterOrEqual" => compare(|a, b| a >= b),
        "Less" => compare(|a, b| a < b),
        "LessOrEqual" => compare(|a, b| a <= b),
        "And" => compare(|a, b| a != 0.0 && b != 0.0),
        "Or" => compare(|a, b| a != 0.0 || b != 0.0),
        "Xor" => compare(|a, b| (a != 0.0) != (b != 0.0)),
        _ => None,
    }
}

/// What a reduction makes of all values together.
pub(super) fn reduce(operator: &str, values: &[Span]) -> Option<Span> {
    let (first, rest) = values.split_first()?;
    let pair = |a: Span, b: &Span| match operator {
        "ReduceProd" => Some(a.times(*b)),
        "ReduceSum" => Some(a.plus(*b)),
        "ReduceMax" => Some(Span::new(a.min.max(b.min), a.max.max(b.max))),
        "ReduceMin" => Some(Span::new(a.min.min(b.min), a.max.min(b.max))),
        _ => None,
    };
    if rest.is_empty() && !matches!(operator, "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin") {
        return None;
    }
    rest.iter().try_fold(*first, pair)
}
