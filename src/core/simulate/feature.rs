//! What belongs on a good part: bores, slots, bosses, ribs, markings, and the dirt and glare of a real shop.

use super::{
    Surface,
    canvas::{Area, Canvas},
    dice::{Dice, smooth_step},
    noise::Profile,
    surface::{Light, Outline, Pose},
};

/// Something the drawing shows. Places and lengths in part units.
#[derive(Clone, Debug)]
enum Feature {
    /// A hole along a line from `from` to `to`: a bore when both are one point, else a slot.
    Hole { from: (f32, f32), to: (f32, f32), radius: f32, chamfer: f32 },
    /// A flat turned into a rough face, such as a seat for a screw.
    SpotFace { at: (f32, f32), radius: f32 },
    /// A raised or sunk line of the mould.
    Rib { from: (f32, f32), to: (f32, f32), half: f32, rise: f32 },
    /// The round mark of an ejector pin.
    EjectorMark { at: (f32, f32), radius: f32 },
    /// A laser-marked square code. Its modules differ from part to part.
    Code { at: (f32, f32), module: f32, modules: u32, strength: f32 },
}

pub struct Features(Vec<Feature>);

/// Features already placed: middle and reach. A drawing keeps them apart.
struct Taken(Vec<((f32, f32), f32)>);

impl Taken {
    /// A free place within `reach` of the middle for something `own` units large; `None` when the face is crowded.
    fn place(&mut self, design: &mut Dice, reach: f32, own: f32) -> Option<(f32, f32)> {
        for _ in 0..12 {
            let (direction, away) = (design.direction(), reach * design.range(0.2, 0.75));
            let at = (direction.0 * away, direction.1 * away);
            let is_free = self.0.iter().all(|((u, v), other)| {
                let gap = own + other + 6.0;
                (u - at.0) * (u - at.0) + (v - at.1) * (v - at.1) > gap * gap
            });
            if is_free {
                self.0.push((at, own));
                return Some(at);
            }
        }
        None
    }
}

impl Features {
    pub fn of_design(surface: Surface, outline: Outline, design: &mut Dice) -> Self {
        let mut features = Vec::new();
        let mut taken = Taken(Vec::new());
        let reach = match outline {
            Outline::Everywhere => 300.0,
            Outline::Disc { radius } => radius,
            Outline::Plate { half_width, half_height, .. } => half_width.min(half_height),
        };
        match (surface, outline) {
            (Surface::Turned, Outline::Disc { radius }) => {
                let bore = radius * design.range(0.14, 0.42);
                let middle = (0.0, 0.0);
                features.push(Feature::Hole {
                    from: middle,
                    to: middle,
                    radius: bore,
                    chamfer: design.range(2.0, 6.0),
                });
                taken.0.push((middle, bore + 6.0));
                if design.chance(0.5) {
                    let count = 3 + design.below(4);
                    Self::bolt_circle(&mut features, &mut taken, design, (bore + radius) * 0.54, count);
                }
            }
            (Surface::Plastic, _) => {
                for _ in 0..design.below(4) {
                    // Moulds are cut along their axes.
                    let direction = if design.chance(0.5) { (1.0, 0.0) } else { (0.0, 1.0) };
                    let (away, half) = (design.range(-0.7, 0.7) * reach, reach * design.range(0.5, 1.6));
                    let middle = (direction.1 * away, direction.0 * away);
                    features.push(Feature::Rib {
                        from: (middle.0 - direction.0 * half, middle.1 - direction.1 * half),
                        to: (middle.0 + direction.0 * half, middle.1 + direction.1 * half),
                        half: design.range(2.5, 8.0),
                        rise: design.sign() * design.range(0.2, 0.5),
                    });
                }
                for _ in 0..design.below(5) {
                    let radius = design.range(7.0, 16.0);
                    if let Some(at) = taken.place(design, reach, radius) {
                        features.push(Feature::EjectorMark { at, radius });
                    }
                }
                for _ in 0..design.below(3) {
                    let (radius, chamfer) = (design.range(6.0, 18.0), design.range(0.8, 2.0));
                    if let Some(at) = taken.place(design, reach, radius + chamfer) {
                        features.push(Feature::Hole { from: at, to: at, radius, chamfer });
                    }
                }
            }
            (Surface::Cast, _) => {
                for _ in 0..design.below(5) {
                    let radius = design.range(24.0, 52.0);
                    let (bore, chamfer) = (radius * design.range(0.35, 0.6), design.range(1.2, 3.0));
                    if let Some(at) = taken.place(design, reach, radius) {
                        features.push(Feature::SpotFace { at, radius });
                        features.push(Feature::Hole { from: at, to: at, radius: bore, chamfer });
                    }
                }
            }
            _ => {
                for _ in 0..design.below(5) {
                    let (radius, chamfer) = (design.range(8.0, 24.0), design.range(1.2, 4.0));
                    let half = if design.chance(0.25) { design.range(10.0, 40.0) } else { 0.0 };
                    let along = design.direction();
                    if let Some(at) = taken.place(design, reach, radius + chamfer + half) {
                        let from = (at.0 - along.0 * half, at.1 - along.1 * half);
                        let to = (at.0 + along.0 * half, at.1 + along.1 * half);
                        features.push(Feature::Hole { from, to, radius, chamfer });
                    }
                }
            }
        }
        if design.chance(0.3) {
            let (module, modules) = (design.range(2.4, 3.4), 12 + 2 * design.below(3));
            if let Some(at) = taken.place(design, reach * 0.9, module * modules as f32 * 0.71) {
                features.push(Feature::Code { at, module, modules, strength: design.range(0.25, 0.5) });
            }
        }
        Self(features)
    }

