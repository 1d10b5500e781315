//! The ONNX messages as far as a model is judged by them, borrowed from the file. Source: `onnx.proto` of ONNX 1.19.

use super::{element::ElementType, quoted};

/// `ModelProto`.
#[derive(Debug)]
pub struct Model<'a> {
    pub ir_version: i64,
    /// Domain and version.
    pub opsets: Vec<(&'a str, i64)>,
    pub producer: &'a str,
    pub producer_version: &'a str,
    pub properties: Vec<(&'a str, &'a str)>,
    pub graph: Graph<'a>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    pub initializers: Vec<Tensor<'a>>,
    pub inputs: Vec<ValueInfo<'a>>,
    pub outputs: Vec<ValueInfo<'a>>,
    pub values: Vec<ValueInfo<'a>>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub struct Node<'a> {
    pub name: &'a str,
    pub operator: &'a str,
    pub domain: &'a str,
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub attributes: Vec<Attribute<'a>>,
}

/// `AttributeProto`.
#[derive(Debug)]
pub struct Attribute<'a> {
    pub name: &'a str,
    pub value: AttributeValue<'a>,
}

#[derive(Debug)]
pub enum AttributeValue<'a> {
    Float(f32),
    Int(i64),
    Text(&'a [u8]),
    Tensor(Tensor<'a>),
    Graph(Box<Graph<'a>>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts,
}

/// `TensorProto`, without its data: how much there is, and what stands in a small one.
#[derive(Debug)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub element: ElementType,
    pub dims: Vec<u64>,
    pub elements: u64,
    /// Row by row, if they are at most [`super::VALUES_MAX`] and of a type that shapes are made of.
    pub values: Option<Vec<f64>>,
}

/// `ValueInfoProto` of a tensor.
#[derive(Debug)]
pub struct ValueInfo<'a> {
    pub name: &'a str,
    /// None: it declares no type.
    pub element: Option<ElementType>,
    /// None: it declares no shape. An open dimension is None.
    pub dims: Option<Vec<Option<u64>>>,
}

impl<'a> Node<'a> {
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|attribute| &attribute.value)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(AttributeValue::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(AttributeValue::Ints(values)) => Some(values),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name) {
            Some(AttributeValue::Text(value)) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// How a sentence calls it.
    pub fn called(&self) -> String {
        let name = if self.name.is_empty() { self.outputs.first().copied().unwrap_or("") } else { self.name };
        format!("{} {}", short(self.operator), quoted(name))
    }
}

fn short(operator: &str) -> String {
    operator.chars().filter(char::is_ascii_alphanumeric).take(40).collect()
}

impl AttributeValue<'_> {
    /// `AttributeProto.AttributeType`.
    pub fn kind(&self) -> i64 {
        match self {
            Self::Float(_) => 1,
            Self::Int(_) => 2,
            Self::Text(_) => 3,
            Self::Tensor(_) => 4,
            Self::Graph(_) => 5,
            Self::Floats(_) => 6,
            Self::Ints(_) => 7,
            Self::Texts => 8,
        }
    }
}
