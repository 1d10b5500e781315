//! Reads an ONNX file: every message as far as a model is judged by it.
//!
//! A reader that is more generous than ONNX Runtime's would judge another model than the one that runs. So a field
//! that stands twice is refused (protobuf would merge or replace), and so is one that ONNX does not have.

use super::{
    ATTRIBUTES_MAX, ATTRIBUTES_PER_NODE_MAX, DOC_BYTES_MAX, INITIALIZER_BYTES_MAX, LINKS_MAX, LIST_ITEMS_MAX,
    ModelRefusal, NAME_BYTES_MAX, NODES_MAX, NUMBERS_MAX, PROPERTIES_MAX, RefusalKind, SUBGRAPH_DEPTH_MAX, TENSORS_MAX,
    data::{Data, product},
    element::ElementType,
    messages::{Attribute, AttributeValue, Graph, Model, Node, Tensor},
    quoted,
    wire::{self, Fields, Meter, Wire, WireError},
};

type Result<T> = std::result::Result<T, ModelRefusal>;

/// Reads a whole file.
///
/// # Errors
/// [`ModelRefusal`]: no ONNX model, or one beyond the bounds of this module's parent.
pub fn read(bytes: &[u8]) -> Result<Model<'_>> {
    let meter = Meter::default();
    let mut reader = Reader {
        meter: &meter,
        nodes: 0,
        attributes: 0,
        links: 0,
        numbers: 0,
        tensors: 0,
        infos: 0,
        initializer_bytes: 0,
    };
    reader.model(bytes)
}

/// What was read so far of a file.
pub(super) struct Reader<'m> {
    meter: &'m Meter,
    nodes: usize,
    attributes: usize,
    links: usize,
    numbers: usize,
    tensors: usize,
    pub infos: usize,
    initializer_bytes: u64,
}

/// Refuses a second occurrence of the fields that stand once.
pub(super) struct Once {
    message: &'static str,
    seen: u32,
}

impl Once {
    pub fn new(message: &'static str) -> Self {
        Self { message, seen: 0 }
    }

    pub fn see(&mut self, field: u32) -> Result<()> {
        let bit = 1_u32.checked_shl(field).unwrap_or(0);
        if self.seen & bit != 0 {
            let message = self.message;
            return Err(refuse(RefusalKind::NotOnnx, format!("field {field} of {message} stands twice")));
        }
        self.seen |= bit;
        Ok(())
    }

    pub fn unknown<T>(&self, field: u32) -> Result<T> {
        let message = self.message;
        Err(refuse(RefusalKind::NotOnnx, format!("{message} has a field {field}, which ONNX does not know")))
    }
}

