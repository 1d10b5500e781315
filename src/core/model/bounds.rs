//! How large every tensor of a graph can become, computed before anything is allocated.
//!
//! Every value gets an upper bound: from the declared shape of the image and of the constants, operator by operator, in
//! the graph's order. Sizes that a graph computes for itself (`Shape`, `Gather`, `Concat`, then `Reshape` or `Expand`)
//! are followed as numbers with a lower and an upper end, so that a size taken from the picture, such as how many boxes
//! it has, is bounded as well. `rules.rs` says what each operator makes, `numbers.rs` how numbers go through it.
//!
//! Arithmetic is in `f64`: sizes saturate instead of wrapping round, and what is no number is beyond every budget.

mod choose;
mod image;
mod numbers;
mod pictures;
mod rules;
mod shapes;
mod span;

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

pub(super) use self::span::Span;
use super::{
    FOLDED_BYTES_MAX, FOLDED_WORK_MAX, FRAME_WORK_MAX, ModelRefusal, RefusalKind, TENSOR_BYTES_MAX, VALUES_MAX,
    VARYING_BYTES_MAX,
    element::ElementType,
    messages::{AttributeValue, Graph, Node, Tensor, ValueInfo},
    operators::{self, Rule},
    quoted,
};

/// The largest a value can be.
#[derive(Clone, Debug)]
struct Bound {
    element: ElementType,
    /// None: not even the number of dimensions is known.
    dims: Option<Rc<[Span]>>,
    /// Most values it can have.
    elements: f64,
    /// Row by row, if there are few and their number is certain.
    values: Option<Rc<[Span]>>,
    /// It follows from constants alone.
    is_constant: bool,
}

impl Bound {
    fn new(element: ElementType, dims: impl Into<Rc<[Span]>>) -> Self {
        let dims = dims.into();
        let elements = dims.iter().fold(1.0, |product, dim| span::times(product, dim.max));
        Self { element, dims: Some(dims), elements, values: None, is_constant: false }
    }

    fn scalar(element: ElementType) -> Self {
        Self::new(element, [])
    }

    fn of_tensor(tensor: &Tensor<'_>) -> Self {
        let dims: Vec<Span> = tensor.dims.iter().map(|dim| Span::exact(*dim as f64)).collect();
        let values = tensor.values.as_ref().map(|values| values.iter().map(|value| Span::exact(*value)).collect());
        let bound = Self { is_constant: true, ..Self::new(tensor.element, dims) };
        // "To the end" is written as the largest int64.
        if tensor.element == ElementType::Int64 { bound.with_values(values) } else { bound.with_numbers(values) }
    }

    /// With values that came here unchanged.
    fn with_values(mut self, values: Option<Vec<Span>>) -> Self {
        let fits = |values: &Vec<Span>| {
            values.len() <= VALUES_MAX && values.len() as f64 == self.elements && values.iter().all(Span::is_number)
        };
        self.values = values.filter(|values| self.is_certain() && fits(values)).map(Into::into);
        self
    }

    /// With values that were computed: only if ONNX Runtime computes the same ones.
    fn with_numbers(self, values: Option<Vec<Span>>) -> Self {
        let element = self.element;
        let computed = values.and_then(|values| values.iter().map(|value| numbers::settle(*value, element)).collect());
        self.with_values(computed)
    }

    /// Whether every dimension is known for certain.
    fn is_certain(&self) -> bool {
        self.dims.as_ref().is_some_and(|dims| dims.iter().all(|dim| dim.is_exact()))
    }

    /// Bytes in memory. The CPU computes half precision in single precision.
    fn bytes(&self) -> f64 {
        let bytes = match self.element {
            ElementType::Float16 | ElementType::Bfloat16 => 4,
            other => other.bytes(),
        };
        span::times(self.elements, bytes as f64)
    }

    /// Holds whatever either of the two holds.
    fn or(&self, other: &Self) -> Self {
        let same_rank = |a: &Rc<[Span]>, b: &Rc<[Span]>| a.len() == b.len();
        let dims = self.dims.as_ref().zip(other.dims.as_ref()).filter(|(a, b)| same_rank(a, b));
        let hull = |a: &[Span], b: &[Span]| a.iter().zip(b).map(|(a, b)| a.hull(*b)).collect::<Vec<_>>();
        let wider = if self.element.bytes() >= other.element.bytes() { self.element } else { other.element };
        let either = Self {
            element: wider,
            dims: dims.map(|(a, b)| hull(a, b).into()),
            elements: self.elements.max(other.elements),
            values: None,
            is_constant: self.is_constant && other.is_constant,
        };
        let values = self.values.as_ref().zip(other.values.as_ref()).filter(|(a, b)| same_rank(a, b));
        either.with_values(values.map(|(a, b)| hull(a, b)))
    }
}

/// What an operator makes, and its multiplications.
struct Made {
    /// Behind the node's own outputs may stand what ONNX Runtime needs beside them while it works.
    outputs: Vec<Bound>,
    work: f64,
}

/// What a model can ask for.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Bytes of what follows from constants alone.
    pub folded_bytes: f64,
    pub folded_work: f64,
    /// Bytes of the tensors whose size depends on the picture.
    pub varying_bytes: f64,
    /// Multiplications of one frame.
    pub work: f64,
    /// Bytes of the largest tensor that is computed.
    pub largest_bytes: f64,
    pub largest: String,
}

/// Bounds everything in the graph.
pub(super) fn of_model(graph: &Graph<'_>, image: Option<[usize; 4]>) -> Result<Bounds, ModelRefusal> {
    let mut walk = Walk { scope: HashMap::new(), bounds: Bounds::default() };
    let defaults: HashSet<&str> = graph.initializers.iter().map(|tensor| tensor.name).collect();
    for input in graph.inputs.iter().filter(|input| !defaults.contains(input.name)) {
        walk.scope.insert(input.name, image::input(input, image)?);
    }
    walk.graph(graph)?;
    Ok(walk.bounds)
}

