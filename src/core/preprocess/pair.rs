//! Frame and golden template, prepared alike and put together as the recipe says.

use crate::{core::recipe::Pair, types::Bounds};

/// What the model gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prepared<'t> {
    pub tensor: &'t [f32],
    /// Its second input, of the same shape, where the recipe has one.
    pub template: Option<&'t [f32]>,
}

/// The prepared template.
pub(super) struct Golden {
    pub pair: Pair,
    /// Of each view its tensor.
    pub views: Vec<(Bounds, Vec<f32>)>,
}

impl Golden {
    /// Puts the tensor of `view` and the template's together; `stacked` is the buffer for both.
    ///
    /// # Panics
    /// If the template was not prepared for this view: frames and template have one size, and so the same views.
    pub(super) fn put<'t>(&'t self, view: Bounds, tensor: &'t mut [f32], stacked: &'t mut Vec<f32>) -> Prepared<'t> {
        let (_, template) = self.views.iter().find(|(of, _)| *of == view).expect("the template has the frame's views");
        match self.pair {
            Pair::Input { .. } => Prepared { tensor, template: Some(template) },
            Pair::Stack => {
                stacked.clear();
                stacked.extend_from_slice(tensor);
                stacked.extend_from_slice(template);
                Prepared { tensor: stacked, template: None }
            }
            Pair::Difference => {
                tensor.iter_mut().zip(template).for_each(|(value, template)| *value -= template);
                Prepared { tensor, template: None }
            }
        }
    }
}
