//! Scratches, dents, pits and stains: where they lie, and how they change the light.

use super::{
    DefectKind,
    canvas::{Area, Canvas},
    dice::{Dice, exp_minus, smooth_step},
    feature::anywhere,
    noise::Plane,
};

/// One defect drawn on paper: for each pixel of `area` how much brighter it gets, in units of `strength`, and whether
/// it belongs to the defect.
pub struct Stamp {
    pub kind: DefectKind,
    pub area: Area,
    gain: Vec<f32>,
    pub inside: Vec<bool>,
    pub strength: f32,
}

/// How large a mark may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Any,
    /// One tiny hole; only a pit can be that small.
    Pinhole,
}

/// Tries to find a place on the part before giving up.
const PLACES_MAX: u32 = 60;

/// The darkest a defect makes the face: some light gets everywhere.
const GAIN_MIN: f32 = -0.93;

/// The brightest: a freshly torn edge.
const GAIN_MAX: f32 = 4.0;

impl Stamp {
    /// A defect of `kind` somewhere on the part's face; `None` when no place was found (a tiny visible face).
    /// `light` is the horizontal direction towards the lamp in image axes.
    pub fn new(kind: DefectKind, size: Size, canvas: &Canvas, light: (f32, f32), dice: &mut Dice) -> Option<Self> {
        let margin = match kind {
            DefectKind::Scratch | DefectKind::Pit => 4.0,
            DefectKind::Dent | DefectKind::Stain => 9.0,
        };
        let at = (0..PLACES_MAX).map(|_| anywhere(canvas, dice)).find(|at| {
            [(0.0, 0.0), (margin, 0.0), (-margin, 0.0), (0.0, margin), (0.0, -margin)]
                .iter()
                .all(|(x, y)| canvas.is_part((at.0 + x, at.1 + y)))
        })?;
        let mut stamp = match kind {
            DefectKind::Scratch => scratch(canvas, at, light, dice),
            DefectKind::Dent => dent(canvas, at, light, dice),
            DefectKind::Pit => pit(canvas, at, size, light, dice),
            DefectKind::Stain => stain(canvas, at, dice),
        };
        stamp.clip_to_part(canvas);
        stamp.inside.contains(&true).then_some(stamp)
    }

    fn blank(kind: DefectKind, area: Area) -> Self {
        let count = area.width() * area.height();
        Self { kind, area, gain: vec![0.0; count], inside: vec![false; count], strength: 1.0 }
    }

    /// Where the face ends the defect ends: a bore has no scratch.
    fn clip_to_part(&mut self, canvas: &Canvas) {
        let mut own = 0;
        for (_, row) in Canvas::rows(self.area, canvas.width) {
            for index in row {
                if canvas.on_part[index] == 0 {
                    self.gain[own] = 0.0;
                    self.inside[own] = false;
                }
                own += 1;
            }
        }
    }

    /// What it covers, in square units.
    pub fn area_units(&self, canvas: &Canvas) -> f32 {
        self.inside.iter().filter(|is_inside| **is_inside).count() as f32 / (canvas.scale * canvas.scale)
    }

    /// Sets `strength` so that the defect changes its pixels by `levels` grey levels on average before the lens.
    pub fn aim_at(&mut self, canvas: &Canvas, exposure: f32, levels: f32) {
        let (mut sum, mut count, mut own) = (0.0_f32, 0.0_f32, 0);
        for (_, row) in Canvas::rows(self.area, canvas.width) {
            for index in row {
                if self.inside[own] {
                    sum += canvas.light[index] * exposure * 255.0 * self.gain[own].abs();
                    count += 1.0;
                }
                own += 1;
            }
        }
        self.strength = levels * count / sum.max(1e-3);
    }

    pub fn draw(&self, canvas: &mut Canvas) {
        let mut own = 0;
        for (_, row) in Canvas::rows(self.area, canvas.width) {
            for pixel in &mut canvas.light[row] {
                *pixel *= 1.0 + (self.gain[own] * self.strength).clamp(GAIN_MIN, GAIN_MAX);
                own += 1;
            }
        }
    }
}

