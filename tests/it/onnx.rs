//! Real ONNX models, written byte by byte: the few pieces of its protobuf that the tests' small graphs are made of.
//!
//! Field numbers are those of `onnx.proto`.

const FLOAT: u64 = 1;
const INT64: u64 = 7;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn int(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A float32 input or output.
fn value(name: &str, dims: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = dims.iter().flat_map(|dim| bytes(1, int(1, *dim))).collect();
    [bytes(1, name), bytes(2, bytes(1, [int(1, FLOAT), bytes(2, shape)].concat()))].concat()
}

pub fn input(name: &str, dims: &[u64]) -> Vec<u8> {
    bytes(11, value(name, dims))
}

pub fn output(name: &str, dims: &[u64]) -> Vec<u8> {
    bytes(12, value(name, dims))
}

pub fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name)).collect();
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    bytes(1, [inputs, bytes(2, output), bytes(4, operator), attributes].concat())
}

/// An attribute that is one number.
pub fn attribute(name: &str, number: u64) -> Vec<u8> {
    [bytes(1, name), int(3, number), int(20, 2)].concat()
}

/// An attribute that is a list of numbers.
pub fn attributes(name: &str, numbers: &[u64]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| int(8, *number)).collect();
    [bytes(1, name), numbers, int(20, 7)].concat()
}

fn tensor(name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| int(1, *dim)).collect();
    bytes(5, [dims, int(2, kind), bytes(8, name), bytes(9, raw)].concat())
}

pub fn floats(name: &str, dims: &[u64], values: &[f32]) -> Vec<u8> {
    tensor(name, FLOAT, dims, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

pub fn whole(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, INT64, &[values.len() as u64], &raw)
}

/// A model of operator set 17.
pub fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    let graph = [graph.concat(), bytes(2, "g")].concat();
    [int(1, 8), bytes(7, graph), bytes(8, int(2, 17))].concat()
}
