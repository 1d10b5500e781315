//! From the text of a recipe to a [`Recipe`], table by table in the order of the spec page.

use super::{
    Activation, Colour, Comparator, ENCODED_BYTES_MAX, FRAME_PIXELS_MAX, FRAME_SIDE_PX_MAX, FileRef, Fit, FrameFormat,
    FrameRules, INPUT_PIXELS_MAX, INPUT_SIDE_PX_MAX, Input, LabelPolicy, NAME_BYTES_MAX, Output, OutputKind, Policy,
    QualityBounds, Recipe, RecipeError, Region, Resize, Role, SideRange, TENSOR_NAME_BYTES_MAX, THRESHOLD_MAX,
    TITLE_BYTES_MAX, Tiling, detection, output,
    reader::{Document, Placed, Section},
    region, template, tiling,
};
use crate::types::{Blake3Digest, PixelFormat, Score};

/// The newest format. Format 1 is read as it always was: what came with format 2 is not known in it.
const FORMAT_MAX: u64 = 2;
/// Encodings plus PFNC names.
const FORMATS_MAX: usize = 4 + PixelFormat::ALL.len();
/// Smallest standard deviation; a smaller one makes tensors of infinities.
const STD_MIN: f32 = 1.0e-6;
/// Largest mean or standard deviation.
const NORMALISATION_MAX: f32 = 1.0e6;

pub(super) fn recipe(text: &str) -> Result<Recipe, RecipeError> {
    let document = Document::parse(text)?;
    let questions = document.questions();
    if !questions.is_empty() {
        return Err(RecipeError::Unanswered { questions });
    }
    let mut root = document.root();
    let format = root.required("format")?.integer(1..=FORMAT_MAX)?;
    let name = name(&root.required("name")?)?;
    let version = version(&root.required("version")?)?;
    let title = root.required("title")?.text(TITLE_BYTES_MAX)?;
    let model = file_ref(&root.required("model")?)?;
    let calibration = root.optional("calibration").map(|value| file_ref(&value)).transpose()?;
    let frame = frame_rules(root.required("frame")?.table()?)?;
    let quality = match root.optional("quality") {
        Some(value) => quality_bounds(value.table()?)?,
        None => QualityBounds::default(),
    };
    let region = match format {
        1 => None,
        _ => root.optional("region").map(|value| Ok((region::region(&value, &frame)?, value))).transpose()?,
    };
    let tiling = match format {
        1 => None,
        _ => {
            let region = region.as_ref().map(|(region, _)| region);
            root.optional("tiling").map(|value| Ok((tiling::tiling(&value, &frame, region)?, value))).transpose()?
        }
    };
    let template = match format {
        1 => None,
        _ => root.optional("template").map(|value| Ok((template::template(&value, &frame)?, value))).transpose()?,
    };
    let input = input(root.required("input")?.table()?)?;
    let output = output::output(root.required("output")?.table()?, format, tiling.is_some())?;
    if let Some((region, value)) = &region {
        region::check_output(value, region, &output)?;
    }
    if let Some((tiling, value)) = &tiling {
        tiling::check_output(value, *tiling, &output)?;
    }
    if let Some((template, value)) = &template {
        let crop = region.as_ref().filter(|(region, _)| region.crop).map(|(region, _)| region.around.size());
        let view_px = crop.unwrap_or(frame.largest_px());
        template::check_input(value, template, &input, tiling.as_ref().map(|(tiling, _)| *tiling), view_px)?;
    }
    let template = template.map(|(template, _)| template);
    let (region, tiling) = (region.map(|(region, _)| region), tiling.map(|(tiling, _)| tiling));
    let policy = policy(root.required("policy")?.table()?, &output, format)?;
    check_unresized(&root, &frame, region.as_ref(), tiling, &input)?;
    root.finish()?;
    let digest = Blake3Digest::of(text.as_bytes());
    Ok(Recipe {
        digest,
        name,
        version,
        title,
        model,
        calibration,
        frame,
        quality,
        region,
        tiling,
        template,
        input,
        output,
        policy,
    })
}

