//! Whether an ONNX file may be given to ONNX Runtime, judged from its protobuf alone: `docs/spec/model.md`.
//!
//! A model file is a program: a hundred bytes can ask for gigabytes while they load, and a graph can run for ever. So
//! a file is read within bounds (`proto.rs`, over `wire.rs`), its operators must be on a list (`operators.rs`), its graph must be
//! whole (`structure.rs`), and what every tensor of it could grow to is computed from its constants and from the size
//! of the image (`bounds.rs`) before anything is allocated for it. What passes here may still be wrong or slow; its
//! first load and its first run happen in a process of their own.

mod bounds;
mod data;
mod declared;
mod element;
mod facts;
mod messages;
mod operators;
mod proto;
#[cfg(test)]
pub mod sample;
mod structure;
#[cfg(test)]
mod tests;
pub mod unbake;
mod wire;

use std::fmt;

pub use element::ElementType;
pub use facts::{ModelFacts, TensorFact};
pub use wire::FIELDS_MAX;

/// Largest model file in bytes. A protobuf ends at 2 GiB; the largest of anomalib's models takes 0.8.
pub const MODEL_BYTES_MAX: usize = 1 << 30;
/// Oldest and newest IR version.
pub const IR_VERSIONS: (i64, i64) = (3, 11);
/// Oldest and newest version of the operator set. Before 11, sizes that the check reads from inputs stood elsewhere.
pub const OPSETS: (i64, i64) = (11, 21);
/// Nodes of all graphs of a file together.
pub const NODES_MAX: usize = 20_000;
/// Attributes of all nodes together, and of one.
pub const ATTRIBUTES_MAX: usize = 200_000;
pub const ATTRIBUTES_PER_NODE_MAX: usize = 64;
/// Inputs and outputs of all nodes together.
pub const LINKS_MAX: usize = 400_000;
/// Numbers in all lists together: attributes and shapes.
pub const NUMBERS_MAX: usize = 4_000_000;
/// Constant tensors of a file.
pub const TENSORS_MAX: usize = 50_000;
/// Inputs, outputs and inner values that declare a type.
pub const VALUE_INFOS_MAX: usize = 100_000;
/// Bytes of all constant tensors in memory.
pub const INITIALIZER_BYTES_MAX: u64 = 2 << 30;
/// Longest name in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Longest doc string, text attribute or metadata value in bytes.
pub const DOC_BYTES_MAX: usize = 256 << 10;
/// Metadata properties of a model, and operator sets.
pub const PROPERTIES_MAX: usize = 256;
/// Numbers of one list: an attribute, a shape, a node's inputs.
pub const LIST_ITEMS_MAX: usize = 65_536;
/// Graphs within graphs.
pub const SUBGRAPH_DEPTH_MAX: usize = 4;
/// Dimensions of one tensor.
pub const RANK_MAX: usize = 16;
/// Longest tensor whose values are followed, because shapes are computed from such.
pub const VALUES_MAX: usize = 256;
/// Largest tensor in bytes, declared or computed.
pub const TENSOR_BYTES_MAX: u64 = 1 << 30;
/// Bytes of everything that follows from constants alone: ONNX Runtime computes it while it loads, and keeps it.
pub const FOLDED_BYTES_MAX: u64 = 1 << 30;
/// Multiplications of what follows from constants alone: some two seconds of one core.
pub const FOLDED_WORK_MAX: u64 = 4_000_000_000;
/// Bytes of all tensors whose size depends on the picture, which no trial run measures.
pub const VARYING_BYTES_MAX: u64 = 4 << 30;
/// Multiplications of one frame: some quarter of an hour of one core.
pub const FRAME_WORK_MAX: u64 = 4_000_000_000_000;
/// Side in pixels that an open dimension is taken for where no recipe says more.
pub const ASSUMED_SIDE_PX: u64 = 640;