impl<'m> Reader<'m> {
    pub fn fields<'a>(&self, message: &'a [u8]) -> Fields<'a, 'm> {
        Fields::new(message, self.meter)
    }

    fn model<'a>(&mut self, bytes: &'a [u8]) -> Result<Model<'a>> {
        let mut once = Once::new("the model");
        let (mut ir_version, mut graph) = (None, None);
        let (mut producer, mut producer_version, mut opsets, mut properties) = ("", "", Vec::new(), Vec::new());
        for field in self.fields(bytes) {
            let (number, value) = field?;
            match number {
                1 | 5 => {
                    once.see(number)?;
                    let version = value.int()?;
                    if number == 1 {
                        ir_version = Some(version);
                    }
                }
                2..=4 => {
                    once.see(number)?;
                    let text = text(value, NAME_BYTES_MAX, "a name of the model")?;
                    match number {
                        2 => producer = text,
                        3 => producer_version = text,
                        _ => {}
                    }
                }
                6 => {
                    once.see(number)?;
                    text(value, DOC_BYTES_MAX, "the model's doc string").map(drop)?;
                }
                7 => {
                    once.see(number)?;
                    graph = Some(self.graph(value.bytes()?, 0)?);
                }
                8 => {
                    bounded(opsets.len(), PROPERTIES_MAX, "operator sets")?;
                    opsets.push(self.opset(value.bytes()?)?);
                }
                14 => {
                    bounded(properties.len(), PROPERTIES_MAX, "metadata properties")?;
                    properties.push(self.property(value.bytes()?)?);
                }
                20 => return Err(refuse(RefusalKind::Structure, "it carries training steps; export it for inference")),
                25 => {
                    let reason = "it defines functions of its own; inline them (`onnx.inliner.inline_local_functions`)";
                    return Err(refuse(RefusalKind::Structure, reason));
                }
                26 => return Err(refuse(RefusalKind::Structure, "it is laid out for several devices")),
                other => return once.unknown(other),
            }
        }
        let graph = graph.ok_or_else(|| refuse(RefusalKind::NotOnnx, "it has no graph"))?;
        let ir_version = ir_version.ok_or_else(|| refuse(RefusalKind::NotOnnx, "it has no IR version"))?;
        Ok(Model { ir_version, opsets, producer, producer_version, properties, graph })
    }

    fn opset<'a>(&self, bytes: &'a [u8]) -> Result<(&'a str, i64)> {
        let mut once = Once::new("an operator set");
        let (mut domain, mut version) = ("", 0);
        for field in self.fields(bytes) {
            let (number, value) = field?;
            once.see(number)?;
            match number {
                1 => domain = text(value, NAME_BYTES_MAX, "a domain")?,
                2 => version = value.int()?,
                other => return once.unknown(other),
            }
        }
        Ok((domain, version))
    }

    fn property<'a>(&self, bytes: &'a [u8]) -> Result<(&'a str, &'a str)> {
        let mut once = Once::new("a property");
        let mut entry = ("", "");
        for field in self.fields(bytes) {
            let (number, value) = field?;
            once.see(number)?;
            match number {
                1 => entry.0 = text(value, NAME_BYTES_MAX, "a property's key")?,
                2 => entry.1 = text(value, DOC_BYTES_MAX, "a property's value")?,
                other => return once.unknown(other),
            }
        }
        Ok(entry)
    }

    fn graph<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<Graph<'a>> {
        if depth > SUBGRAPH_DEPTH_MAX {
            return Err(refuse(
                RefusalKind::Size,
                format!("its graphs are nested deeper than {SUBGRAPH_DEPTH_MAX} levels"),
            ));
        }
        let mut once = Once::new("a graph");
        let mut graph = Graph::default();
        for field in self.fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => {
                    count(&mut self.nodes, NODES_MAX, "nodes")?;
                    graph.nodes.push(self.node(value.bytes()?, depth)?);
                }
                2 => {
                    once.see(number)?;
                    text(value, NAME_BYTES_MAX, "a graph's name")?;
                }
                5 => graph.initializers.push(self.tensor(value.bytes()?)?),
                10 => {
                    once.see(number)?;
                    text(value, DOC_BYTES_MAX, "a graph's doc string")?;
                }
                11 => graph.inputs.push(self.value_info(value.bytes()?)?),
                12 => graph.outputs.push(self.value_info(value.bytes()?)?),
                13 => graph.values.push(self.value_info(value.bytes()?)?),
                // Quantisation notes and properties are for tools; their fields have no meaning here.
                14 | 16 => drop(value.bytes()?),
                15 => {
                    let reason = "it has a sparse initializer, which becomes as large as it likes; store it densely";
                    return Err(refuse(RefusalKind::Tensor, reason));
                }
                other => return once.unknown(other),
            }
        }
        Ok(graph)
    }

    fn node<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<Node<'a>> {
        let mut once = Once::new("a node");
        let mut node = Node::default();
        for field in self.fields(bytes) {
            let (number, value) = field?;
            if !matches!(number, 1 | 2 | 5 | 9 | 10) {
                once.see(number)?;
            }
            match number {
                1 | 2 => {
                    count(&mut self.links, LINKS_MAX, "inputs and outputs of nodes")?;
                    let list = if number == 1 { &mut node.inputs } else { &mut node.outputs };
                    bounded(list.len(), LIST_ITEMS_MAX, "inputs or outputs of one node")?;
                    list.push(text(value, NAME_BYTES_MAX, "a value's name")?);
                }
                3 => node.name = text(value, NAME_BYTES_MAX, "a node's name")?,
                4 => node.operator = text(value, NAME_BYTES_MAX, "an operator's name")?,
                5 => {
                    count(&mut self.attributes, ATTRIBUTES_MAX, "attributes")?;
                    bounded(node.attributes.len(), ATTRIBUTES_PER_NODE_MAX, "attributes of one node")?;
                    let attribute = self.attribute(value.bytes()?, depth)?;
                    if node.attribute(attribute.name).is_some() {
                        let reason = format!("a node has the attribute {} twice", quoted(attribute.name));
                        return Err(refuse(RefusalKind::Structure, reason));
                    }
                    node.attributes.push(attribute);
                }
                6 => text(value, DOC_BYTES_MAX, "a node's doc string").map(drop)?,
                7 => node.domain = text(value, NAME_BYTES_MAX, "a domain")?,
                8 => {
                    if !value.bytes()?.is_empty() {
                        return Err(refuse(RefusalKind::Structure, "a node names an overload of a function"));
                    }
                }
                9 => drop(value.bytes()?),
                10 => return Err(refuse(RefusalKind::Structure, "a node is laid out for several devices")),
                other => return once.unknown(other),
            }
        }
        Ok(node)
    }

    fn attribute<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<Attribute<'a>> {
        let mut once = Once::new("an attribute");
        let (mut name, mut kind, mut found) = ("", None, None);
        let (mut floats, mut ints) = (Vec::new(), Vec::new());
        for field in self.fields(bytes) {
            let (number, value) = field?;
            if !matches!(number, 7..=9) {
                once.see(number)?;
            }
            match number {
                1 => name = text(value, NAME_BYTES_MAX, "an attribute's name")?,
                2 => found = Some(AttributeValue::Float(value.float()?)),
                3 => found = Some(AttributeValue::Int(value.int()?)),
                4 => found = Some(AttributeValue::Text(bytes_up_to(value, DOC_BYTES_MAX, "an attribute's text")?)),
                5 => found = Some(AttributeValue::Tensor(self.tensor(value.bytes()?)?)),
                6 => found = Some(AttributeValue::Graph(Box::new(self.graph(value.bytes()?, depth + 1)?))),
                7 => {
                    self.list_fits(value, floats.len(), 4)?;
                    wire::each_float(value, |one| floats.push(one))?;
                }
                8 => {
                    self.list_fits(value, ints.len(), 1)?;
                    wire::each_int(value, |one| ints.push(one))?;
                }
                9 => {
                    bytes_up_to(value, NAME_BYTES_MAX, "an attribute's text")?;
                    found = Some(AttributeValue::Texts);
                }
                13 => text(value, DOC_BYTES_MAX, "an attribute's doc string").map(drop)?,
                20 => kind = Some(value.int()?),
                10 | 11 | 14 | 15 | 22 | 23 => {
                    let reason = format!("attribute {} is of a kind that no operator here takes", quoted(name));
                    return Err(refuse(RefusalKind::Structure, reason));
                }
                21 => {
                    let reason = format!("attribute {} refers to a function's, outside of one", quoted(name));
                    return Err(refuse(RefusalKind::Structure, reason));
                }
                other => return once.unknown(other),
            }
        }
        let wrong = |what: &str| refuse(RefusalKind::Structure, format!("attribute {} {what}", quoted(name)));
        let lists = usize::from(!floats.is_empty()) + usize::from(!ints.is_empty());
        let value = match (kind, found) {
            (Some(6), None) if ints.is_empty() => AttributeValue::Floats(floats),
            (Some(7), None) if floats.is_empty() => AttributeValue::Ints(ints),
            (Some(8), None) if lists == 0 => AttributeValue::Texts,
            (Some(kind), Some(found)) if lists == 0 && found.kind() == kind => found,
            // What protobuf leaves out is zero or empty.
            (Some(1), None) if lists == 0 => AttributeValue::Float(0.0),
            (Some(2), None) if lists == 0 => AttributeValue::Int(0),
            (Some(3), None) if lists == 0 => AttributeValue::Text(b""),
            (Some(_), _) => return Err(wrong("holds something else than its type says")),
            (None, _) => return Err(wrong("says no type")),
        };
        Ok(Attribute { name, value })
    }

    fn tensor<'a>(&mut self, bytes: &'a [u8]) -> Result<Tensor<'a>> {
        count(&mut self.tensors, TENSORS_MAX, "tensors")?;
        let mut once = Once::new("a tensor");
        let (mut name, mut data_type, mut dims) = ("", 0, Vec::new());
        let (mut data, mut is_external) = (Data::default(), false);
        for field in self.fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => {
                    self.list_fits(value, dims.len(), 1)?;
                    wire::each_int(value, |dim| dims.push(dim))?;
                }
                2 => {
                    once.see(number)?;
                    data_type = value.int()?;
                }
                3 => return Err(refuse(RefusalKind::Tensor, "it has a tensor in segments")),
                4 | 5 | 6 | 7 | 10 | 11 => data.typed(number, value)?,
                8 => {
                    once.see(number)?;
                    name = text(value, NAME_BYTES_MAX, "a tensor's name")?;
                }
                9 => {
                    once.see(number)?;
                    data.raw = Some(value.bytes()?);
                }
                12 => {
                    once.see(number)?;
                    text(value, DOC_BYTES_MAX, "a tensor's doc string")?;
                }
                13 => is_external = true,
                14 => {
                    once.see(number)?;
                    is_external |= value.int()? != 0;
                }
                16 => drop(value.bytes()?),
                other => return once.unknown(other),
            }
        }
        let wrong = |what: String| refuse(RefusalKind::Tensor, format!("tensor {} {what}", quoted(name)));
        if is_external {
            let what = "lies in another file. A model is one file with one digest here: merge it, in Python \
                        `onnx.save(onnx.load(\"model.onnx\"), \"whole.onnx\")`";
            return Err(refuse(RefusalKind::ExternalData, format!("tensor {} {what}", quoted(name))));
        }
        let element = ElementType::of_code(data_type).ok_or_else(|| {
            wrong(format!("has data type {data_type}; known are numbers of 8 to 64 bits and truth values"))
        })?;
        let (dims, elements) = product(&dims).map_err(wrong)?;
        data.check(element, elements).map_err(wrong)?;
        self.initializer_bytes = self.initializer_bytes.saturating_add(elements.saturating_mul(element.bytes()));
        if self.initializer_bytes > INITIALIZER_BYTES_MAX {
            let reason = format!("its constants take more than {INITIALIZER_BYTES_MAX} bytes");
            return Err(refuse(RefusalKind::Size, reason));
        }
        let values = data.values(element, elements);
        Ok(Tensor { name, element, dims, elements, values })
    }

    /// Whether one more occurrence of a list keeps it within its bounds, before it is read.
    fn list_fits(&mut self, value: Wire<'_>, so_far: usize, item_bytes: usize) -> Result<()> {
        let more = match value {
            Wire::Bytes(packed) => packed.len() / item_bytes,
            _ => 1,
        };
        bounded(so_far + more, LIST_ITEMS_MAX + 1, "numbers in one list")?;
        self.numbers += more;
        bounded(self.numbers, NUMBERS_MAX + 1, "numbers in its lists")
    }
}

