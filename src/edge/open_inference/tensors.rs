//! What goes in and comes out of a model, as the protocol's tensors.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use super::{
    models::Models,
    pb::{self, DataType, model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata},
};
use crate::{
    core::{
        frame::{FrameFormat, RawLayout},
        recipe::Recipe,
    },
    edge::status::bad_field,
    ports::recipes::LoadedRecipe,
    services::inspect::request::Answer,
    types::PixelFormat,
};

/// Dimensions of a shape that are looked at.
const DIMENSIONS_MAX: usize = 8;
const IMAGE: &str = "image";
const PIXELS: &str = "pixels";
/// The protocol's names of datatypes, and their numbers in a configuration.
const BYTES: (&str, DataType) = ("BYTES", DataType::TypeString);
const FP32: (&str, DataType) = ("FP32", DataType::TypeFp32);
const INT64: (&str, DataType) = ("INT64", DataType::TypeInt64);
const UINT8: (&str, DataType) = ("UINT8", DataType::TypeUint8);
const UINT16: (&str, DataType) = ("UINT16", DataType::TypeUint16);

/// Name, datatype and shape; -1 is any length.
type Spec = (&'static str, (&'static str, DataType), Vec<i64>);

/// What a recipe takes.
fn inputs(recipe: &Recipe) -> Vec<Spec> {
    let formats = &recipe.frame.formats;
    let has = |wanted: &[FrameFormat]| formats.iter().any(|format| wanted.contains(format));
    let raw = |format| FrameFormat::Raw(format);
    let encoded = [FrameFormat::Png, FrameFormat::Jpeg, FrameFormat::Tiff, FrameFormat::Bmp];
    let offered = [
        (has(&encoded), (IMAGE, BYTES, vec![1])),
        (has(&[raw(PixelFormat::Mono8)]), (PIXELS, UINT8, vec![-1, -1])),
        (has(&[raw(PixelFormat::RGB8)]), (PIXELS, UINT8, vec![-1, -1, 3])),
        (has(&[raw(PixelFormat::Mono16)]), (PIXELS, UINT16, vec![-1, -1])),
    ];
    offered.into_iter().filter_map(|(is_offered, spec)| is_offered.then_some(spec)).collect()
}

/// What a recipe gives.
fn outputs(recipe: &Recipe) -> Vec<Spec> {
    let labels = i64::try_from(recipe.output.labels.len()).expect("labels are few");
    vec![
        ("verdict", BYTES, vec![1]),
        ("score", FP32, vec![1]),
        ("scores", FP32, vec![labels]),
        ("labels", BYTES, vec![labels]),
        ("reasons", BYTES, vec![-1]),
        ("entry_index", INT64, vec![1]),
        ("leaf_hash", BYTES, vec![1]),
    ]
}

pub(super) fn metadata(recipe: &Recipe, versions: Vec<String>) -> pb::ModelMetadataResponse {
    let tensor =
        |(name, datatype, shape): Spec| TensorMetadata { name: name.into(), datatype: datatype.0.into(), shape };
    pb::ModelMetadataResponse {
        name: recipe.name.clone(),
        versions,
        platform: "lineproof_recipe".into(),
        inputs: inputs(recipe).into_iter().map(tensor).collect(),
        outputs: outputs(recipe).into_iter().map(tensor).collect(),
    }
}

pub(super) fn config(recipe: &Recipe) -> pb::ModelConfig {
    let input = |(name, datatype, dims): Spec| pb::ModelInput { name: name.into(), data_type: datatype.1.into(), dims };
    let output =
        |(name, datatype, dims): Spec| pb::ModelOutput { name: name.into(), data_type: datatype.1.into(), dims };
    pb::ModelConfig {
        name: recipe.name.clone(),
        platform: "lineproof_recipe".into(),
        max_batch_size: 0,
        input: inputs(recipe).into_iter().map(input).collect(),
        output: outputs(recipe).into_iter().map(output).collect(),
        backend: "lineproof".into(),
    }
}

/// What a request asked for.
pub(super) struct Asked {
    pub recipe: Arc<LoadedRecipe>,
    id: String,
    /// Positions in [`outputs`].
    outputs: Vec<usize>,
}