/// Where nothing is resized, what the model sees must be able to have its size.
fn check_unresized(
    root: &Section<'_>,
    frame: &FrameRules,
    region: Option<&Region>,
    tiling: Option<Tiling>,
    input: &Input,
) -> Result<(), RecipeError> {
    if input.resize != Resize::None {
        return Ok(());
    }
    let input_px = (input.width_px, input.height_px);
    let cropped = region.filter(|region| region.crop).map(|region| region.around.size());
    let is_met = match (tiling, cropped) {
        (Some(tiling), _) => {
            let (width, height) = cropped.unwrap_or(frame.smallest_px());
            (tiling.width_px, tiling.height_px) == input_px && width >= input_px.0 && height >= input_px.1
        }
        (None, Some(cropped)) => cropped == input_px,
        (None, None) => frame.width_px.contains(input_px.0) && frame.height_px.contains(input_px.1),
    };
    if is_met {
        return Ok(());
    }
    let (width, height) = input_px;
    let problem = format!("is none, but [frame], [region] and [tiling] do not give views of {width}x{height} px");
    Err(root.problem("input.resize", problem))
}

/// `[a-z0-9-]`, 1..64 characters.
pub(super) fn name(value: &Placed<'_>) -> Result<String, RecipeError> {
    let name = value.text(NAME_BYTES_MAX)?;
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        Ok(name)
    } else {
        Err(value.problem("may hold only a-z, 0-9 and -"))
    }
}

/// A semantic version.
pub(super) fn version(value: &Placed<'_>) -> Result<String, RecipeError> {
    let version = value.text(NAME_BYTES_MAX)?;
    match semver::Version::parse(&version) {
        Ok(_) => Ok(version),
        Err(error) => Err(value.problem(format!("is no semantic version such as 1.0.0: {error}"))),
    }
}

fn file_ref(value: &Placed<'_>) -> Result<FileRef, RecipeError> {
    let mut section = value.table()?;
    let file = file_ref_of(&mut section)?;
    section.finish()?;
    Ok(file)
}

/// The keys `file` and `digest` of a section.
pub(super) fn file_ref_of(section: &mut Section<'_>) -> Result<FileRef, RecipeError> {
    let file_value = section.required("file")?;
    let file = file_value.text(TITLE_BYTES_MAX)?;
    // The name is joined to a folder, so it must not lead out of it on any system.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    if !file.bytes().all(is_plain) || file.starts_with('.') {
        return Err(file_value.problem("is a file name without a path: letters, digits, '.', '_', '-' and '+'"));
    }
    let digest = section.required("digest")?.digest()?;
    Ok(FileRef { file, digest })
}

fn frame_rules(mut section: Section<'_>) -> Result<FrameRules, RecipeError> {
    let mut formats = Vec::new();
    for value in section.required("formats")?.array(FORMATS_MAX)? {
        let format: FrameFormat = value
            .text(NAME_BYTES_MAX)?
            .parse()
            .map_err(|error: super::UnknownFrameFormat| value.problem(error.to_string()))?;
        if formats.contains(&format) {
            return Err(value.problem(format!("names {format} a second time")));
        }
        formats.push(format);
    }
    let width_px = side_range(&section.required("width_px")?)?;
    let height_value = section.required("height_px")?;
    let height_px = side_range(&height_value)?;
    let pixels = u64::from(width_px.max) * u64::from(height_px.max);
    if pixels > FRAME_PIXELS_MAX {
        return Err(
            height_value.problem(format!("and width_px allow {pixels} pixels; at most {FRAME_PIXELS_MAX} are allowed"))
        );
    }
    let encoded_bytes_max = section.required("encoded_bytes_max")?.integer(1..=ENCODED_BYTES_MAX)?;
    section.finish()?;
    Ok(FrameRules { formats, width_px, height_px, encoded_bytes_max })
}

