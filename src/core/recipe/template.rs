//! A golden template: an image of a good part that the model compares every frame with.

use super::{
    FileRef, FrameFormat, FrameRules, Input, RecipeError, TENSOR_NAME_BYTES_MAX, Tiling, parse::file_ref_of,
    reader::Placed,
};

/// Most values of the template's tensors, all tiles: 128 MiB for each worker, which keeps them ready.
pub const TEMPLATE_VALUES_MAX: u64 = 32 << 20;

/// The template and the way in which the model gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub file: FileRef,
    pub pair: Pair,
}

/// How the model sees frame and template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pair {
    /// As its second input of this name, of the shape of the first.
    Input { tensor: String },
    /// As channels behind the frame's: an input of twice as many.
    Stack,
    /// As frame less template, value by value.
    Difference,
}

impl Template {
    /// What the template's file may be: an image of the one size that frames have.
    #[must_use]
    pub fn rules(frame: &FrameRules) -> FrameRules {
        let formats = vec![FrameFormat::Png, FrameFormat::Jpeg, FrameFormat::Tiff, FrameFormat::Bmp];
        FrameRules { formats, encoded_bytes_max: super::ENCODED_BYTES_MAX, ..frame.clone() }
    }
}

pub(super) fn template(value: &Placed<'_>, frame: &FrameRules) -> Result<Template, RecipeError> {
    if frame.largest_px() != frame.smallest_px() {
        return Err(value.problem(
            "is compared pixel by pixel, but [frame] allows several sizes; set min and max of width_px and height_px alike",
        ));
    }
    let mut section = value.table()?;
    let file = file_ref_of(&mut section)?;
    let pair_value = section.required("pair")?;
    let tensor = section.optional("tensor");
    let words = [("input", 0), ("stack", 1), ("difference", 2)];
    let pair = match (pair_value.word(&words)?, tensor) {
        (0, Some(tensor)) => Pair::Input { tensor: tensor.text(TENSOR_NAME_BYTES_MAX)? },
        (0, None) => return Err(section.problem("tensor", "is missing; pair = \"input\" needs it".to_owned())),
        (_, Some(tensor)) => return Err(tensor.problem("has a meaning only with pair = \"input\"")),
        (1, None) => Pair::Stack,
        (_, None) => Pair::Difference,
    };
    section.finish()?;
    Ok(Template { file, pair })
}

/// The prepared template is held in memory, once for each tile.
pub(super) fn check_input(
    at: &Placed<'_>,
    template: &Template,
    input: &Input,
    tiling: Option<Tiling>,
    view_px: (u32, u32),
) -> Result<(), RecipeError> {
    if let Pair::Input { tensor } = &template.pair
        && *tensor == input.tensor
    {
        return Err(at.problem(format!("names {tensor:?}, which is the frame's own input")));
    }
    let tiles = tiling.map_or(1, |tiling| tiling.count(view_px));
    let values = tiles * u64::from(input.width_px) * u64::from(input.height_px) * input.channels() as u64;
    if values > TEMPLATE_VALUES_MAX {
        return Err(at.problem(format!(
            "makes {values} values in {tiles} tiles; at most {TEMPLATE_VALUES_MAX} are held ready: take fewer tiles or a smaller input"
        )));
    }
    Ok(())
}