impl Asked {
    /// The model and the outputs of a request; all outputs where it names none.
    pub fn of(request: &pb::ModelInferRequest, models: &Models) -> Result<Self, Status> {
        let recipe = models.serving(&request.model_name, &request.model_version)?;
        let offered = outputs(&recipe.recipe);
        if request.outputs.len() > offered.len() {
            return Err(bad_field(
                "outputs",
                format!("are {}; this model has {}", request.outputs.len(), offered.len()),
            ));
        }
        let position = |asked: &pb::model_infer_request::InferRequestedOutputTensor| {
            if let Some(name) = asked.parameters.keys().find(|name| *name != "binary_data") {
                return Err(bad_field("outputs.parameters", format!("{name:?} is not served here")));
            }
            let found = offered.iter().position(|(name, ..)| *name == asked.name);
            let names: Vec<&str> = offered.iter().map(|(name, ..)| *name).collect();
            let there = names.join(", ");
            found.ok_or_else(|| {
                bad_field("outputs.name", format!("{:?} is no output of this model; it has {there}", asked.name))
            })
        };
        let outputs = match request.outputs.is_empty() {
            true => (0..offered.len()).collect(),
            false => request.outputs.iter().map(position).collect::<Result<_, _>>()?,
        };
        Ok(Self { recipe, id: request.id.clone(), outputs })
    }

    /// The answer as tensors.
    pub fn response(&self, answer: &Answer) -> pb::ModelInferResponse {
        let recipe = &self.recipe.recipe;
        let specs = outputs(recipe);
        let mut response = pb::ModelInferResponse {
            model_name: recipe.name.clone(),
            model_version: recipe.version.clone(),
            id: self.id.clone(),
            ..pb::ModelInferResponse::default()
        };
        for &at in &self.outputs {
            let (name, datatype, _) = &specs[at];
            let (length, bytes) = output(name, answer);
            response.outputs.push(InferOutputTensor {
                name: (*name).into(),
                datatype: datatype.0.into(),
                shape: vec![length],
                ..InferOutputTensor::default()
            });
            response.raw_output_contents.push(bytes);
        }
        response
    }
}

/// How many elements an output has, and their bytes.
fn output(name: &str, answer: &Answer) -> (i64, Vec<u8>) {
    let decision = &answer.decision;
    let texts = |texts: Vec<String>| {
        let length = i64::try_from(texts.len()).expect("labels and reasons are few");
        let framed = texts.iter().flat_map(|text| {
            let length = u32::try_from(text.len()).expect("an entry is short").to_le_bytes();
            length.into_iter().chain(text.bytes())
        });
        (length, framed.collect())
    };
    let scores = |scores: Vec<f32>| {
        let length = i64::try_from(scores.len()).expect("labels are few");
        (length, scores.iter().flat_map(|score| score.to_le_bytes()).collect())
    };
    let labels = || decision.scores.labels.iter();
    match name {
        "verdict" => texts(vec![decision.verdict.to_string()]),
        "score" => scores(vec![decision.scores.decision.get()]),
        "scores" => scores(labels().map(|label| label.score.get()).collect()),
        "labels" => texts(labels().map(|label| label.label.clone()).collect()),
        "reasons" => texts(decision.reasons.clone()),
        "entry_index" => {
            let index = i64::try_from(answer.receipt.index.0).expect("indexes are below 2^53");
            (1, index.to_le_bytes().into())
        }
        _ => texts(vec![answer.receipt.leaf_hash.to_string()]),
    }
}

/// The frame in a request: its bytes, and their layout if they are pixels.
pub(super) fn image(
    request: &mut pb::ModelInferRequest,
    recipe: &Recipe,
) -> Result<(Bytes, Option<RawLayout>), Status> {
    let offered = || {
        let offer = |(name, datatype, shape): &Spec| format!("{name} {} {shape:?}", datatype.0);
        inputs(recipe).iter().map(offer).collect::<Vec<_>>().join(", ")
    };
    let [input] = request.inputs.as_slice() else {
        return Err(bad_field(
            "inputs",
            format!("are {}; a frame is exactly one of {}", request.inputs.len(), offered()),
        ));
    };
    if let Some(name) = input.parameters.keys().find(|name| *name != "binary_data") {
        return Err(bad_field("inputs.parameters", format!("{name:?} is not served here; send the bytes themselves")));
    }
    if !matches!(input.name.as_str(), IMAGE | PIXELS) {
        let name: String = input.name.chars().take(80).collect();
        return Err(bad_field("inputs.name", format!("{name:?} is no input of this model; it takes {}", offered())));
    }
    if input.shape.len() > DIMENSIONS_MAX {
        return Err(bad_field("inputs.shape", format!("has more than {DIMENSIONS_MAX} dimensions")));
    }
    let (name, kind, shape) = (input.name.clone(), input.datatype.clone(), input.shape.clone());
    let (kind, shape) = (kind.as_str(), shape.as_slice());
    let wrong = |field: &str| {
        let found = if field == "inputs.datatype" { kind.chars().take(40).collect() } else { format!("{shape:?}") };
        bad_field(field, format!("is {found}; this model takes {}", offered()))
    };
    if name == IMAGE {
        if kind != BYTES.0 {
            return Err(wrong("inputs.datatype"));
        }
        if !matches!(shape, [1] | [1, 1]) {
            return Err(wrong("inputs.shape"));
        }
        return Ok((encoded(request)?, None));
    }
    let (format, width, height, bytes_each) = match (kind, unbatched(shape)) {
        ("UINT8", [h, w] | [h, w, 1]) => (PixelFormat::Mono8, w, h, 1),
        ("UINT8", [h, w, 3]) => (PixelFormat::RGB8, w, h, 3),
        ("UINT16", [h, w] | [h, w, 1]) => (PixelFormat::Mono16, w, h, 2),
        ("UINT8" | "UINT16", _) => return Err(wrong("inputs.shape")),
        _ => return Err(wrong("inputs.datatype")),
    };
    let side =
        |side: i64| u32::try_from(side).ok().filter(|side| (1..=crate::core::recipe::FRAME_SIDE_PX_MAX).contains(side));
    let (Some(width_px), Some(height_px)) = (side(*width), side(*height)) else { return Err(wrong("inputs.shape")) };
    let expected = u64::from(width_px) * u64::from(height_px) * bytes_each;
    let bytes = pixels(request, kind, expected)?;
    Ok((bytes, Some(RawLayout { format, width_px, height_px, stride_bytes: None })))
}