pub(super) fn text<'a>(value: Wire<'a>, bytes_max: usize, what: &str) -> Result<&'a str> {
    let bytes = bytes_up_to(value, bytes_max, what)?;
    std::str::from_utf8(bytes).map_err(|_| refuse(RefusalKind::NotOnnx, format!("{what} is not UTF-8")))
}

fn bytes_up_to<'a>(value: Wire<'a>, bytes_max: usize, what: &str) -> Result<&'a [u8]> {
    let bytes = value.bytes()?;
    if bytes.len() > bytes_max {
        let reason = format!("{what} has {} bytes; at most {bytes_max} are let in", bytes.len());
        return Err(refuse(RefusalKind::Size, reason));
    }
    Ok(bytes)
}

pub(super) fn count(counted: &mut usize, max: usize, what: &str) -> Result<()> {
    bounded(*counted, max, what)?;
    *counted += 1;
    Ok(())
}

/// Whether one more fits.
pub(super) fn bounded(so_far: usize, max: usize, what: &str) -> Result<()> {
    if so_far < max {
        return Ok(());
    }
    Err(refuse(RefusalKind::Size, format!("it has more than {max} {what}")))
}

pub(super) fn refuse(kind: RefusalKind, reason: impl Into<String>) -> ModelRefusal {
    ModelRefusal::new(kind, reason)
}

impl From<WireError> for ModelRefusal {
    fn from(error: WireError) -> Self {
        let kind = if error == WireError::TooManyFields { RefusalKind::Size } else { RefusalKind::NotOnnx };
        Self::new(kind, error.to_string())
    }
}
