//! Operators on pictures: convolutions, pools, scaling, sampling, boxes.

use super::{
    Bound, ElementType, Made, Rule, Span,
    rules::{Call, Ruled, one, scratch},
    shapes::distinct,
    span::times,
};
use crate::core::model::RANK_MAX;

pub(super) fn apply(rule: Rule, call: &Call<'_, '_>) -> Ruled {
    match rule {
        Rule::AffineGrid => affine_grid(call),
        Rule::Col2Im => col2im(call),
        Rule::Conv | Rule::QLinearConv => conv(rule, call),
        Rule::ConvTranspose => conv_transpose(call),
        Rule::GlobalPool => {
            let input = call.input(0)?;
            let dims = call.dims(0)?;
            let one = dims.iter().enumerate().map(|(number, dim)| if number < 2 { *dim } else { Span::exact(1.0) });
            Ok(Made { outputs: vec![Bound::new(input.element, one.collect::<Vec<_>>())], work: input.elements })
        }
        Rule::GridSample => {
            let (dims, grid) = (call.dims(0)?, call.dims(1)?);
            let ([_, _, ..], [_, spatial @ .., _]) = (dims, grid) else { return Err("it has no grid".into()) };
            let output = Bound::new(call.input(0)?.element, [&dims[..2], spatial].concat());
            // Cubic sampling looks at sixteen neighbours.
            Ok(Made { work: 16.0 * output.elements, outputs: vec![output] })
        }
        Rule::MaxUnpool => max_unpool(call),
        Rule::NonMaxSuppression => non_max_suppression(call),
        Rule::Pool => pool(call),
        Rule::Resize => resize(call),
        Rule::RoiAlign => roi_align(call),
        other => Err(format!("no rule says {other:?}")),
    }
}

/// How a window goes over the spatial dimensions of a picture.
struct Window {
    kernel: Vec<Span>,
    strides: Vec<f64>,
    dilations: Vec<f64>,
    /// Before and after.
    pads: Vec<(f64, f64)>,
    auto_pad: AutoPad,
}

#[derive(Clone, Copy, PartialEq)]
enum AutoPad {
    No,
    Same,
    Valid,
}

impl Window {
    fn of(call: &Call<'_, '_>, kernel: Vec<Span>) -> Result<Self, String> {
        let rank = kernel.len();
        let positive = |name: &str| -> Result<Vec<f64>, String> {
            let list =
                call.node.ints(name).map_or(vec![1.0; rank], |list| list.iter().map(|one| *one as f64).collect());
            if list.len() == rank && list.iter().all(|one| *one >= 1.0) {
                Ok(list)
            } else {
                Err(format!("its {name} are not {rank} numbers from 1"))
            }
        };
        let pads: Vec<f64> =
            call.node.ints("pads").map_or(vec![0.0; 2 * rank], |pads| pads.iter().map(|pad| *pad as f64).collect());
        if pads.len() != 2 * rank {
            return Err(format!("it has {} pads for {rank} dimensions", pads.len()));
        }
        let auto_pad = match call.node.text("auto_pad") {
            None | Some("NOTSET") => AutoPad::No,
            Some("SAME_UPPER" | "SAME_LOWER") => AutoPad::Same,
            Some("VALID") => AutoPad::Valid,
            Some(_) => return Err("its auto_pad is not known".into()),
        };
        let (strides, dilations) = (positive("strides")?, positive("dilations")?);
        Ok(Self {
            pads: (0..rank).map(|at| (pads[at], pads[rank + at])).collect(),
            kernel,
            strides,
            dilations,
            auto_pad,
        })
    }

    /// What a kernel of `span` reaches over, the dilation counted in.
    fn reach(&self, at: usize) -> Span {
        self.kernel[at].map(|length| self.dilations[at] * (length - 1.0) + 1.0)
    }

    /// Positions of the window along dimension `at` of length `dim`.
    fn positions(&self, at: usize, dim: Span, round: fn(f64) -> f64) -> Span {
        let stride = self.strides[at];
        let (before, after) = if self.auto_pad == AutoPad::No { self.pads[at] } else { (0.0, 0.0) };
        match self.auto_pad {
            AutoPad::Same => dim.map(|length| (length / stride).ceil()),
            _ => dim
                .plus(Span::exact(before + after))
                .minus(self.reach(at))
                .map(|room| round(room / stride) + 1.0)
                .length(),
        }
    }

    fn volume(&self) -> f64 {
        self.kernel.iter().fold(1.0, |volume, length| times(volume, length.max))
    }
}

