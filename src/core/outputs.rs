//! What a model said: named float32 tensors in buffers that are kept from one inference to the next.

/// The outputs of one inference, in the order they were asked for.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    tensors: Vec<Tensor>,
    /// Tensors of the latest inference; those behind keep their buffers for a later one.
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// One output: row-major values, as many as the product of `shape`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub values: &'a [f32],
}

impl Outputs {
    /// The output of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.iter().find(|tensor| tensor.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors[..self.len].iter().map(|tensor| TensorView {
            name: &tensor.name,
            shape: &tensor.shape,
            values: &tensor.values,
        })
    }

    /// Forgets the outputs and keeps the buffers.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds one output.
    ///
    /// # Panics
    /// If `values` has another length than `shape` says: whoever runs the model has checked that.
    pub fn push(&mut self, name: &str, shape: impl IntoIterator<Item = usize>, values: &[f32]) {
        if self.len == self.tensors.len() {
            self.tensors.push(Tensor::default());
        }
        let tensor = &mut self.tensors[self.len];
        if tensor.name != name {
            name.clone_into(&mut tensor.name);
        }
        tensor.shape.clear();
        tensor.shape.extend(shape);
        assert_eq!(
            tensor.shape.iter().product::<usize>(),
            values.len(),
            "output {name} has as many values as its shape"
        );
        tensor.values.clear();
        tensor.values.extend_from_slice(values);
        self.len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_found_by_name_and_buffers_are_kept() {
        let mut outputs = Outputs::default();
        outputs.push("map", [1, 2, 2], &[0.0, 1.0, 2.0, 3.0]);
        outputs.push("score", [1], &[0.5]);
        assert_eq!(outputs.get("score").map(|score| score.values), Some(&[0.5][..]));
        let before = outputs.get("map").map(|map| map.values.as_ptr());
        outputs.clear();
        assert_eq!(outputs.get("map"), None);
        outputs.push("map", [1, 2, 1], &[4.0, 5.0]);
        let map = outputs.get("map").unwrap();
        assert_eq!((map.shape, map.values), (&[1, 2, 1][..], &[4.0, 5.0][..]));
        assert_eq!(Some(map.values.as_ptr()), before);
    }
}