    fn bolt_circle(features: &mut Vec<Feature>, taken: &mut Taken, design: &mut Dice, radius: f32, count: u32) {
        // Turn the first hole by the angle of the circle's division: a rotation applied again and again.
        let (cos, sin) = match count {
            3 => (-0.5, 0.866_025_4),
            4 => (0.0, 1.0),
            5 => (0.309_017, 0.951_056_5),
            _ => (0.5, 0.866_025_4),
        };
        let (mut u, mut v) = design.direction();
        let (hole, chamfer) = (design.range(6.0, 13.0), design.range(1.0, 2.6));
        for _ in 0..count {
            let at = (u * radius, v * radius);
            features.push(Feature::Hole { from: at, to: at, radius: hole, chamfer });
            taken.0.push((at, hole + chamfer));
            (u, v) = (u * cos - v * sin, u * sin + v * cos);
        }
    }

    pub fn draw(&self, canvas: &mut Canvas, pose: Pose, light: Light, albedo: f32, part: &mut Dice) {
        for feature in &self.0 {
            match *feature {
                Feature::Hole { from, to, radius, chamfer } => {
                    hole(canvas, pose, light, albedo, (from, to), radius, chamfer);
                }
                Feature::SpotFace { at, radius } => spot_face(canvas, pose, light, albedo, at, radius, part),
                Feature::Rib { from, to, half, rise } => rib(canvas, pose, light, (from, to), half, rise),
                Feature::EjectorMark { at, radius } => ejector_mark(canvas, pose, light, at, radius),
                Feature::Code { at, module, modules, strength } => {
                    code(canvas, pose, at, module, modules, strength, part);
                }
            }
        }
    }
}

/// The part of the frame a feature of the given reach around the line `from`..`to` can touch.
fn around(canvas: &Canvas, pose: Pose, (from, to): ((f32, f32), (f32, f32)), reach: f32) -> Area {
    let (a, b) = (pose.to_image(from.0, from.1), pose.to_image(to.0, to.1));
    let middle = ((a.0 + b.0) * 0.5, (a.1 + b.1) * 0.5);
    canvas.area(middle, (a.0 - b.0).abs() * 0.5 + reach, (a.1 - b.1).abs() * 0.5 + reach)
}

/// Distance from a point to the line `from`..`to`, and the direction away from it.
#[inline]
fn from_line(point: (f32, f32), (from, to): ((f32, f32), (f32, f32))) -> (f32, f32, f32) {
    let (along_u, along_v) = (to.0 - from.0, to.1 - from.1);
    let square = along_u * along_u + along_v * along_v;
    let (u, v) = (point.0 - from.0, point.1 - from.1);
    let t = if square > 0.0 { ((u * along_u + v * along_v) / square).clamp(0.0, 1.0) } else { 0.0 };
    let (u, v) = (u - t * along_u, v - t * along_v);
    let distance = (u * u + v * v).sqrt() + 1e-6;
    (distance, u / distance, v / distance)
}