fn conv(rule: Rule, call: &Call<'_, '_>) -> Ruled {
    let (at, weights) = if rule == Rule::QLinearConv { (0, 3) } else { (0, 1) };
    let (dims, weights) = (call.dims(at)?, call.dims(weights)?);
    let ([batch, _, spatial @ ..], [maps, depth, kernel @ ..]) = (dims, weights) else {
        return Err("it has too few dimensions".into());
    };
    if spatial.len() != kernel.len() || spatial.is_empty() {
        return Err("its kernel has other dimensions than its picture".into());
    }
    let window = Window::of(call, kernel.to_vec())?;
    let element = if call.node.operator == "ConvInteger" { ElementType::Int32 } else { call.input(at)?.element };
    let slid = spatial.iter().enumerate().map(|(at, dim)| window.positions(at, *dim, f64::floor));
    let output = Bound::new(element, [*batch, *maps].into_iter().chain(slid).collect::<Vec<_>>());
    let work = times(output.elements, times(window.volume(), depth.max));
    let mut outputs = vec![output];
    if call.node.operator != "Conv" {
        // On integers it unfolds the picture, all windows side by side; on float32 it takes them piece by piece.
        outputs.push(scratch(work / maps.max.max(1.0)));
    }
    Ok(Made { work, outputs })
}

fn conv_transpose(call: &Call<'_, '_>) -> Ruled {
    let (dims, weights) = (call.dims(0)?, call.dims(1)?);
    let ([batch, channels, spatial @ ..], [_, maps, kernel @ ..]) = (dims, weights) else {
        return Err("it has too few dimensions".into());
    };
    if spatial.len() != kernel.len() || spatial.is_empty() {
        return Err("its kernel has other dimensions than its picture".into());
    }
    let window = Window::of(call, kernel.to_vec())?;
    let list = |name: &str| call.node.ints(name).map(|list| list.iter().map(|one| *one as f64).collect::<Vec<f64>>());
    let more = list("output_padding").unwrap_or_else(|| vec![0.0; spatial.len()]);
    let given = list("output_shape").map(|shape| shape[shape.len().saturating_sub(spatial.len())..].to_vec());
    if more.len() != spatial.len() || given.as_ref().is_some_and(|given| given.len() != spatial.len()) {
        return Err("it has other paddings than dimensions".into());
    }
    let groups = Span::exact(call.node.int("group").unwrap_or(1).max(1) as f64);
    let grown = spatial.iter().enumerate().map(|(at, dim)| {
        let stride = Span::exact(window.strides[at]);
        match (&given, window.auto_pad) {
            (Some(given), _) => Span::exact(given[at]).length(),
            (None, AutoPad::Same) => dim.times(stride),
            (None, auto_pad) => {
                let (before, after) = if auto_pad == AutoPad::No { window.pads[at] } else { (0.0, 0.0) };
                let full = dim.minus(Span::exact(1.0)).length().times(stride).plus(window.reach(at));
                full.plus(Span::exact(more[at] - before - after)).length()
            }
        }
    });
    let dims: Vec<Span> = [*batch, maps.times(groups)].into_iter().chain(grown).collect();
    let output = Bound::new(call.input(0)?.element, dims);
    let work = times(call.input(0)?.elements, times(window.volume(), maps.max)).max(output.elements);
    // All windows side by side, before they are added up; channels are summed by then, those of a group.
    let windows = scratch(work / (channels.max / groups.max).max(1.0));
    Ok(Made { work, outputs: vec![output, windows] })
}

fn pool(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let [batch, channels, spatial @ ..] = call.dims(0)? else { return Err("it has too few dimensions".into()) };
    let kernel = call.node.ints("kernel_shape").ok_or("it has no kernel shape")?;
    if kernel.len() != spatial.len() || kernel.iter().any(|length| *length < 1) {
        return Err("its kernel has other dimensions than its picture".into());
    }
    let window = Window::of(call, kernel.iter().map(|length| Span::exact(*length as f64)).collect())?;
    let round = if call.node.int("ceil_mode").unwrap_or(0) != 0 { f64::ceil } else { f64::floor };
    let slid = spatial.iter().enumerate().map(|(at, dim)| window.positions(at, *dim, round));
    let dims: Vec<Span> = [*batch, *channels].into_iter().chain(slid).collect();
    let (output, places) = (Bound::new(input.element, dims.clone()), Bound::new(ElementType::Int64, dims));
    let outputs = if call.node.outputs.len() > 1 { vec![output, places] } else { vec![output] };
    Ok(Made { work: times(outputs[0].elements, window.volume()), outputs })
}

fn max_unpool(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let [batch, channels, spatial @ ..] = call.dims(0)? else { return Err("it has too few dimensions".into()) };
    if call.optional(2).is_some() {
        let dims: Vec<Span> = call.sizes(2)?.iter().map(|size| size.length()).collect();
        return if dims.len() == spatial.len() + 2 {
            one(Bound::new(input.element, dims))
        } else {
            Err("its output shape has other dimensions than its picture".into())
        };
    }
    let kernel = call.node.ints("kernel_shape").ok_or("it has no kernel shape")?;
    if kernel.len() != spatial.len() {
        return Err("its kernel has other dimensions than its picture".into());
    }
    let window = Window::of(call, kernel.iter().map(|length| Span::exact(*length as f64)).collect())?;
    let grown = spatial.iter().enumerate().map(|(at, dim)| {
        let (before, after) = window.pads[at];
        let apart = dim.minus(Span::exact(1.0)).times(Span::exact(window.strides[at]));
        apart.plus(window.reach(at)).minus(Span::exact(before + after)).length()
    });
    one(Bound::new(input.element, [*batch, *channels].into_iter().chain(grown).collect::<Vec<_>>()))
}

