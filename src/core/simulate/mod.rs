//! Simulated parts before a simulated camera, with the truth about every pixel.
//!
//! The simulator is the demo line, the load generator and a source of labelled pictures. A part is a pure function of
//! the seed, the part number and the configuration: the same bytes on every machine, today and later (see `dice`).
//!
//! **When is a part bad?** When at least one of its marks reaches the *acceptance limit*, all three parts of it: it
//! covers at least [`LIMIT_AREA`] square units (512 units are the shorter side of the frame), changes its pixels by at
//! least [`LIMIT_CONTRAST`] grey levels on average, and by at least [`LIMIT_RATIO`] times the spread of the undamaged
//! surface around it including the sensor's noise. Contrast is measured, not declared: the frame is imaged once with
//! and once without its marks, after lens and exposure, before noise. How many times the limit a mark is, is its
//! [`severity`](Defect::severity). A mark below 1 is *cosmetic*: reported with `is_over_limit: false`, not in the mask,
//! and the part stays good.
//!
//! **Why this limit?** An inspection plan puts its limit well above what can just be seen, because people do not agree
//! on what can just be seen. Rose (1948) found an object in noise to be seen reliably from about five for contrast over
//! noise times the square root of the area in pixels; the smallest mark at this limit has 2 x sqrt(24) = 9.8. (Tool
//! marks are no white noise and hide more, hence the factor of two.) As on boundary samples, most defects are
//! clearly above the limit ([`DEFECT_FROM`]) and most cosmetic marks clearly below it ([`COSMETIC_TO`]), with a few in
//! between ([`CLOSE_RATE`]), where the rule still decides.
//!
//! These are the pixels and the rule of version 2, on which `machined-surface` 1.1.0 was trained. Version 1 counted marks
//! from 20 square units, 8 grey levels and 1.0 times the spread; its pictures and figures are not comparable.

mod canvas;
mod defect;
mod dice;
mod feature;
mod noise;
mod optics;
mod surface;

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::Serialize;

use self::{
    canvas::{Area, Canvas},
    defect::{Size, Stamp},
    dice::{Dice, small_sin_cos},
    feature::Features,
    optics::Optics,
    surface::{Face, Ground, Light, Outline, Pose},
};

/// The acceptance limit: smallest area of a mark that counts, in square units; at 512 pixels a unit is a pixel.
pub const LIMIT_AREA: f32 = 24.0;

/// The acceptance limit: smallest mean change of the mark's pixels, in grey levels of 255.
pub const LIMIT_CONTRAST: f32 = 12.0;

/// The acceptance limit: smallest ratio of that change to the deviation of the surface around it.
pub const LIMIT_RATIO: f32 = 2.0;

/// Shortest and longest side of a frame.
pub const SIDE_PX_MIN: u32 = 64;
pub const SIDE_PX_MAX: u32 = 8_192;

/// Most defects are drawn with at least this severity.
const DEFECT_FROM: f32 = 1.2;

/// Most cosmetic marks are drawn with at most this severity.
const COSMETIC_TO: f32 = 0.6;

/// Share of defects, and of cosmetic marks, that are drawn between [`COSMETIC_TO`] and [`DEFECT_FROM`].
const CLOSE_RATE: f32 = 0.06;

/// Share of good parts that carry a cosmetic mark.
const COSMETIC_RATE: f32 = 0.2;

/// Strength is raised or lowered this often until a mark is as severe as wanted.
const ATTEMPTS_MAX: u32 = 5;

/// A mark too small for what it should be is drawn anew this often.
const SHAPES_MAX: u32 = 8;

/// How the face of the part was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    Turned,
    Milled,
    Cast,
    Plastic,
}

impl Surface {
    pub const ALL: [Self; 4] = [Self::Turned, Self::Milled, Self::Cast, Self::Plastic];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Turned => "turned",
            Self::Milled => "milled",
            Self::Cast => "cast",
            Self::Plastic => "plastic",
        }
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Surface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|surface| surface.name() == text)
            .ok_or_else(|| format!("{text:?} is no surface; use turned, milled, cast or plastic"))
    }
}

/// What is wrong with a place on a part. The number is the label in the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DefectKind {
    Scratch = 1,
    Dent = 2,
    Pit = 3,
    Stain = 4,
}