fn side_range(value: &Placed<'_>) -> Result<SideRange, RecipeError> {
    let mut section = value.table()?;
    let min = section.required("min")?.integer_u32(1..=FRAME_SIDE_PX_MAX)?;
    let max = section.required("max")?.integer_u32(min..=FRAME_SIDE_PX_MAX)?;
    section.finish()?;
    Ok(SideRange { min, max })
}

fn quality_bounds(mut section: Section<'_>) -> Result<QualityBounds, RecipeError> {
    let mut bound = |key| section.optional(key).map(|value| value.score(0.0..=1.0)).transpose();
    let mean_min = bound("mean_min")?;
    let mean_max = bound("mean_max")?;
    let saturated_share_max = bound("saturated_share_max")?;
    // The Laplacian of 0..1 values lies in -4..4, so its variance is at most 16.
    let focus_min = section.optional("focus_min").map(|value| value.score(0.0..=16.0)).transpose()?;
    if let (Some(min), Some(max)) = (mean_min, mean_max)
        && min > max
    {
        return Err(section.problem("mean_min", format!("is {} and lies above mean_max, {}", min.get(), max.get())));
    }
    section.finish()?;
    Ok(QualityBounds { mean_min, mean_max, saturated_share_max, focus_min })
}

fn input(mut section: Section<'_>) -> Result<Input, RecipeError> {
    let tensor = section.required("tensor")?.text(TENSOR_NAME_BYTES_MAX)?;
    let colour =
        section.required("colour")?.word(&[("gray", Colour::Gray), ("rgb", Colour::Rgb), ("bgr", Colour::Bgr)])?;
    let width_px = section.required("width_px")?.integer_u32(1..=INPUT_SIDE_PX_MAX)?;
    let height_value = section.required("height_px")?;
    let height_px = height_value.integer_u32(1..=INPUT_SIDE_PX_MAX)?;
    if u64::from(width_px) * u64::from(height_px) > INPUT_PIXELS_MAX {
        return Err(height_value.problem(format!("times width_px is more than {INPUT_PIXELS_MAX} pixels")));
    }
    let resize = section.required("resize")?.word(&[
        ("pillow-nearest", Resize::PillowNearest),
        ("pillow-bilinear", Resize::PillowBilinear),
        ("pillow-bicubic", Resize::PillowBicubic),
        ("pillow-lanczos", Resize::PillowLanczos),
        ("opencv-linear", Resize::OpencvLinear),
        ("none", Resize::None),
    ])?;
    let fit = fit(&mut section, resize)?;
    let mean = constants(&mut section, "mean", colour, -NORMALISATION_MAX..=NORMALISATION_MAX)?;
    let std = constants(&mut section, "std", colour, STD_MIN..=NORMALISATION_MAX)?;
    section.finish()?;
    Ok(Input { tensor, colour, width_px, height_px, resize, fit, mean, std })
}

fn fit(section: &mut Section<'_>, resize: Resize) -> Result<Fit, RecipeError> {
    let value = section.required("fit")?;
    let pad = section.optional("pad");
    match (value.word(&[("stretch", false), ("letterbox", true)])?, pad) {
        (false, None) => Ok(Fit::Stretch),
        (false, Some(pad)) => Err(pad.problem("has a meaning only with fit = \"letterbox\"")),
        (true, _) if resize == Resize::None => Err(value.problem("is letterbox, which resize = \"none\" cannot do")),
        (true, None) => Err(section.problem("pad", "is missing; fit = \"letterbox\" needs it".to_owned())),
        (true, Some(pad)) => {
            let pad = pad.level()?;
            Ok(Fit::Letterbox { pad })
        }
    }
}

