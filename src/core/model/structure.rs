//! Whether a graph is whole: every value is made once, before it is used, and every declared shape is within bounds.

use std::collections::HashSet;

use super::{
    ModelRefusal, RefusalKind, TENSOR_BYTES_MAX,
    messages::{AttributeValue, Graph, ValueInfo},
    quoted,
};

/// Checks the main graph and the graphs in it.
pub(super) fn check(graph: &Graph<'_>) -> Result<(), ModelRefusal> {
    // One inner graph is enough to shadow a name; ONNX wants every name once in all of them.
    let mut made = HashSet::new();
    check_graph(graph, &mut made)?;
    Ok(())
}

fn check_graph<'a>(graph: &Graph<'a>, made: &mut HashSet<&'a str>) -> Result<(), ModelRefusal> {
    let twice = |name: &str| refuse(format!("value {} is made twice", quoted(name)));
    let mut own = Vec::new();
    let mut make = |name: &'a str, made: &mut HashSet<&'a str>| {
        own.push(name);
        if made.insert(name) { Ok(()) } else { Err(twice(name)) }
    };
    for input in &graph.inputs {
        make(input.name, made)?;
    }
    let inputs: HashSet<&str> = graph.inputs.iter().map(|input| input.name).collect();
    let mut constants = HashSet::new();
    for tensor in &graph.initializers {
        if tensor.name.is_empty() {
            return Err(refuse("an initializer has no name".into()));
        }
        if !constants.insert(tensor.name) {
            return Err(twice(tensor.name));
        }
        // An input may have an initializer as its default.
        if !inputs.contains(tensor.name) {
            make(tensor.name, made)?;
        }
    }
    for node in &graph.nodes {
        for name in node.inputs.iter().filter(|name| !name.is_empty()) {
            if !made.contains(name) {
                let (called, name) = (node.called(), quoted(name));
                let reason = format!("{called} uses {name}, which nothing makes before it: the graph is cyclic or cut");
                return Err(refuse(reason));
            }
        }
        for attribute in &node.attributes {
            if let AttributeValue::Graph(inner) = &attribute.value {
                check_graph(inner, made)?;
            }
        }
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            make(name, made)?;
        }
    }
    if graph.outputs.is_empty() {
        return Err(refuse("a graph has no output".into()));
    }
    for output in &graph.outputs {
        if !made.contains(output.name) {
            return Err(refuse(format!("nothing makes the output {}", quoted(output.name))));
        }
    }
    for info in graph.inputs.iter().chain(&graph.outputs).chain(&graph.values) {
        check_declared(info)?;
    }
    // What an inner graph makes is not seen outside; sisters may use the same names.
    for name in own {
        made.remove(name);
    }
    Ok(())
}

fn check_declared(info: &ValueInfo<'_>) -> Result<(), ModelRefusal> {
    let Some(dims) = &info.dims else { return Ok(()) };
    let bytes = info.element.map_or(1, super::ElementType::bytes);
    let total = dims.iter().flatten().fold(bytes, |product, dim| product.saturating_mul(*dim));
    if total <= TENSOR_BYTES_MAX {
        return Ok(());
    }
    let shape: Vec<u64> = dims.iter().map(|dim| dim.unwrap_or(1)).collect();
    let reason = format!(
        "value {} declares the shape {shape:?}, more than the {TENSOR_BYTES_MAX} bytes one tensor may have",
        quoted(info.name)
    );
    Err(ModelRefusal::new(RefusalKind::Shape, reason))
}

fn refuse(reason: String) -> ModelRefusal {
    ModelRefusal::new(RefusalKind::Structure, reason)
}
