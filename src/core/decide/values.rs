//! From one output value to one score: calibration, activation, and the value at which a score is reached.

use crate::core::recipe::{Activation, Method, Output};

pub(super) fn calibrated(method: Method, value: f32) -> f32 {
    match method {
        Method::Identity => value,
        Method::Temperature(temperature) => value / temperature,
        Method::Platt { slope, intercept } => value * slope + intercept,
    }
}

/// `1 / (1 + exp(-x))`, written with tanh so that nothing overflows.
pub(super) fn sigmoid(value: f32) -> f32 {
    0.5 * ((0.5 * value).tanh() + 1.0)
}

/// Calibration and activation of one value by itself; both never fall when the value rises.
pub(super) fn pointwise(method: Method, output: &Output) -> impl Fn(f32) -> f32 + Copy + 'static {
    let is_sigmoid = match output.activation {
        Activation::None => false,
        Activation::Sigmoid => true,
        Activation::Softmax => unreachable!("softmax needs all labels; the recipe allows it for no single value"),
    };
    move |value| {
        let value = calibrated(method, value);
        if is_sigmoid { sigmoid(value) } else { value }
    }
}

pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
        Activation::Softmax => softmax(values),
    }
}

/// Softmax with the largest value taken off first, so that no exponential overflows.
#[expect(clippy::cast_possible_truncation, reason = "a share of one")]
pub(super) fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    values.iter_mut().for_each(|value| *value = (f64::from(*value) / sum) as f32);
}

/// The smallest finite value whose score reaches `threshold`, found by halving the ordered floats, so that comparing a
/// value with it is exactly comparing the value's score with the threshold. `None` when no value reaches it.
pub(super) fn smallest_reaching(to_score: impl Fn(f32) -> f32, threshold: f32) -> Option<f32> {
    let reaches = |key: u32| to_score(from_ordered(key)) >= threshold;
    let (mut below, mut reached) = (ordered(f32::MIN), ordered(f32::MAX));
    if !reaches(reached) {
        return None;
    }
    if reaches(below) {
        return Some(f32::MIN);
    }
    while reached - below > 1 {
        let middle = below + (reached - below) / 2;
        if reaches(middle) { reached = middle } else { below = middle }
    }
    Some(from_ordered(reached))
}

/// Bits whose unsigned order is the numeric order.
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

fn from_ordered(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

/// The larger of two finite values, in one instruction: `f32::max` also looks for NaN.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}