/// Visits every pixel of `area` with its part coordinates: `visit(light, on_part, u, v)`.
fn each(canvas: &mut Canvas, pose: Pose, area: Area, mut visit: impl FnMut(&mut f32, &mut u8, f32, f32)) {
    if area.is_empty() {
        return;
    }
    let width = canvas.width;
    for (y, row) in Canvas::rows(area, width) {
        for (offset, index) in row.enumerate() {
            let (x, y) = canvas.units(area.x0 + offset, y);
            let (u, v) = pose.to_part(x, y);
            visit(&mut canvas.light[index], &mut canvas.on_part[index], u, v);
        }
    }
}

fn hole(
    canvas: &mut Canvas,
    pose: Pose,
    light: Light,
    albedo: f32,
    line: ((f32, f32), (f32, f32)),
    radius: f32,
    chamfer: f32,
) {
    let scale = canvas.scale;
    let area = around(canvas, pose, line, radius + chamfer + 6.0);
    each(canvas, pose, area, |pixel, on_part, u, v| {
        let (distance, away_u, away_v) = from_line((u, v), line);
        if distance > radius + chamfer + 4.0 {
            return;
        }
        *on_part = 0;
        let facing = away_u * light.u + away_v * light.v;
        let cone = albedo * (0.4 + 0.95 * (-facing).max(0.0) * light.hardness - 0.18 * facing);
        let on_cone = ((radius + chamfer - distance) * scale + 0.5).clamp(0.0, 1.0);
        let rim = *pixel + (cone.max(0.02) - *pixel) * on_cone;
        let in_bore = ((radius - distance) * scale + 0.5).clamp(0.0, 1.0);
        // The wall far from the lamp still gets some light; the depth is dark.
        let depth = smooth_step(0.0, radius * 0.5, radius - distance);
        let bore = albedo * (0.30 * (-facing).max(0.0) * (1.0 - depth)) + 0.018;
        *pixel = rim + (bore - rim) * in_bore;
    });
}

fn spot_face(canvas: &mut Canvas, pose: Pose, light: Light, albedo: f32, at: (f32, f32), radius: f32, part: &mut Dice) {
    let mut rings = Profile::new(radius + 8.0, 4.0);
    let pitch = part.range(2.6, 4.5);
    rings.add_feed(part, pitch, 0.04, 0.2);
    rings.add_noise(part, 1.2, 0.04, 0.08);
    let scale = canvas.scale;
    let area = around(canvas, pose, (at, at), radius + 8.0);
    each(canvas, pose, area, |pixel, on_part, u, v| {
        let (distance, away_u, away_v) = from_line((u, v), (at, at));
        if distance > radius + 6.0 {
            return;
        }
        let facing = away_u * light.u + away_v * light.v;
        let [level, slope] = rings.at(distance);
        let face = albedo * ((0.95 + 0.75 * light.hardness * facing * facing) * (1.0 + level) + slope * facing);
        let inside = ((radius - distance) * scale + 0.5).clamp(0.0, 1.0);
        // The step down into the seat: a dark and a bright half-ring.
        let step = smooth_step(3.0, 0.0, (distance - radius).abs());
        let floor = *pixel + (face - *pixel) * inside;
        *pixel = (floor * (1.0 - 0.45 * step * (0.4 + facing * light.hardness))).max(0.01);
        if distance > radius - 5.0 {
            *on_part = 0;
        }
    });
}

fn rib(canvas: &mut Canvas, pose: Pose, light: Light, line: ((f32, f32), (f32, f32)), half: f32, rise: f32) {
    let area = around(canvas, pose, line, half * 2.5);
    each(canvas, pose, area, |pixel, on_part, u, v| {
        let (distance, away_u, away_v) = from_line((u, v), line);
        if distance < half * 1.8 {
            let t = distance / (half * 1.8);
            let slope = rise * 3.0 * t * (1.0 - t * t);
            *pixel *= (1.0 + slope * (away_u * light.u + away_v * light.v) * (0.4 + light.hardness)).max(0.15);
            *on_part = 0;
        }
    });
}

fn ejector_mark(canvas: &mut Canvas, pose: Pose, light: Light, at: (f32, f32), radius: f32) {
    let area = around(canvas, pose, (at, at), radius + 4.0);
    each(canvas, pose, area, |pixel, on_part, u, v| {
        let (distance, away_u, away_v) = from_line((u, v), (at, at));
        let ring = (1.0 - (distance - radius).abs() * 0.6).max(0.0);
        let inside = if distance < radius { 1.0 } else { 0.0 };
        let facing = away_u * light.u + away_v * light.v;
        *pixel *= 1.0 + 0.05 * inside - 0.35 * ring * (0.35 + facing);
        if distance < radius + 3.0 {
            *on_part = 0;
        }
    });
}