fn constants(
    section: &mut Section<'_>,
    key: &'static str,
    colour: Colour,
    allowed: std::ops::RangeInclusive<f32>,
) -> Result<Vec<f32>, RecipeError> {
    let value = section.required(key)?;
    let items = value.array(3)?;
    if items.len() != colour.channels() {
        let problem = format!("has {} values, the colour has {} channels", items.len(), colour.channels());
        return Err(value.problem(problem));
    }
    items.iter().map(|item| item.number(allowed.clone())).collect()
}

fn policy(mut section: Section<'_>, output: &Output, format: u64) -> Result<Policy, RecipeError> {
    let comparator =
        section.required("comparator")?.word(&[(">=", Comparator::AtOrAbove), (">", Comparator::Above)])?;
    let review = threshold(&section.required("review")?)?;
    let reject_value = section.required("reject")?;
    let reject = threshold(&reject_value)?;
    in_order(&reject_value, review, reject)?;
    let top_score_value = section.optional("top_score_min");
    let top_score_min = match &top_score_value {
        Some(value) => {
            let score = threshold(value)?;
            if score != Score::ZERO && output.kind != OutputKind::Classification {
                return Err(value.problem("has a meaning only for classification models"));
            }
            score
        }
        None => Score::ZERO,
    };
    let role = Role::Defect { review, reject };
    let mut labels: Vec<LabelPolicy> =
        output.labels.iter().map(|label| LabelPolicy { label: label.clone(), role }).collect();
    if let Some(classes) = section.optional("class") {
        for class in classes.table()?.entries() {
            let label = class.name(&classes.key);
            let Some(policy) = labels.iter_mut().find(|policy| policy.label == label) else {
                return Err(class.problem(format!("is no label of [output]; labels are {}", output.labels.join(", "))));
            };
            policy.role = class_role(&class, review, reject)?;
        }
    }
    if labels.iter().all(|policy| policy.role == Role::Ok) {
        return Err(section.problem("class", "leaves no label that is a defect, so every frame would be OK".to_owned()));
    }
    let has_ok_label = labels.iter().any(|policy| policy.role == Role::Ok);
    if let Some(value) = top_score_value.filter(|_| format > 1 && top_score_min > Score::ZERO)
        && output.activation == Activation::Sigmoid
        && !has_ok_label
    {
        return Err(value.problem(
            "with activation = \"sigmoid\" would send every part without a defect to a person: no label of it is high; \
             leave it out, or give the model a label with role = \"ok\"",
        ));
    }
    if let OutputKind::Detection(detection) = &output.kind {
        detection::check_policy(&reject_value, detection, &labels)?;
    }
    section.finish()?;
    Ok(Policy { comparator, top_score_min, labels })
}

fn class_role(value: &Placed<'_>, review: Score, reject: Score) -> Result<Role, RecipeError> {
    let mut section = value.table()?;
    let role = section.optional("role").map(|value| value.word(&[("defect", false), ("ok", true)])).transpose()?;
    let own_review = section.optional("review");
    let own_reject = section.optional("reject");
    let role = if role == Some(true) {
        if let Some(value) = own_review.or(own_reject) {
            return Err(value.problem("has no meaning for a label with role = \"ok\""));
        }
        Role::Ok
    } else {
        let review = own_review.map(|value| threshold(&value)).transpose()?.unwrap_or(review);
        let reject = own_reject.map(|value| threshold(&value)).transpose()?.unwrap_or(reject);
        in_order(value, review, reject)?;
        Role::Defect { review, reject }
    };
    section.finish()?;
    Ok(role)
}

fn threshold(value: &Placed<'_>) -> Result<Score, RecipeError> {
    value.score(-THRESHOLD_MAX..=THRESHOLD_MAX)
}

fn in_order(value: &Placed<'_>, review: Score, reject: Score) -> Result<(), RecipeError> {
    if review <= reject {
        Ok(())
    } else {
        Err(value.problem(format!("puts reject, {}, below review, {}", reject.get(), review.get())))
    }
}