impl DefectKind {
    pub const ALL: [Self; 4] = [Self::Scratch, Self::Dent, Self::Pit, Self::Stain];

    /// The value of this defect's pixels in the mask; 0 is no defect.
    #[must_use]
    pub fn label(self) -> u8 {
        self as u8
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Dent => "dent",
            Self::Pit => "pit",
            Self::Stain => "stain",
        }
    }
}

impl fmt::Display for DefectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One mark, defect or cosmetic, as the ground truth knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defect {
    pub kind: DefectKind,
    /// Left, top, right, bottom in pixels; right and bottom are outside.
    pub bbox: [u32; 4],
    pub area_px: u32,
    /// Mean absolute change of its pixels, in grey levels of 255, after lens and exposure.
    pub contrast: f32,
    /// `contrast` divided by the deviation of the undamaged surface around it, noise included.
    pub contrast_ratio: f32,
    /// How many times the acceptance limit it is: the least of its area, contrast and ratio, each over its limit.
    pub severity: f32,
    /// Whether it counts; see the module's rule.
    pub is_over_limit: bool,
}

/// One simulated part and its frame.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedPart {
    pub number: u64,
    pub serial: String,
    pub surface: Surface,
    pub width_px: u32,
    pub height_px: u32,
    /// 8-bit grey pixels, row by row without padding.
    pub frame: Vec<u8>,
    /// One label per pixel: 0 none, else [`DefectKind::label`]. Only marks over the limit are in it.
    pub mask: Vec<u8>,
    pub defects: Vec<Defect>,
    /// At least one mark is over the limit.
    pub is_bad: bool,
}

#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    pub seed: u64,
    pub width_px: u32,
    pub height_px: u32,
    /// Share of bad parts, 0 to 1.
    pub defect_rate: f32,
    /// Surfaces to draw from, evenly.
    pub surfaces: Vec<Surface>,
    /// How many products (outline, bores, tool, lamp) there are per surface; `None`: every part is its own product,
    /// which is what training wants. A line makes one or a few.
    pub designs: Option<u32>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            width_px: 512,
            height_px: 512,
            defect_rate: 0.2,
            surfaces: Surface::ALL.to_vec(),
            designs: None,
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SimulatorError {
    #[error("a simulated frame has sides of {SIDE_PX_MIN} to {SIDE_PX_MAX} pixels, not {width_px}x{height_px}")]
    Size { width_px: u32, height_px: u32 },
    #[error("the defect rate is a share between 0 and 1, not {0}")]
    DefectRate(f32),
    #[error("name at least one surface: turned, milled, cast or plastic")]
    NoSurface,
    #[error("there must be at least one design; leave the number out to give every part its own")]
    NoDesign,
}

/// Makes parts by number. Cheap to clone; parts may be made in any order and on many threads.
#[derive(Clone, Debug)]
pub struct Simulator {
    config: SimulatorConfig,
}

impl Simulator {
    /// # Errors
    /// [`SimulatorError`] when the configuration asks for no possible part.
    pub fn new(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let sides = SIDE_PX_MIN..=SIDE_PX_MAX;
        if !sides.contains(&config.width_px) || !sides.contains(&config.height_px) {
            return Err(SimulatorError::Size { width_px: config.width_px, height_px: config.height_px });
        }
        if !(0.0..=1.0).contains(&config.defect_rate) {
            return Err(SimulatorError::DefectRate(config.defect_rate));
        }
        if config.surfaces.is_empty() {
            return Err(SimulatorError::NoSurface);
        }
        if config.designs == Some(0) {
            return Err(SimulatorError::NoDesign);
        }
        Ok(Self { config })
    }

    #[must_use]
    pub fn config(&self) -> &SimulatorConfig {
        &self.config
    }

    /// The serial of part `number`: unique over seeds.
    #[must_use]
    pub fn serial(&self, number: u64) -> String {
        format!("S{}-{number:06}", self.config.seed)
    }

