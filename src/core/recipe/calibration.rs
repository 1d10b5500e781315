//! The calibration file: how a model's raw outputs become scores that mean what they say.

use super::{NAME_BYTES_MAX, RecipeError, TITLE_BYTES_MAX, name, reader::Document, version};
use crate::types::Blake3Digest;

/// Largest temperature, slope or intercept, in absolute value. A calibration beyond it is a fitting gone wrong.
pub const COEFFICIENT_MAX: f32 = 1.0e6;
/// Longest note in bytes.
pub const NOTE_BYTES_MAX: usize = 4096;

/// A validated calibration file, format 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// BLAKE3 of the file's bytes.
    pub digest: Blake3Digest,
    pub name: String,
    pub version: String,
    /// The model it was fitted on.
    pub model: Blake3Digest,
    pub method: Method,
    pub fitted_on: String,
    pub note: String,
}

/// What is done to an output before the activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    Identity,
    /// `output / temperature`, temperature > 0.
    Temperature(f32),
    /// `output * slope + intercept`, slope > 0 so that a larger output stays a larger score.
    Platt {
        slope: f32,
        intercept: f32,
    },
}

#[derive(Clone, Copy)]
enum MethodName {
    Identity,
    Temperature,
    Platt,
}

impl Calibration {
    /// Reads a calibration file.
    ///
    /// # Errors
    /// [`RecipeError`] with line, column and key.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let document = Document::parse(text)?;
        let mut root = document.root();
        root.required("format")?.integer(1..=1)?;
        let name = name(&root.required("name")?)?;
        let version = version(&root.required("version")?)?;
        let model = root.required("model")?.digest()?;
        let method = root.required("method")?.word(&[
            ("identity", MethodName::Identity),
            ("temperature", MethodName::Temperature),
            ("platt", MethodName::Platt),
        ])?;
        // A file may carry the coefficients of the other methods too; they are checked all the same.
        let positive = f32::MIN_POSITIVE..=COEFFICIENT_MAX;
        let temperature = root.optional("temperature").map(|value| value.number(positive.clone())).transpose()?;
        let slope = root.optional("slope").map(|value| value.number(positive)).transpose()?;
        let intercept = root.optional("intercept");
        let intercept = intercept.map(|value| value.number(-COEFFICIENT_MAX..=COEFFICIENT_MAX)).transpose()?;
        let missing = |key| root.problem(key, "is missing; the method needs it".to_owned());
        let method = match method {
            MethodName::Identity => Method::Identity,
            MethodName::Temperature => Method::Temperature(temperature.ok_or_else(|| missing("temperature"))?),
            MethodName::Platt => Method::Platt {
                slope: slope.ok_or_else(|| missing("slope"))?,
                intercept: intercept.ok_or_else(|| missing("intercept"))?,
            },
        };
        let fitted_on = root.required("fitted_on")?.text(TITLE_BYTES_MAX)?;
        let note = root.optional("note").map(|value| value.text(NOTE_BYTES_MAX)).transpose()?.unwrap_or_default();
        root.finish()?;
        debug_assert!(name.len() <= NAME_BYTES_MAX);
        Ok(Self { digest: Blake3Digest::of(text.as_bytes()), name, version, model, method, fitted_on, note })
    }
}