struct Walk<'a> {
    scope: HashMap<&'a str, Bound>,
    bounds: Bounds,
}

impl<'a> Walk<'a> {
    fn graph(&mut self, graph: &Graph<'a>) -> Result<(), ModelRefusal> {
        for tensor in &graph.initializers {
            self.scope.insert(tensor.name, Bound::of_tensor(tensor));
        }
        for node in &graph.nodes {
            self.node(node)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node<'a>) -> Result<(), ModelRefusal> {
        let unbounded = |why: String| {
            let reason = format!("how large {} becomes cannot be told from the file: {why}", node.called());
            ModelRefusal::new(RefusalKind::Unbounded, reason)
        };
        let rule = operators::rule(node.operator).expect("operators were checked");
        let made = if rule == Rule::If {
            self.branches(node)?
        } else {
            let inputs: Vec<Option<&Bound>> = node.inputs.iter().map(|name| self.scope.get(name)).collect();
            let mut made = rules::apply(rule, node, &inputs).map_err(unbounded)?;
            let is_constant = inputs.iter().flatten().all(|input| input.is_constant) || is_known_size(rule, &inputs);
            made.outputs.iter_mut().for_each(|output| output.is_constant = is_constant);
            made
        };
        if node.outputs.len() > made.outputs.len() {
            return Err(unbounded(format!("it has {} outputs", node.outputs.len())));
        }
        self.count(node, &made)?;
        for (name, output) in node.outputs.iter().zip(made.outputs).filter(|(name, _)| !name.is_empty()) {
            self.scope.insert(name, output);
        }
        Ok(())
    }

    /// Both branches of an `If`: either may run.
    fn branches(&mut self, node: &Node<'a>) -> Result<Made, ModelRefusal> {
        let wrong = || {
            let reason = format!("{} needs two branches with as many outputs as it has", node.called());
            ModelRefusal::new(RefusalKind::Structure, reason)
        };
        let condition_is_constant =
            node.inputs.first().and_then(|name| self.scope.get(name)).is_some_and(|condition| condition.is_constant);
        let mut both: Option<Vec<Bound>> = None;
        for name in ["then_branch", "else_branch"] {
            let Some(AttributeValue::Graph(branch)) = node.attribute(name) else { return Err(wrong()) };
            if branch.outputs.len() != node.outputs.len() || !branch.inputs.is_empty() {
                return Err(wrong());
            }
            self.graph(branch)?;
            let one: Option<Vec<Bound>> =
                branch.outputs.iter().map(|output| self.scope.get(output.name).cloned()).collect();
            let one = one.ok_or_else(wrong)?;
            both = Some(match both {
                None => one,
                Some(other) => other.iter().zip(&one).map(|(a, b)| a.or(b)).collect(),
            });
        }
        let mut outputs = both.ok_or_else(wrong)?;
        outputs.iter_mut().for_each(|output| output.is_constant &= condition_is_constant);
        Ok(Made { outputs, work: 0.0 })
    }

    /// Holds what a node makes against the budgets.
    fn count(&mut self, node: &Node<'_>, made: &Made) -> Result<(), ModelRefusal> {
        let refuse = |kind, what: String| Err(ModelRefusal::new(kind, format!("{} {what}", node.called())));
        let is_constant = made.outputs.iter().all(|output| output.is_constant);
        let total = &mut self.bounds;
        for output in &made.outputs {
            let bytes = output.bytes();
            if !within(bytes, TENSOR_BYTES_MAX) {
                let kind = if output.is_constant { RefusalKind::Folding } else { RefusalKind::Shape };
                let what = format!("would make a tensor of up to {bytes:.0} bytes; one may have {TENSOR_BYTES_MAX}");
                return refuse(kind, what);
            }
            if bytes > total.largest_bytes {
                total.largest_bytes = bytes;
                total.largest = node.called();
            }
            if output.is_constant {
                total.folded_bytes += bytes;
            } else if !output.is_certain() {
                total.varying_bytes += bytes;
            }
        }
        if is_constant {
            total.folded_work += made.work;
        } else {
            total.work += made.work;
        }
        if !within(total.folded_bytes, FOLDED_BYTES_MAX) {
            let what =
                format!("and what else follows from constants alone takes over {FOLDED_BYTES_MAX} bytes to load");
            return refuse(RefusalKind::Folding, what);
        }
        if !within(total.folded_work, FOLDED_WORK_MAX) {
            let what =
                format!("and what else follows from constants takes over {FOLDED_WORK_MAX} multiplications to load");
            return refuse(RefusalKind::Folding, what);
        }
        if !within(total.varying_bytes, VARYING_BYTES_MAX) {
            let what = format!("and other sizes that depend on the picture can reach over {VARYING_BYTES_MAX} bytes");
            return refuse(RefusalKind::Shape, what);
        }
        if !within(total.work, FRAME_WORK_MAX) {
            let what = format!("and the nodes before it take over {FRAME_WORK_MAX} multiplications a frame");
            return refuse(RefusalKind::Work, what);
        }
        Ok(())
    }
}

/// Whether a budget holds; what is no number is beyond it.
fn within(value: f64, most: u64) -> bool {
    value <= most as f64
}

/// A shape that is certain is a constant to ONNX Runtime, whatever the tensor holds.
fn is_known_size(rule: Rule, inputs: &[Option<&Bound>]) -> bool {
    matches!(rule, Rule::Shape | Rule::Size) && inputs.iter().flatten().all(|input| input.is_certain())
}