    /// Part `number`, always the same for the same configuration.
    #[must_use]
    pub fn part(&self, number: u64) -> SimulatedPart {
        let dice = |purpose| Dice::new(self.config.seed, number, purpose);
        let surface = self.config.surfaces[dice("surface").below(self.config.surfaces.len() as u32) as usize];
        let scene = Scene::new(self, surface, number);
        let Scene { canvas: clean, optics, light } = scene;

        let mut truth = Truth { mask: vec![0; clean.light.len()], defects: Vec::new() };
        let is_meant_bad = dice("bad").unit() < self.config.defect_rate;
        let image = if is_meant_bad {
            truth.damage(&clean, &optics, light, &mut dice("defects"))
        } else if dice("cosmetic").chance(COSMETIC_RATE) {
            truth.blemish(&clean, &optics, light, &mut dice("defects"))
        } else {
            optics.expose(&clean)
        };

        SimulatedPart {
            number,
            serial: self.serial(number),
            surface,
            width_px: self.config.width_px,
            height_px: self.config.height_px,
            frame: optics.read_out(&image, &mut dice("noise")),
            is_bad: truth.defects.iter().any(|defect| defect.is_over_limit),
            mask: truth.mask,
            defects: truth.defects,
        }
    }
}

/// A good part under the lamp, not yet seen through the lens.
struct Scene {
    canvas: Canvas,
    optics: Optics,
    /// Horizontal direction towards the lamp in image axes.
    light: (f32, f32),
}

impl Scene {
    fn new(simulator: &Simulator, surface: Surface, number: u64) -> Self {
        let SimulatorConfig { seed, width_px, height_px, designs, .. } = simulator.config;
        let size = (width_px as usize, height_px as usize);
        let mut canvas = Canvas::new(size.0, size.1);
        let mut part = Dice::new(seed, number, "part");
        let design = designs.map_or(number, |count| u64::from(Dice::new(seed, number, "design").below(count)));
        let mut design = Dice::new(seed, design, &format!("design {surface}"));

        let outline = outline(surface, &mut design);
        let (sin, cos) = small_sin_cos(part.range(-0.06, 0.06));
        let pose = Pose { sin, cos, shift_x: part.range(-9.0, 9.0), shift_y: part.range(-9.0, 9.0) };
        let lamp = design.direction();
        let (sway, _) = small_sin_cos(part.range(-0.25, 0.25));
        let lamp = (lamp.0 - sway * lamp.1, lamp.1 + sway * lamp.0);
        let length = (lamp.0 * lamp.0 + lamp.1 * lamp.1).sqrt();
        let image_light = (lamp.0 / length, lamp.1 / length);
        let (light_u, light_v) = (cos * image_light.0 + sin * image_light.1, cos * image_light.1 - sin * image_light.0);
        let light = Light { u: light_u, v: light_v, hardness: design.range(0.3, 1.0) };

        let mut face = Face::new(surface, outline, size, canvas.scale, &mut design, &mut part);
        let features = Features::of_design(surface, outline, &mut design);
        let mut ground = Ground::new(size, canvas.scale, &mut design, &mut part, light);
        let step = (pose.cos / canvas.scale, -pose.sin / canvas.scale);
        for y in 0..size.1 {
            let (x0, y0) = canvas.units(0, y);
            let start = pose.to_part(x0, y0);
            face.row(y, start, step, light, &mut canvas.light[y * size.0..(y + 1) * size.0]);
        }
        features.draw(&mut canvas, pose, light, face.albedo(), &mut part);
        for y in 0..size.1 {
            let (x0, y0) = canvas.units(0, y);
            let row = y * size.0..(y + 1) * size.0;
            let (out, on_part) = (&mut canvas.light[row.clone()], &mut canvas.on_part[row]);
            ground.row(y, pose.to_part(x0, y0), step, canvas.scale, outline, light, face.albedo(), out, on_part);
        }
        feature::dirt(&mut canvas, &mut part);
        let is_shiny = matches!(surface, Surface::Turned | Surface::Milled | Surface::Plastic);
        let optics = Optics::new(&canvas, is_shiny, &mut Dice::new(seed, number, "optics"));
        Self { canvas, optics, light: image_light }
    }
}

fn outline(surface: Surface, design: &mut Dice) -> Outline {
    let fills = design.chance(0.35);
    let is_round = design.chance(if surface == Surface::Turned { 1.0 } else { 0.2 });
    let (radius, half_width, half_height) =
        (design.range(170.0, 240.0), design.range(190.0, 250.0), design.range(150.0, 240.0));
    let corner = design.range(4.0, 60.0);
    if fills {
        Outline::Everywhere
    } else if is_round {
        Outline::Disc { radius }
    } else {
        Outline::Plate { half_width, half_height, corner }
    }
}