/// A hard thing was drawn over the face: a groove with thrown-up lips along a slightly bent path, sometimes skipping.
fn scratch(canvas: &Canvas, at: (f32, f32), light: (f32, f32), dice: &mut Dice) -> Stamp {
    let length = dice.mostly_low(45.0, 280.0);
    let half = dice.mostly_low(0.8, 2.4);
    let heading = dice.direction();
    let bend = dice.range(-0.16, 0.16) * length;
    let burnish = dice.sign() * dice.range(0.35, 0.8);
    let skips = if dice.chance(0.3) { dice.range(0.25, 0.5) } else { 0.0 };
    let (from, to) = (
        (at.0 - heading.0 * length * 0.5, at.1 - heading.1 * length * 0.5),
        (at.0 + heading.0 * length * 0.5, at.1 + heading.1 * length * 0.5),
    );
    let via = (at.0 - heading.1 * bend, at.1 + heading.0 * bend);
    let reach = half * 2.2 + 1.5;
    let area = canvas.area(
        at,
        heading.0.abs() * length * 0.5 + bend.abs() + reach,
        heading.1.abs() * length * 0.5 + bend.abs() + reach,
    );
    let mut stamp = Stamp::blank(DefectKind::Scratch, area);
    let mut nearest = vec![f32::MAX; stamp.gain.len()];
    let steps = ((length * canvas.scale * 2.0) as usize).max(8);
    let waves: Vec<f32> = (0..=steps / 24 + 2).map(|_| dice.range(0.0, 1.0)).collect();
    for step in 0..=steps {
        let t = step as f32 / steps as f32;
        let (a, b, c) = ((1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t);
        let point = (a * from.0 + b * via.0 + c * to.0, a * from.1 + b * via.1 + c * to.1);
        let tangent =
            ((1.0 - t) * (via.0 - from.0) + t * (to.0 - via.0), (1.0 - t) * (via.1 - from.1) + t * (to.1 - via.1));
        let size = (tangent.0 * tangent.0 + tangent.1 * tangent.1).sqrt() + 1e-6;
        let normal = (-tangent.1 / size, tangent.0 / size);
        let wave = step as f32 / 24.0;
        let wave =
            waves[wave as usize] + (waves[wave as usize + 1] - waves[wave as usize]) * (wave - (wave as usize) as f32);
        let press = smooth_step(0.0, 0.12, t) * smooth_step(1.0, 0.82, t) * (0.55 + 0.45 * wave);
        let press = press * smooth_step(skips - 0.12, skips + 0.02, wave);
        let facing = normal.0 * light.0 + normal.1 * light.1;
        let spot = canvas.area(point, reach, reach);
        for y in spot.y0.max(area.y0)..spot.y1.min(area.y1) {
            for x in spot.x0.max(area.x0)..spot.x1.min(area.x1) {
                let (px, py) = canvas.units(x, y);
                let (dx, dy) = (px - point.0, py - point.1);
                let square = dx * dx + dy * dy;
                let own = (y - area.y0) * area.width() + (x - area.x0);
                if square >= nearest[own] {
                    continue;
                }
                nearest[own] = square;
                let across = (dx * normal.0 + dy * normal.1) / half;
                let groove = (1.0 - across * across).max(0.0);
                let lip = (1.0 - (across.abs() - 1.35).abs() * 1.6).max(0.0);
                // Inside, one flank turns to the lamp and the other away; the floor is rubbed bright or torn dark.
                stamp.gain[own] =
                    press * (groove * (burnish - 0.7 * across * facing) + 0.3 * lip * facing * across.signum());
                stamp.inside[own] = across.abs() * half <= half.max(0.5 / canvas.scale) + 0.25 && press > 0.3;
            }
        }
    }
    stamp
}

/// Something hit the face: a smooth hollow with a low rim, its far wall bright, its near wall dark.
fn dent(canvas: &Canvas, at: (f32, f32), light: (f32, f32), dice: &mut Dice) -> Stamp {
    let long = dice.mostly_low(9.0, 38.0);
    let short = long * dice.range(0.45, 1.0);
    let axis = dice.direction();
    let tint = dice.range(-0.30, 0.05);
    let wobble = dice.range(0.05, 0.22);
    let area = canvas.area(at, long * 1.6 + 2.0, long * 1.6 + 2.0);
    let mut stamp = Stamp::blank(DefectKind::Dent, area);
    let mut warp = Plane::new(dice, area.width(), area.height(), long * 0.8 * canvas.scale);
    let mut warps = vec![0.0; area.width()];
    let mut own = 0;
    for y in area.y0..area.y1 {
        warp.row(y - area.y0, &mut warps);
        for x in area.x0..area.x1 {
            let (px, py) = canvas.units(x, y);
            let (dx, dy) = (px - at.0, py - at.1);
            let (a, b) = (dx * axis.0 + dy * axis.1, dy * axis.0 - dx * axis.1);
            let (slope_a, slope_b) = (a / (long * long), b / (short * short));
            let rho = (a * slope_a + b * slope_b) * (1.0 + wobble * warps[x - area.x0]).max(0.3);
            if rho < 2.2 {
                let (slope_x, slope_y) = (slope_a * axis.0 - slope_b * axis.1, slope_a * axis.1 + slope_b * axis.0);
                let facing = (slope_x * light.0 + slope_y * light.1) * short;
                let wall = if rho < 1.0 {
                    1.9 * (1.0 - rho)
                } else {
                    -0.55 * smooth_step(2.2, 1.0, rho) * (rho - 1.0).min(0.35)
                };
                let floor = if rho < 1.0 { tint * (1.0 - rho) } else { 0.0 };
                let shade = -wall * facing;
                stamp.gain[own] = shade + 0.6 * shade.max(0.0) * shade + floor;
            }
            stamp.inside[own] = rho < 0.92;
            own += 1;
        }
    }
    stamp
}

/// Material is missing: one or a few dark holes with ragged edges, their far rim catching the light.
fn pit(canvas: &Canvas, at: (f32, f32), size: Size, light: (f32, f32), dice: &mut Dice) -> Stamp {
    let lobes = if size == Size::Pinhole || dice.chance(0.45) { 1 } else { 2 + dice.below(5) };
    let spread = if lobes == 1 { 0.0 } else { dice.range(4.0, 15.0) };
    let holes: Vec<(f32, f32, f32)> = (0..lobes)
        .map(|lobe| {
            let (direction, away) = (dice.direction(), if lobe == 0 { 0.0 } else { dice.range(0.3, 1.0) * spread });
            let radius = match (size, lobe) {
                (Size::Pinhole, _) => dice.range(1.2, 2.0),
                (Size::Any, 0) => dice.mostly_low(2.9, 8.0),
                (Size::Any, _) => dice.mostly_low(1.2, 4.5),
            };
            (at.0 + direction.0 * away, at.1 + direction.1 * away, radius)
        })
        .collect();
    let ragged = dice.range(0.15, 0.45);
    let rim = dice.range(0.2, 0.7);
    let reach = spread + 14.0;
    let area = canvas.area(at, reach, reach);
    let mut stamp = Stamp::blank(DefectKind::Pit, area);
    let mut warp = Plane::new(dice, area.width(), area.height(), 2.6 * canvas.scale);
    let mut warps = vec![0.0; area.width()];
    let mut own = 0;
    for y in area.y0..area.y1 {
        warp.row(y - area.y0, &mut warps);
        for x in area.x0..area.x1 {
            let (px, py) = canvas.units(x, y);
            for &(cx, cy, radius) in &holes {
                let (dx, dy) = (px - cx, py - cy);
                let distance = (dx * dx + dy * dy).sqrt() + 1e-6;
                let rho = distance / radius + ragged * 0.5 * warps[x - area.x0];
                if rho > 1.8 {
                    continue;
                }
                let facing = (dx * light.0 + dy * light.1) / distance;
                let hollow = smooth_step(1.12, 0.55, rho);
                let edge = (1.0 - (rho - 1.05).abs() * 3.0).max(0.0);
                let gain = -hollow * (0.8 + 0.2 * facing) + rim * edge * (-facing).max(0.0);
                if gain.abs() > stamp.gain[own].abs() {
                    stamp.gain[own] = gain;
                }
                stamp.inside[own] |= rho < 1.0;
            }
            own += 1;
        }
    }
    stamp
}

/// Oil, water or heat left a patch: soft and ragged, the marks beneath still showing, a dried edge now and then.
fn stain(canvas: &Canvas, at: (f32, f32), dice: &mut Dice) -> Stamp {
    let long = dice.mostly_low(20.0, 75.0);
    let short = long * dice.range(0.4, 1.0);
    let axis = dice.direction();
    let tone = if dice.chance(0.8) { -1.0 } else { 0.9 };
    let dried_edge = if dice.chance(0.4) { dice.range(0.4, 1.2) } else { 0.0 };
    let soft = dice.range(0.05, 0.2);
    let ragged = dice.range(0.12, 0.3);
    let area = canvas.area(at, long * 1.7, long * 1.7);
    let mut stamp = Stamp::blank(DefectKind::Stain, area);
    let (width, height) = (area.width(), area.height());
    let mut coarse = Plane::new(dice, width, height, long * 0.45 * canvas.scale);
    let mut fine = Plane::new(dice, width, height, 5.0 * canvas.scale);
    let (mut coarses, mut fines) = (vec![0.0; width], vec![0.0; width]);
    let mut own = 0;
    for y in area.y0..area.y1 {
        coarse.row(y - area.y0, &mut coarses);
        fine.row(y - area.y0, &mut fines);
        for x in area.x0..area.x1 {
            let (px, py) = canvas.units(x, y);
            let (dx, dy) = (px - at.0, py - at.1);
            let (a, b) = ((dx * axis.0 + dy * axis.1) / long, (dy * axis.0 - dx * axis.1) / short);
            let (coarse, fine) = (coarses[x - area.x0], fines[x - area.x0]);
            let rho = (a * a + b * b).sqrt() + ragged * coarse + 0.04 * fine;
            // The frame of the stamp must not cut the patch.
            let fade = smooth_step(1.66, 1.45, (dx * dx + dy * dy).sqrt() / long);
            let film = smooth_step(1.0 + soft, 1.0 - soft, rho) * fade;
            let edge = (rho - 0.93) * 9.0;
            let edge = dried_edge * exp_minus(edge * edge) * fade;
            stamp.gain[own] = tone * (film * (0.85 + 0.12 * fine + 0.1 * coarse) + edge);
            stamp.inside[own] = rho < 1.0 && fade > 0.5;
            own += 1;
        }
    }
    stamp
}
