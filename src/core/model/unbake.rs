//! Takes anomalib's scaled scores apart: finds the tail that its post-processor left in the graph, and gives out what goes into it, too.
//!
//! The tail is `clamp((raw - threshold) / range + 0.5, 0, 1)` (`PostProcessor._normalize` in anomalib 2), where the threshold was found in
//! validation and the range is that of the scores then. Behind the clamp two very bad parts look alike, and another threshold cannot be
//! chosen beyond it. Nothing is taken out of the file: nodes, outputs and properties are added behind those that are there, and
//! every other byte stays as it is.

use std::collections::HashMap;

use super::{
    ModelRefusal, check,
    messages::{AttributeValue, Graph, Node, Tensor},
    proto, quoted,
    wire::{Fields, Meter, WireError},
};
use crate::types::Blake3Digest;

/// The outputs whose tails are looked for, and the names under which what goes into them is given out.
pub const RAW_OUTPUTS: [(&str, &str); 2] = [("pred_score", "raw_pred_score"), ("anomaly_map", "raw_anomaly_map")];
/// The property that holds the digest of the file it was made from.
pub const FROM_PROPERTY: &str = "lineproof.unbaked_from";

/// The property that holds the threshold, on the raw scale, of a raw output.
#[must_use]
pub fn threshold_property(raw: &str) -> String {
    format!("lineproof.{raw}.threshold")
}

/// A file with raw outputs.
#[derive(Debug, PartialEq)]
pub struct Unbaked {
    pub bytes: Vec<u8>,
    pub from: Blake3Digest,
    pub digest: Blake3Digest,
    pub outputs: Vec<RawOutput>,
}