/// A mark on its way onto the part, and how strong it should come out.
struct Mark {
    stamp: Stamp,
    /// Wanted [`strength`] after lens and exposure.
    wanted: RangeInclusive<f32>,
}

impl Mark {
    /// A defect: over the limit wherever the surface lets it.
    fn defect(canvas: &Canvas, light: (f32, f32), exposure: f32, dice: &mut Dice) -> Option<Self> {
        let kind = DefectKind::ALL[dice.below(4) as usize];
        let is_close = dice.chance(CLOSE_RATE);
        // From the limit to plain, more of the former.
        let plain = if kind == DefectKind::Stain { 50.0 } else { 85.0 };
        let levels = dice.mostly_low(18.0, plain);
        let least = if is_close { dice.range(1.0, 1.1) } else { dice.range(DEFECT_FROM, 2.2) };
        let wanted = least..=if is_close { 1.08 * least } else { f32::INFINITY };
        let mut stamp = (0..SHAPES_MAX)
            .filter_map(|_| Stamp::new(kind, Size::Any, canvas, light, dice))
            .find(|stamp| stamp.area_units(canvas) >= LIMIT_AREA * DEFECT_FROM)?;
        stamp.aim_at(canvas, exposure, levels);
        Some(Self { stamp, wanted })
    }

    /// A cosmetic mark: faint, or strong and too small to count.
    fn cosmetic(canvas: &Canvas, light: (f32, f32), exposure: f32, dice: &mut Dice) -> Option<Self> {
        let kind = DefectKind::ALL[dice.below(4) as usize];
        if kind == DefectKind::Pit && dice.chance(0.5) {
            let mut stamp = (0..SHAPES_MAX)
                .filter_map(|_| Stamp::new(kind, Size::Pinhole, canvas, light, dice))
                .find(|stamp| stamp.area_units(canvas) <= LIMIT_AREA * COSMETIC_TO)?;
            stamp.aim_at(canvas, exposure, dice.range(20.0, 60.0));
            return Some(Self { stamp, wanted: 0.0..=f32::INFINITY });
        }
        let most = if dice.chance(CLOSE_RATE) { dice.range(COSMETIC_TO, 1.0) } else { dice.range(0.2, COSMETIC_TO) };
        let mut stamp = Stamp::new(kind, Size::Any, canvas, light, dice)?;
        stamp.aim_at(canvas, exposure, LIMIT_CONTRAST * most);
        Some(Self { stamp, wanted: 0.85 * most..=most })
    }
}

/// How much a mark stands out, in times of the limit; its area does not matter here.
fn strength(defect: &Defect) -> f32 {
    (defect.contrast / LIMIT_CONTRAST).min(defect.contrast_ratio / LIMIT_RATIO)
}

/// What is wrong with the part, collected while it is damaged.
struct Truth {
    mask: Vec<u8>,
    defects: Vec<Defect>,
}

impl Truth {
    /// Adds one to three defects; returns the imaged frame.
    fn damage(&mut self, clean: &Canvas, optics: &Optics, light: (f32, f32), dice: &mut Dice) -> Vec<f32> {
        let count = if dice.chance(0.72) { 1 } else { 2 + dice.below(2) };
        let mut marks: Vec<Mark> =
            (0..count).filter_map(|_| Mark::defect(clean, light, optics.exposure, dice)).collect();
        let before = optics.expose(clean);
        let (after, measured) = draw(&mut marks, clean, optics, &before);
        for (mark, defect) in marks.iter().zip(measured) {
            self.add(&mark.stamp, clean, defect);
        }
        after
    }

    /// Adds one mark that does not count; returns the imaged frame.
    fn blemish(&mut self, clean: &Canvas, optics: &Optics, light: (f32, f32), dice: &mut Dice) -> Vec<f32> {
        let before = optics.expose(clean);
        let mut marks: Vec<Mark> = Mark::cosmetic(clean, light, optics.exposure, dice).into_iter().collect();
        let (after, measured) = draw(&mut marks, clean, optics, &before);
        if measured.iter().any(|defect| defect.is_over_limit) {
            return before;
        }
        for (mark, defect) in marks.iter().zip(measured) {
            self.add(&mark.stamp, clean, defect);
        }
        after
    }