fn code(canvas: &mut Canvas, pose: Pose, at: (f32, f32), module: f32, modules: u32, strength: f32, part: &mut Dice) {
    // The look of an ECC 200 symbol: solid left and bottom, alternating top and right, data inside.
    let count = modules as usize;
    let mut dark = vec![false; count * count];
    for row in 0..count {
        for column in 0..count {
            dark[row * count + column] = if column == 0 || row == count - 1 {
                true
            } else if row == 0 {
                column % 2 == 0
            } else if column == count - 1 {
                row % 2 == 1
            } else {
                part.chance(0.5)
            };
        }
    }
    let half = module * modules as f32 * 0.5;
    let scale = canvas.scale;
    let area = around(canvas, pose, (at, at), half * 1.5 + 2.0);
    let covered = |x: f32| -> [(usize, f32); 2] {
        // Box-filtered over one pixel, so edges between modules are not jagged.
        let (low, width) = ((x - 0.5 / scale) / module, 1.0 / (scale * module));
        let low = low.max(0.0);
        let first = low as usize;
        let in_first = ((first + 1) as f32 - low).min(width) / width;
        [(first, in_first), (first + 1, 1.0 - in_first)]
    };
    each(canvas, pose, area, |pixel, on_part, u, v| {
        let (x, y) = (u - at.0 + half, v - at.1 + half);
        if x < 0.0 || y < 0.0 || x > half * 2.0 || y > half * 2.0 {
            return;
        }
        let mut ink = 0.0;
        for (column, weight_x) in covered(x) {
            for (row, weight_y) in covered(y) {
                if column < count && row < count && dark[row * count + column] {
                    ink += weight_x * weight_y;
                }
            }
        }
        *pixel *= 1.0 - strength * ink;
        *on_part = 0;
    });
}

/// Dust and lint: on the part, no defect of it. Each is smaller than [`super::LIMIT_AREA`] or very faint.
pub fn dirt(canvas: &mut Canvas, part: &mut Dice) {
    let specks = if part.chance(0.6) { part.below(14) } else { 0 };
    for _ in 0..specks {
        let at = anywhere(canvas, part);
        let radius = part.range(0.5, 1.15);
        let gain = if part.chance(0.65) { part.range(0.15, 0.7) } else { -part.range(0.15, 0.45) };
        let area = canvas.area(at, radius + 2.0, radius + 2.0);
        for (y, row) in Canvas::rows(area, canvas.width) {
            for (offset, index) in row.enumerate() {
                let (x, y) = canvas.units(area.x0 + offset, y);
                let distance = ((x - at.0) * (x - at.0) + (y - at.1) * (y - at.1)).sqrt();
                canvas.light[index] *= 1.0 + gain * ((radius - distance) * canvas.scale + 0.5).clamp(0.0, 1.0);
            }
        }
    }
    if part.chance(0.08) {
        lint(canvas, part);
    }
}

/// A curled fibre: faint, bright, strongly bent, which a scratch is not.
fn lint(canvas: &mut Canvas, part: &mut Dice) {
    let mut at = anywhere(canvas, part);
    let mut heading = part.direction();
    let (bend, gain) = (part.sign() * part.range(0.05, 0.12), part.range(0.06, 0.14));
    for _ in 0..part.range(30.0, 70.0) as u32 {
        let area = canvas.area(at, 1.0, 1.0);
        for (y, row) in Canvas::rows(area, canvas.width) {
            for (offset, index) in row.enumerate() {
                let (x, y) = canvas.units(area.x0 + offset, y);
                let square = (x - at.0) * (x - at.0) + (y - at.1) * (y - at.1);
                canvas.light[index] *= 1.0 + gain * (1.0 - square).max(0.0);
            }
        }
        at = (at.0 + heading.0 * 0.7, at.1 + heading.1 * 0.7);
        let turn = bend * part.range(0.2, 1.4);
        heading = (heading.0 - turn * heading.1, heading.1 + turn * heading.0);
        let length = (heading.0 * heading.0 + heading.1 * heading.1).sqrt();
        heading = (heading.0 / length, heading.1 / length);
    }
}

/// A point of the frame, in image units.
pub fn anywhere(canvas: &Canvas, dice: &mut Dice) -> (f32, f32) {
    let (half_x, half_y) = (canvas.width as f32 * 0.5 / canvas.scale, canvas.height as f32 * 0.5 / canvas.scale);
    (dice.range(-half_x, half_x), dice.range(-half_y, half_y))
}