/// A shape without the 1 of its batch: `[1, h, w]` or `[1, h, w, c]`. One of three with three channels at its end is no batch.
fn unbatched(shape: &[i64]) -> &[i64] {
    match shape {
        [1, rest @ ..] if rest.len() == 3 => rest,
        [1, _, last] if !matches!(last, 1 | 3) => &shape[1..],
        shape => shape,
    }
}

/// The one element of a BYTES tensor.
fn encoded(request: &mut pb::ModelInferRequest) -> Result<Bytes, Status> {
    match (request.raw_input_contents.as_slice(), request.inputs[0].contents.as_mut()) {
        ([raw], None) => {
            let wrong = || {
                bad_field(
                    "raw_input_contents",
                    "a BYTES tensor of one element is four bytes of length, and as many bytes",
                )
            };
            let (length, _) = raw.split_first_chunk::<4>().ok_or_else(wrong)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| wrong())?;
            if raw.len() - 4 == length { Ok(raw.slice(4..)) } else { Err(wrong()) }
        }
        ([], Some(contents)) if contents.bytes_contents.len() == 1 => {
            Ok(std::mem::take(&mut contents.bytes_contents[0]))
        }
        _ => Err(contents_needed()),
    }
}

/// The elements of a UINT8 or UINT16 tensor as bytes, little endian.
fn pixels(request: &mut pb::ModelInferRequest, kind: &str, expected: u64) -> Result<Bytes, Status> {
    let wrong =
        |found: usize| bad_field("inputs", format!("have {found} bytes of pixels; their shape needs {expected}"));
    let fits = |found: usize| found as u64 == expected;
    match (request.raw_input_contents.as_slice(), request.inputs[0].contents.as_ref()) {
        ([raw], None) if fits(raw.len()) => Ok(raw.clone()),
        ([raw], None) => Err(wrong(raw.len())),
        ([], Some(contents)) => {
            let values = &contents.uint_contents;
            let narrow = || bad_field("inputs.contents", format!("hold a value that is no {kind}"));
            let bytes: Vec<u8> = match kind {
                "UINT8" => {
                    values.iter().map(|value| u8::try_from(*value)).collect::<Result<_, _>>().map_err(|_| narrow())?
                }
                _ => {
                    let words = values.iter().map(|value| u16::try_from(*value)).collect::<Result<Vec<_>, _>>();
                    words.map_err(|_| narrow())?.into_iter().flat_map(u16::to_le_bytes).collect()
                }
            };
            if fits(bytes.len()) { Ok(bytes.into()) } else { Err(wrong(bytes.len())) }
        }
        _ => Err(contents_needed()),
    }
}

fn contents_needed() -> Status {
    bad_field("inputs", "have their elements either in `contents` or in `raw_input_contents`, one for the one input")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_one_is_left_out_of_a_shape() {
        for (shape, expected) in [
            (&[480, 640][..], &[480, 640][..]),
            (&[480, 640, 3], &[480, 640, 3]),
            (&[1, 480, 640], &[480, 640]),
            (&[1, 480, 640, 3], &[480, 640, 3]),
            (&[1, 480, 640, 1], &[480, 640, 1]),
            (&[1, 640, 3], &[1, 640, 3]),
            (&[2, 480, 640], &[2, 480, 640]),
        ] {
            assert_eq!(unbatched(shape), expected, "{shape:?}");
        }
    }
}