/// Why a model is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} [{kind}]")]
pub struct ModelRefusal {
    pub kind: RefusalKind,
    /// What is wrong and, where there is a way, what to do. Text from the file is cut and escaped.
    pub reason: String,
}

impl ModelRefusal {
    fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// The rule that a model broke; `docs/spec/model.md` has a line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// No ONNX protobuf, a cut one, or one with something that ONNX does not know.
    NotOnnx,
    /// A bound on the file or on something in it.
    Size,
    /// IR version or operator set version.
    Version,
    /// An operator set that is not ONNX's own.
    Domain,
    /// An operator that is not on the list.
    Operator,
    /// Weights outside the file.
    ExternalData,
    /// A graph that is not whole: names twice, values that nothing makes, cycles, functions.
    Structure,
    /// A constant that is not what it declares.
    Tensor,
    /// A shape beyond the budget, declared or computed.
    Shape,
    /// What loading the model would compute from constants is beyond the budget.
    Folding,
    /// The arithmetic of one frame is beyond the budget.
    Work,
    /// A size that the file does not determine.
    Unbounded,
}

impl RefusalKind {
    /// As reports write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotOnnx => "not-onnx",
            Self::Size => "size",
            Self::Version => "version",
            Self::Domain => "domain",
            Self::Operator => "operator",
            Self::ExternalData => "external-data",
            Self::Structure => "structure",
            Self::Tensor => "tensor",
            Self::Shape => "shape",
            Self::Folding => "folding",
            Self::Work => "work",
            Self::Unbounded => "unbounded",
        }
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Judges the bytes of a model file, for an image tensor of this shape, [N, C, H, W]. Without a shape, open dimensions
/// are taken for one image and [`ASSUMED_SIDE_PX`].
///
/// Takes time and memory in proportion to the number of nodes, not to the size of the weights.
///
/// # Errors
/// [`ModelRefusal`], the first rule it breaks.
pub fn check(bytes: &[u8], image: Option<[usize; 4]>) -> Result<ModelFacts, ModelRefusal> {
    if bytes.len() > MODEL_BYTES_MAX {
        let reason = format!("the file has {} bytes; at most {MODEL_BYTES_MAX} are let in", bytes.len());
        return Err(ModelRefusal::new(RefusalKind::Size, reason));
    }
    let model = proto::read(bytes)?;
    let opset = versions(&model)?;
    operators::check(&model.graph)?;
    structure::check(&model.graph)?;
    let bounds = bounds::of_model(&model.graph, image)?;
    Ok(facts::of_model(bytes.len(), &model, opset, &bounds))
}

/// The version of ONNX's own operators; other sets are refused.
fn versions(model: &messages::Model<'_>) -> Result<i64, ModelRefusal> {
    let refuse = |kind, reason| Err(ModelRefusal::new(kind, reason));
    let (oldest, newest) = IR_VERSIONS;
    if !(oldest..=newest).contains(&model.ir_version) {
        let reason = format!("its IR version is {}; {oldest} to {newest} are let in", model.ir_version);
        return refuse(RefusalKind::Version, reason);
    }
    // A set that no node uses does nothing: exporters list more than they need.
    let mut own = model.opsets.iter().filter(|(domain, _)| is_own_domain(domain)).map(|(_, version)| *version);
    let Some(opset) = own.next() else {
        return refuse(RefusalKind::Version, "it names no version of ONNX's operators".into());
    };
    if own.next().is_some() {
        return refuse(RefusalKind::Version, "it names two versions of ONNX's operators".into());
    }
    let (oldest, newest) = OPSETS;
    if !(oldest..=newest).contains(&opset) {
        let reason =
            format!("its operator set is {opset}; {oldest} to {newest} are let in, export it with one of those");
        return refuse(RefusalKind::Version, reason);
    }
    Ok(opset)
}

/// ONNX's own operators, by either of their names.
fn is_own_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// A text from the file for a sentence: cut and escaped.
fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}