/// An output that was added.
#[derive(Clone, Debug, PartialEq)]
pub struct RawOutput {
    pub name: &'static str,
    /// The scaled output.
    pub of: &'static str,
    /// The value in the graph that is given out.
    pub value: String,
    /// Raw score that the tail makes 0.5.
    pub threshold: f32,
    /// Raw scores this far apart become 1 apart.
    pub range: f32,
    /// The operators of the tail, from the raw value on.
    pub tail: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnbakeError {
    #[error("{0}")]
    Refused(#[from] ModelRefusal),
    #[error("it has no output {0}, so it is no model of anomalib 2 that locates anomalies")]
    NoOutput(&'static str),
    #[error("{0} is not scaled and cut in this graph as anomalib does it; there is nothing to take apart")]
    NotBaked(&'static str),
    #[error("it has a value {0} already")]
    HasRaw(&'static str),
}

/// Adds the raw score and the raw map to the outputs of a model.
///
/// # Errors
/// [`UnbakeError`] when it is not let in, or has no such tail.
pub fn unbake(bytes: &[u8]) -> Result<Unbaked, UnbakeError> {
    check(bytes, None)?;
    let model = proto::read(bytes)?;
    let tails = Tails::of(&model.graph);
    let mut outputs = Vec::new();
    for (of, name) in RAW_OUTPUTS {
        if !model.graph.outputs.iter().any(|output| output.name == of) {
            return Err(UnbakeError::NoOutput(of));
        }
        if tails.makers.contains_key(name) {
            return Err(UnbakeError::HasRaw(name));
        }
        outputs.push(tails.find(of, name).ok_or(UnbakeError::NotBaked(of))?);
    }
    let from = Blake3Digest::of(bytes);
    let bytes = spliced(bytes, from, &outputs).map_err(ModelRefusal::from)?;
    Ok(Unbaked { digest: Blake3Digest::of(&bytes), bytes, from, outputs })
}

/// Where values come from.
struct Tails<'g> {
    makers: HashMap<&'g str, &'g Node<'g>>,
    /// Constants of one number.
    constants: HashMap<&'g str, f64>,
}

impl<'g> Tails<'g> {
    fn of(graph: &'g Graph<'g>) -> Self {
        let makers =
            graph.nodes.iter().flat_map(|node| node.outputs.iter().map(move |output| (*output, node))).collect();
        let number =
            |tensor: &Tensor<'_>| tensor.values.as_deref().and_then(|values| <[f64; 1]>::try_from(values).ok());
        let mut constants: HashMap<&str, f64> = HashMap::new();
        constants.extend(graph.initializers.iter().filter_map(|tensor| Some((tensor.name, number(tensor)?[0]))));
        for node in graph.nodes.iter().filter(|node| node.operator == "Constant") {
            if let (Some(AttributeValue::Tensor(tensor)), Some(output)) =
                (node.attribute("value"), node.outputs.first())
            {
                constants.extend(number(tensor).map(|[value]| (*output, value)));
            }
        }
        Self { makers, constants }
    }

    fn constant(&self, name: Option<&&str>) -> Option<f64> {
        self.constants.get(*name?).copied()
    }

    /// The tail of an output, from behind.
    fn find(&self, of: &'static str, name: &'static str) -> Option<RawOutput> {
        let mut tail = Vec::new();
        let mut at = of;
        let added = loop {
            let node = self.makers.get(at)?;
            tail.push(node.called());
            at = match (node.operator, node.inputs.as_slice()) {
                ("Identity", [input]) => input,
                // Whether limits are known and differ was decided at export.
                ("Where", [condition, yes, no]) => {
                    if self.constant(Some(condition))? == 0.0 {
                        no
                    } else {
                        yes
                    }
                }
                ("Clip", [input, least, most]) if self.is(least, 0.0) && self.is(most, 1.0) => break *input,
                _ => return None,
            };
        };
        let (shifted, half) = self.operands("Add", added, &mut tail)?;
        let (divided, range) = self.operands("Div", shifted, &mut tail).filter(|_| half == 0.5)?;
        let (value, threshold) = self.operands("Sub", divided, &mut tail)?;
        tail.reverse();
        #[expect(clippy::cast_possible_truncation, reason = "they are float32 in the file")]
        let (threshold, range) = (threshold as f32, range as f32);
        let is_sound = threshold.is_finite() && range.is_finite() && range > 0.0;
        is_sound.then(|| RawOutput { name, of, value: value.to_owned(), threshold, range, tail })
    }

    fn is(&self, name: &&str, value: f64) -> bool {
        self.constant(Some(name)) == Some(value)
    }

    /// The value and the constant that this operator makes `at` from.
    fn operands(&self, operator: &str, at: &'g str, tail: &mut Vec<String>) -> Option<(&'g str, f64)> {
        let node = self.makers.get(at).filter(|node| node.operator == operator)?;
        tail.push(node.called());
        match node.inputs.as_slice() {
            [value, constant] => Some((*value, self.constant(Some(constant))?)),
            _ => None,
        }
    }
}

/// The file with what is added behind what is there: in the graph, and in the model.
fn spliced(bytes: &[u8], from: Blake3Digest, outputs: &[RawOutput]) -> Result<Vec<u8>, WireError> {
    const GRAPH: u32 = 7;
    let meter = Meter::default();
    let mut fields = Fields::new(bytes, &meter);
    let mut file = Vec::with_capacity(bytes.len() + 4096);
    loop {
        let start = bytes.len() - fields.left();
        let Some(field) = fields.next() else { break };
        let (number, value) = field?;
        if number == GRAPH {
            let graph = value.bytes()?;
            let mut added = Vec::new();
            for output in outputs {
                put(&mut added, 1, &identity(output));
                put(&mut added, 12, &declared(graph, output, &meter)?);
            }
            put(&mut file, GRAPH, &[graph, &added].concat());
        } else {
            file.extend_from_slice(&bytes[start..bytes.len() - fields.left()]);
        }
    }
    put_property(&mut file, FROM_PROPERTY, &from.to_string());
    for output in outputs {
        put_property(&mut file, &threshold_property(output.name), &format!("{:?}", output.threshold));
    }
    Ok(file)
}

/// `NodeProto` that gives a value another name.
fn identity(output: &RawOutput) -> Vec<u8> {
    let mut node = Vec::new();
    put(&mut node, 1, output.value.as_bytes());
    put(&mut node, 2, output.name.as_bytes());
    put(&mut node, 3, format!("lineproof/{}", output.name).as_bytes());
    put(&mut node, 4, b"Identity");
    node
}

/// `ValueInfoProto` of a raw output: scaling changes neither type nor shape.
fn declared(graph: &[u8], output: &RawOutput, meter: &Meter) -> Result<Vec<u8>, WireError> {
    let mut info = Vec::new();
    put(&mut info, 1, output.name.as_bytes());
    for field in Fields::new(graph, meter) {
        let (12, value) = field? else { continue };
        let of: Vec<_> = Fields::new(value.bytes()?, meter).collect::<Result<_, _>>()?;
        let is_named = of.iter().any(|(number, value)| *number == 1 && value.bytes() == Ok(output.of.as_bytes()));
        if is_named {
            for (_, value) in of.iter().filter(|(number, _)| *number == 2) {
                put(&mut info, 2, value.bytes()?);
            }
        }
    }
    Ok(info)
}

fn put_property(file: &mut Vec<u8>, key: &str, value: &str) {
    let mut entry = Vec::new();
    put(&mut entry, 1, key.as_bytes());
    put(&mut entry, 2, value.as_bytes());
    put(file, 14, &entry);
}

/// A field of bytes.
fn put(message: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(message, u64::from(field) << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        message.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    message.push(value as u8);
}

impl RawOutput {
    /// The difference for people.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { name, of, value, threshold, range, tail } = self;
        format!(
            "+ Identity {} -> {name}, and {name} is an output\n  {of} = clamp(({name} - {threshold:?}) / {range:?} + 0.5, 0, 1), by {}\n",
            quoted(value),
            tail.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAKED: &[u8] = include_bytes!("../../../tests/vectors/skew/anomalib/model.onnx");

    #[test]
    fn the_raw_values_of_an_export_by_anomalib_are_given_out() {
        let unbaked = unbake(BAKED).unwrap();
        let [score, map] = unbaked.outputs.as_slice() else { panic!("{:?}", unbaked.outputs) };
        assert_eq!((score.value.as_str(), map.value.as_str()), ("amax", "upsample_bilinear2d"));
        assert_eq!((score.threshold, score.range), (map.threshold, map.range));
        let operators: Vec<&str> = score.tail.iter().map(|node| node.split(' ').next().unwrap()).collect();
        assert_eq!(operators, ["Sub", "Div", "Add", "Clip", "Where", "Where"]);
        assert_eq!((unbaked.from, unbaked.digest), (Blake3Digest::of(BAKED), Blake3Digest::of(&unbaked.bytes)));

        let (before, after) = (check(BAKED, None).unwrap(), check(&unbaked.bytes, None).unwrap());
        assert_eq!(after.outputs[..4], before.outputs);
        assert_eq!(after.outputs[4].dims, before.outputs[0].dims);
        let properties = &after.metadata[before.metadata.len()..];
        assert_eq!(properties[0], (FROM_PROPERTY.to_owned(), unbaked.from.to_string()));
        assert_eq!(properties[1].1.parse(), Ok(score.threshold));
        assert_eq!(unbake(&unbaked.bytes), Err(UnbakeError::HasRaw("raw_pred_score")));
    }

    #[test]
    fn every_other_byte_stays() {
        let unbaked = unbake(BAKED).unwrap().bytes;
        let meter = Meter::default();
        let read = |bytes: &'static [u8]| Fields::new(bytes, &meter).collect::<Result<Vec<_>, _>>().unwrap();
        let (before, after) = (read(BAKED), read(Box::leak(unbaked.into_boxed_slice())));
        for (before, after) in before.iter().zip(&after) {
            if before.0 == 7 {
                assert!(after.1.bytes().unwrap().starts_with(before.1.bytes().unwrap()));
            } else {
                assert_eq!(before, after);
            }
        }
        assert_eq!(after.len(), before.len() + 3);
    }

    #[test]
    fn a_graph_without_the_tail_is_left_alone() {
        let plain = include_bytes!("../../../tests/vectors/skew/smp-segment/model.onnx");
        assert_eq!(unbake(plain), Err(UnbakeError::NoOutput("pred_score")));
        // Another operator in the clamp's place makes it another function.
        let mut other = BAKED.to_vec();
        let places: Vec<usize> = (0..other.len() - 4).filter(|at| other[*at..].starts_with(b"Clip")).collect();
        places.iter().for_each(|at| other[*at..at + 4].copy_from_slice(b"Mean"));
        assert_eq!(unbake(&other), Err(UnbakeError::NotBaked("pred_score")));
    }
}
