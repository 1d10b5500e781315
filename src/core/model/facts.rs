//! What a model that was let in is: for people, and for whoever stores, shows or compares models.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    bounds::Bounds,
    element::ElementType,
    messages::{AttributeValue, Graph, Model, ValueInfo},
};

/// What was found in a model file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    pub bytes: usize,
    pub ir_version: i64,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Who wrote the file, as it says itself, with the version. Not checked.
    pub producer: String,
    /// What is fed, without inputs that have a default.
    pub inputs: Vec<TensorFact>,
    pub outputs: Vec<TensorFact>,
    /// How often each operator stands in it, inner graphs counted in.
    pub operators: BTreeMap<String, usize>,
    /// Numbers in its constants: weights, nearly all of them.
    pub parameters: u64,
    /// Multiplications of one frame, at most.
    pub multiplications: u64,
    /// Bytes of the largest tensor that is computed, and the node that makes it.
    pub largest_tensor: (u64, String),
    /// Bytes computed from constants alone, while it loads.
    pub folded_bytes: u64,
    /// `metadata_props`, in the file's order. Not checked.
    pub metadata: Vec<(String, String)>,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorFact {
    pub name: String,
    pub element: Option<ElementType>,
    /// None: no shape is declared. An open dimension is None.
    pub dims: Option<Vec<Option<u64>>>,
    /// The operator that makes an output, not counting `Identity`; empty for an input or a constant.
    pub made_by: String,
}

impl TensorFact {
    fn of(info: &ValueInfo<'_>, made_by: &str) -> Self {
        let (name, made_by) = (info.name.to_owned(), made_by.to_owned());
        Self { name, element: info.element, dims: info.dims.clone(), made_by }
    }
}

/// The operator that makes each value, looked for through `Identity`.
fn makers<'a>(graph: &Graph<'a>) -> HashMap<&'a str, &'a str> {
    let mut makers = HashMap::new();
    for node in &graph.nodes {
        let passed_on = node.inputs.first().filter(|_| node.operator == "Identity").and_then(|input| makers.get(input));
        let operator = passed_on.copied().unwrap_or(node.operator);
        makers.extend(node.outputs.iter().map(|output| (*output, operator)));
    }
    makers
}

impl ModelFacts {
    /// Nodes of all graphs.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.operators.values().sum()
    }
}

pub(super) fn of_model(bytes: usize, model: &Model<'_>, opset: i64, bounds: &Bounds) -> ModelFacts {
    let graph = &model.graph;
    let defaults: HashSet<&str> = graph.initializers.iter().map(|tensor| tensor.name).collect();
    let mut counts = Counts::default();
    counts.graph(graph);
    let makers = makers(graph);
    ModelFacts {
        bytes,
        ir_version: model.ir_version,
        opset,
        producer: format!("{} {}", model.producer, model.producer_version).trim().to_owned(),
        inputs: graph
            .inputs
            .iter()
            .filter(|input| !defaults.contains(input.name))
            .map(|input| TensorFact::of(input, ""))
            .collect(),
        outputs: graph
            .outputs
            .iter()
            .map(|output| TensorFact::of(output, makers.get(output.name).copied().unwrap_or("")))
            .collect(),
        operators: counts.operators,
        parameters: counts.parameters,
        multiplications: bounds.work as u64,
        largest_tensor: (bounds.largest_bytes as u64, bounds.largest.clone()),
        folded_bytes: bounds.folded_bytes as u64,
        metadata: model.properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

#[derive(Default)]
struct Counts {
    operators: BTreeMap<String, usize>,
    parameters: u64,
}

impl Counts {
    fn graph(&mut self, graph: &Graph<'_>) {
        self.parameters += graph.initializers.iter().map(|tensor| tensor.elements).sum::<u64>();
        for node in &graph.nodes {
            *self.operators.entry(node.operator.to_owned()).or_default() += 1;
            for attribute in &node.attributes {
                match &attribute.value {
                    AttributeValue::Graph(inner) => self.graph(inner),
                    AttributeValue::Tensor(tensor) => self.parameters += tensor.elements,
                    _ => {}
                }
            }
        }
    }
}