fn resize(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let mut dims = call.dims(0)?.to_vec();
    if call.node.text("coordinate_transformation_mode") == Some("tf_crop_and_resize") {
        return Err("it crops by numbers that are not followed".into());
    }
    let policy = call.node.text("keep_aspect_ratio_policy").unwrap_or("stretch");
    let axes = match call.node.ints("axes") {
        Some(axes) => {
            axes.iter().map(|axis| super::rules::place(*axis as f64, dims.len())).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..dims.len()).collect(),
    };
    let is_given = |at: usize| call.optional(at).is_some_and(|input| input.elements > 0.0);
    let (by_sizes, given) = if is_given(3) { (true, call.sizes(3)?) } else { (false, call.sizes(2)?) };
    if given.len() != axes.len() {
        return Err("it has other sizes than axes".into());
    }
    distinct(&axes)?;
    for (axis, given) in axes.iter().zip(given) {
        dims[*axis] = match (by_sizes, policy) {
            (false, _) => dims[*axis].times(given.length()).map(f64::floor),
            (true, "stretch") => given.length(),
            (true, "not_larger") => Span::up_to(given.length().max),
            (true, _) => return Err("it keeps the aspect ratio at a size that is not followed".into()),
        };
    }
    let output = Bound::new(input.element, dims);
    // Cubic interpolation looks at sixteen neighbours; with antialiasing each input is looked at as often.
    Ok(Made { work: 16.0 * (output.elements + input.elements), outputs: vec![output] })
}

fn roi_align(call: &Call<'_, '_>) -> Ruled {
    let (dims, rois) = (call.dims(0)?, call.dims(1)?);
    let ([_, channels, _, _], [count, _]) = (dims, rois) else { return Err("it takes a picture and boxes".into()) };
    let side = |name: &str| Span::exact(call.node.int(name).unwrap_or(1).max(0) as f64);
    let ratio = call.node.int("sampling_ratio").unwrap_or(0);
    if ratio <= 0 {
        // ONNX Runtime then takes samples, and memory for them, in proportion to the size of each box.
        return Err("it samples a box as often as the box is large; give it a sampling ratio".into());
    }
    let output = Bound::new(call.input(0)?.element, [*count, *channels, side("output_height"), side("output_width")]);
    let samples = 4.0 * (ratio as f64) * (ratio as f64);
    // It keeps eight numbers for every sample of one box while it works.
    let samples_of_box = times(times(side("output_height").max, side("output_width").max), samples * 8.0);
    Ok(Made { work: times(output.elements, samples), outputs: vec![output, scratch(samples_of_box)] })
}

fn non_max_suppression(call: &Call<'_, '_>) -> Ruled {
    let (boxes, scores) = (call.dims(0)?, call.dims(1)?);
    let ([batch, count, _], [_, classes, _]) = (boxes, scores) else { return Err("it takes boxes and scores".into()) };
    let most = match (call.optional(2), call.values(2).and_then(|values| values.first())) {
        (None, _) => 0.0,
        (Some(_), Some(most)) => most.max.clamp(0.0, count.max),
        (Some(_), None) => count.max,
    };
    let lists = times(batch.max, classes.max);
    let output = Bound::new(ElementType::Int64, [Span::up_to(times(lists, most)), Span::exact(3.0)]);
    Ok(Made { work: times(lists, times(count.max, most.max(1.0))), outputs: vec![output] })
}

fn affine_grid(call: &Call<'_, '_>) -> Ruled {
    let size = call.sizes(1)?;
    let [batch, _, spatial @ ..] = size else { return Err("it has no size".into()) };
    let axes = Span::exact(spatial.len() as f64);
    let dims = std::iter::once(batch).chain(spatial).map(|length| length.length()).chain([axes]);
    one(Bound::new(call.input(0)?.element, dims.collect::<Vec<_>>()))
}

fn col2im(call: &Call<'_, '_>) -> Ruled {
    let input = call.input(0)?;
    let [batch, columns, _] = call.dims(0)? else { return Err("it takes three dimensions".into()) };
    let (picture, block) = (call.sizes(1)?, call.sizes(2)?);
    if picture.len() > RANK_MAX - 2 {
        return Err("it has too many dimensions".into());
    }
    let block = block.iter().fold(Span::exact(1.0), |product, length| product.times(length.length()));
    let channels = columns.over(block).ok_or("its block may be empty")?.map(f64::ceil);
    let dims = [*batch, channels].into_iter().chain(picture.iter().map(|length| length.length()));
    let output = Bound::new(input.element, dims.collect::<Vec<_>>());
    Ok(Made { work: input.elements + output.elements, outputs: vec![output] })
}
