//! Recipes: everything that turns the pixels of a frame into a verdict, as one validated value.
//!
//! The format is `docs/spec/recipe.md`. What parses here can be trusted everywhere else: thresholds are finite and in
//! order, lengths agree, sizes are bounded.

mod calibration;
mod detection;
#[cfg(feature = "server")]
pub mod draft;
mod open;
mod output;
mod parse;
mod reader;
mod region;
mod template;
mod tiling;

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

pub use calibration::{COEFFICIENT_MAX, Calibration, Method, NOTE_BYTES_MAX};
pub use detection::{BOXES_MAX, BoxLabels, BoxLayout, Detection};
pub use open::Question;
pub use output::{Activation, MapScore, Output, OutputKind};
use parse::{name, version};
pub use region::{CORNERS_MAX, Region, SHAPES_MAX, Shape};
pub use template::{Pair, TEMPLATE_VALUES_MAX, Template};
pub use tiling::{Merge, TILES_MAX, Tiling};

use crate::types::{Blake3Digest, PixelFormat, RecipeRef, Score};

/// Longest recipe or calibration file in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Longest recipe or calibration name in bytes, and longest version.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest title in bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// Longest tensor name in bytes.
pub const TENSOR_NAME_BYTES_MAX: usize = 128;
/// Most labels. With [`LABEL_BYTES_MAX`] this keeps a decision entry under its 8 KiB: 24 labels of (48 + 115) bytes,
/// 24 reasons of 58 bytes and 2 KiB for the rest make 7.3 KiB.
pub const LABELS_MAX: usize = 24;
/// Most labels where a decision also says where each was found: 24 more bytes of JSON and four numbers, 16 labels of
/// (48 + 115 + 75) bytes, 16 reasons of 58 bytes and 2 KiB for the rest make 6.7 KiB.
pub const PLACED_LABELS_MAX: usize = 16;
/// Longest label in bytes.
pub const LABEL_BYTES_MAX: usize = 48;
/// Longest side of a frame in pixels.
pub const FRAME_SIDE_PX_MAX: u32 = 16_384;
/// Largest `encoded_bytes_max`: a raw BGR8 frame of 22 megapixels.
pub const ENCODED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most pixels of a decoded frame, whatever the recipe's width and height allow: as RGB8 192 MiB.
pub const FRAME_PIXELS_MAX: u64 = 64 * 1024 * 1024;
/// Longest side of a model's input in pixels.
pub const INPUT_SIDE_PX_MAX: u32 = 4096;
/// Most pixels of a model's input: as three channels of f32 48 MiB.
pub const INPUT_PIXELS_MAX: u64 = 4 * 1024 * 1024;
/// Largest `top_k`.
pub const TOP_K_MAX: u32 = 65_536;
/// Largest threshold in absolute value; scores without an activation may be distances, so it is wide.
pub const THRESHOLD_MAX: f32 = 1.0e9;

/// Why a text is no recipe or calibration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecipeError {
    #[error("the file has {bytes} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("line {line}, column {column}: not TOML: {problem}")]
    Syntax { line: usize, column: usize, problem: String },
    #[error("line {line}, column {column}: `{key}` {problem}")]
    Key { line: usize, column: usize, key: String, problem: String },
    #[error("{} to answer, then it is a recipe: {}", plural(questions.len()), listed(questions))]
    Unanswered { questions: Vec<Question> },
    #[error("recipe {recipe} names calibration {named}, the file given is {found}; put the right file there")]
    OtherCalibration { recipe: RecipeRef, named: Blake3Digest, found: Blake3Digest },
    #[error("calibration {calibration} was fitted on model {fitted_on}, recipe {recipe} names {model}; fit it anew")]
    OtherModel { recipe: RecipeRef, calibration: String, fitted_on: Blake3Digest, model: Blake3Digest },
}

fn plural(questions: usize) -> String {
    if questions == 1 { "one question is".to_owned() } else { format!("{questions} questions are") }
}

fn listed(questions: &[Question]) -> String {
    questions.iter().map(Question::to_string).collect::<Vec<_>>().join("; ")
}

/// A validated recipe, format 1 or 2. Everything that format 1 cannot say is absent in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The recipe digest: BLAKE3 of the file's bytes.
    pub digest: Blake3Digest,
    pub name: String,
    pub version: String,
    pub title: String,
    pub model: FileRef,
    pub calibration: Option<FileRef>,
    pub frame: FrameRules,
    pub quality: QualityBounds,
    /// Where defects count; everywhere without one. Format 2.
    pub region: Option<Region>,
    /// Tiles in which the frame, or the crop of it, is looked at; in one piece without it. Format 2.
    pub tiling: Option<Tiling>,
    /// The image of a good part that frames are compared with. Format 2.
    pub template: Option<Template>,
    pub input: Input,
    pub output: Output,
    pub policy: Policy,
}

/// A file named by its digest; `file` is a name without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    pub file: String,
    pub digest: Blake3Digest,
}

/// What may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRules {
    pub formats: Vec<FrameFormat>,
    pub width_px: SideRange,
    pub height_px: SideRange,
    pub encoded_bytes_max: u64,
}

impl FrameRules {
    /// Width and height of the largest frame.
    #[must_use]
    pub fn largest_px(&self) -> (u32, u32) {
        (self.width_px.max, self.height_px.max)
    }

    /// Width of the narrowest frame and height of the lowest.
    #[must_use]
    pub fn smallest_px(&self) -> (u32, u32) {
        (self.width_px.min, self.height_px.min)
    }
}