    fn add(&mut self, stamp: &Stamp, canvas: &Canvas, defect: Defect) {
        if defect.is_over_limit {
            let mut inside = stamp.inside.iter();
            for (_, row) in Canvas::rows(stamp.area, canvas.width) {
                for (label, _) in self.mask[row].iter_mut().zip(&mut inside).filter(|(_, is_inside)| **is_inside) {
                    *label = stamp.kind.label();
                }
            }
        }
        self.defects.push(defect);
    }
}

/// Draws the marks as strong as they are wanted; returns the imaged frame and what was measured in it.
fn draw(marks: &mut [Mark], clean: &Canvas, optics: &Optics, before: &[f32]) -> (Vec<f32>, Vec<Defect>) {
    let mut attempt = 1;
    loop {
        let mut damaged = clean.clone();
        marks.iter().for_each(|mark| mark.stamp.draw(&mut damaged));
        let after = optics.expose(&damaged);
        let measured: Vec<Defect> =
            marks.iter().map(|mark| measure(&mark.stamp, clean, optics, before, &after)).collect();
        // A thin scratch loses most of its contrast in the lens, and rough ground hides more: press harder.
        let mut is_right = true;
        for (mark, defect) in marks.iter_mut().zip(&measured) {
            let (least, most) = (*mark.wanted.start(), *mark.wanted.end());
            let now = strength(defect);
            if now < least {
                mark.stamp.strength *= (1.05 * least / now.max(1e-3)).min(4.0);
                is_right = false;
            } else if now > most {
                mark.stamp.strength *= 0.95 * most / now;
                is_right = false;
            }
        }
        if is_right || attempt == ATTEMPTS_MAX {
            return (after, measured);
        }
        attempt += 1;
    }
}

/// Measures what a mark changed between two images of the same part.
fn measure(stamp: &Stamp, canvas: &Canvas, optics: &Optics, before: &[f32], after: &[f32]) -> Defect {
    let around = stamp.area.grown((4.0 * canvas.scale) as usize, canvas);
    let Area { x0, y0, x1, y1 } = stamp.area;
    let mut bbox = [u32::MAX, u32::MAX, 0, 0];
    let (mut area_px, mut change) = (0_u32, 0.0_f64);
    let (mut count, mut sum, mut squares) = (0_u32, 0.0_f64, 0.0_f64);
    for (y, row) in Canvas::rows(around, canvas.width) {
        for (offset, index) in row.enumerate() {
            let x = around.x0 + offset;
            let is_inside = (x0..x1).contains(&x)
                && (y0..y1).contains(&y)
                && stamp.inside[(y - y0) * stamp.area.width() + (x - x0)];
            if is_inside {
                area_px += 1;
                change += f64::from((after[index] - before[index]).abs());
                let (x, y) = (x as u32, y as u32);
                bbox = [bbox[0].min(x), bbox[1].min(y), bbox[2].max(x + 1), bbox[3].max(y + 1)];
            }
            if canvas.on_part[index] == 1 {
                let level = f64::from(before[index]);
                (count, sum, squares) = (count + 1, sum + level, squares + level * level);
            }
        }
    }
    // `Stamp::new` promises at least one pixel inside, on the part.
    let (area, count) = (f64::from(area_px.max(1)), f64::from(count.max(1)));
    let mean = sum / count;
    let noise = f64::from(optics.noise_at(mean as f32));
    let spread = ((squares / count - mean * mean).max(0.0) + noise * noise).sqrt();
    let contrast = (change / area) as f32;
    let contrast_ratio = (change / area / spread) as f32;
    let area_units = area_px as f32 / (canvas.scale * canvas.scale);
    let severity = (area_units / LIMIT_AREA).min(contrast / LIMIT_CONTRAST).min(contrast_ratio / LIMIT_RATIO);
    Defect { kind: stamp.kind, bbox, area_px, contrast, contrast_ratio, severity, is_over_limit: severity >= 1.0 }
}

#[cfg(test)]
mod tests;