/// Allowed length of one side in pixels, both ends included; `1 <= min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideRange {
    pub min: u32,
    pub max: u32,
}

impl SideRange {
    #[must_use]
    pub fn contains(self, side_px: u32) -> bool {
        (self.min..=self.max).contains(&side_px)
    }
}

/// How a frame's bytes are encoded, or that they are raw pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameFormat {
    Png,
    Jpeg,
    Tiff,
    Bmp,
    Raw(PixelFormat),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no frame format; use png, jpeg, tiff, bmp or a PFNC name such as Mono8, Mono12p, BayerRG8 or RGB8")]
pub struct UnknownFrameFormat(pub String);

impl FrameFormat {
    /// The word used in recipes, entries and requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
            Self::Raw(format) => format.name(),
        }
    }
}

impl fmt::Display for FrameFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FrameFormat {
    type Err = UnknownFrameFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFrameFormat> {
        Ok(match text {
            "png" => Self::Png,
            "jpeg" => Self::Jpeg,
            "tiff" => Self::Tiff,
            "bmp" => Self::Bmp,
            other => Self::Raw(other.parse().map_err(|_| UnknownFrameFormat(other.chars().take(40).collect()))?),
        })
    }
}

/// Bounds of image quality; a failed one gives NOT_DECIDABLE.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QualityBounds {
    /// Mean luma, 0..1.
    pub mean_min: Option<Score>,
    pub mean_max: Option<Score>,
    /// Share of pixels at or above 0.995 of full scale, 0..1.
    pub saturated_share_max: Option<Score>,
    /// Variance of the 4-neighbour Laplacian of luma scaled to 0..1.
    pub focus_min: Option<Score>,
}

/// How pixels become the model's input tensor `[N, C, height_px, width_px]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub tensor: String,
    pub colour: Colour,
    pub width_px: u32,
    pub height_px: u32,
    pub resize: Resize,
    pub fit: Fit,
    /// One per channel, in the tensor's channel order.
    pub mean: Vec<f32>,
    /// One per channel, > 0.
    pub std: Vec<f32>,
}

impl Input {
    /// Channels of the tensor, 1 or 3.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.colour.channels()
    }

    /// Shape of the tensor of one view, with the template that is put to it.
    #[must_use]
    pub fn shape(&self, pair: Option<&Pair>) -> [usize; 4] {
        let images = if pair == Some(&Pair::Stack) { 2 } else { 1 };
        [1, images * self.channels(), self.height_px as usize, self.width_px as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Gray,
    Rgb,
    Bgr,
}

impl Colour {
    #[must_use]
    pub fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }
}

/// Resize methods; `pillow-*` equals Pillow's `Image.resize`, `opencv-linear` equals OpenCV's `INTER_LINEAR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    PillowNearest,
    PillowBilinear,
    PillowBicubic,
    PillowLanczos,
    OpencvLinear,
    /// The frame must have the input's size.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Both sides to the input's size, whatever the aspect ratio.
    Stretch,
    /// The whole frame at its aspect ratio in the middle, the rest filled with `pad` of 255.
    Letterbox { pad: u8 },
}

/// From scores to a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub comparator: Comparator,
    /// Classification: a top score below it is NOT_DECIDABLE.
    pub top_score_min: Score,
    /// One per label of the output, in order, overrides resolved.
    pub labels: Vec<LabelPolicy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    AtOrAbove,
    Above,
}

impl fmt::Display for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.symbol())
    }
}

impl Comparator {
    /// `>=` or `>`.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::AtOrAbove => ">=",
            Self::Above => ">",
        }
    }

    /// Whether `score` reaches `threshold`.
    #[must_use]
    pub fn reaches(self, score: Score, threshold: Score) -> bool {
        match self {
            Self::AtOrAbove => score >= threshold,
            Self::Above => score > threshold,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPolicy {
    pub label: String,
    pub role: Role,
}

/// What a label means for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A defect, with `review <= reject`.
    Defect { review: Score, reject: Score },
    /// No defect: its score is never compared.
    Ok,
}

impl Recipe {
    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`RecipeError`] with line, column and key.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        parse::recipe(text)
    }

    /// How people name it: `name@version`.
    #[must_use]
    pub fn reference(&self) -> RecipeRef {
        RecipeRef::new(format!("{}@{}", self.name, self.version))
            .expect("a parsed name and version have at most 64 allowed bytes each")
    }

    /// Whether `calibration` is the one this recipe names and was fitted on this recipe's model.
    ///
    /// # Errors
    /// [`RecipeError::OtherCalibration`] or [`RecipeError::OtherModel`].
    pub fn accept_calibration(&self, calibration: Option<&Calibration>) -> Result<(), RecipeError> {
        let named = self.calibration.as_ref().map(|file| file.digest);
        let none = Blake3Digest([0; 32]);
        if named != calibration.map(|calibration| calibration.digest) {
            return Err(RecipeError::OtherCalibration {
                recipe: self.reference(),
                named: named.unwrap_or(none),
                found: calibration.map_or(none, |calibration| calibration.digest),
            });
        }
        match calibration {
            Some(calibration) if calibration.model != self.model.digest => Err(RecipeError::OtherModel {
                recipe: self.reference(),
                calibration: format!("{}@{}", calibration.name, calibration.version),
                fitted_on: calibration.model,
                model: self.model.digest,
            }),
            _ => Ok(()),
        }
    }
}
