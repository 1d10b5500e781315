//! The body of a part: its shape, and the marks that turning, milling, casting or moulding leave on its face.
//!
//! Lengths are in *units*: 512 units are the shorter side of the frame, so a larger sensor sees the same part finer.

use super::{
    Surface,
    dice::{Dice, smooth_step, turn_of},
    noise::{Plane, Profile},
};

/// The part's place before the camera: image units to part units is a small rotation and shift.
#[derive(Clone, Copy, Debug)]
pub struct Pose {
    pub sin: f32,
    pub cos: f32,
    pub shift_x: f32,
    pub shift_y: f32,
}

impl Pose {
    #[inline]
    pub fn to_part(self, x: f32, y: f32) -> (f32, f32) {
        let (x, y) = (x - self.shift_x, y - self.shift_y);
        (self.cos * x + self.sin * y, self.cos * y - self.sin * x)
    }

    pub fn to_image(self, u: f32, v: f32) -> (f32, f32) {
        (self.cos * u - self.sin * v + self.shift_x, self.sin * u + self.cos * v + self.shift_y)
    }
}

/// The outline of the part.
#[derive(Clone, Copy, Debug)]
pub enum Outline {
    /// The part fills the frame.
    Everywhere,
    Disc {
        radius: f32,
    },
    Plate {
        half_width: f32,
        half_height: f32,
        corner: f32,
    },
}

impl Outline {
    /// Signed distance to the edge (negative inside) and the outward normal there, in part units.
    #[inline]
    pub fn distance(self, u: f32, v: f32) -> (f32, f32, f32) {
        match self {
            Self::Everywhere => (-1e6, 0.0, 0.0),
            Self::Disc { radius } => {
                let r = (u * u + v * v).sqrt() + 1e-6;
                (r - radius, u / r, v / r)
            }
            Self::Plate { half_width, half_height, corner } => {
                let (qx, qy) = (u.abs() - (half_width - corner), v.abs() - (half_height - corner));
                let (sx, sy) = (1.0_f32.copysign(u), 1.0_f32.copysign(v));
                if qx > 0.0 && qy > 0.0 {
                    let r = (qx * qx + qy * qy).sqrt() + 1e-6;
                    (r - corner, sx * qx / r, sy * qy / r)
                } else if qx > qy {
                    (qx - corner, sx, 0.0)
                } else {
                    (qy - corner, 0.0, sy)
                }
            }
        }
    }
}

/// Where the light comes from, as seen in the part's own axes, and how hard it is.
#[derive(Clone, Copy, Debug)]
pub struct Light {
    /// Horizontal direction towards the lamp, of length one.
    pub u: f32,
    pub v: f32,
    /// 0: a dome, no shadow side. 1: a single lamp.
    pub hardness: f32,
}

/// What paints the face of one part, row by row.
pub struct Face {
    kind: Kind,
    albedo: f32,
    broad: Plane,
    broad_strength: f32,
    grain: Plane,
    grain_strength: f32,
    noise: [Vec<f32>; 2],
}

enum Kind {
    Turned {
        centre: (f32, f32),
        rings: Profile,
        feed: Profile,
        pitch: f32,
        spiral: f32,
        ambient: f32,
        highlight: f32,
        streaks: Plane,
        streak_strength: f32,
    },
    Milled {
        marks: Profile,
        radius: f32,
        pass_half: f32,
        pass_offset: f32,
        back_cut: f32,
        shift: f32,
        ambient: f32,
        highlight: f32,
        pass_levels: Vec<f32>,
        /// Feed direction in part axes.
        along: (f32, f32),
    },
    Relief {
        octaves: Vec<(Plane, f32)>,
        above: Vec<Vec<f32>>,
    },
}

impl Face {
    /// `design` decides what all parts of one product share, `part` what differs from part to part.
    pub fn new(
        surface: Surface,
        outline: Outline,
        size_px: (usize, usize),
        scale: f32,
        design: &mut Dice,
        part: &mut Dice,
    ) -> Self {
        let (width, height) = size_px;
        let plane = |dice: &mut Dice, cell: f32| Plane::new(dice, width, height, cell * scale);
        let (kind, albedo, broad_strength, grain_strength, grain_cell) = match surface {
            Surface::Turned => {
                let centre = match outline {
                    Outline::Everywhere => {
                        let (x, y) = design.direction();
                        let away = design.range(40.0, 420.0);
                        (x * away, y * away)
                    }
                    _ => (0.0, 0.0),
                };
                let pitch = design.range(2.8, 8.5);
                let coarse = design.range(0.5, 1.4);
                let mut rings = Profile::new(900.0, 4.0);
                rings.add_noise(part, 1.1, 0.05 * coarse, 0.09 * coarse);
                rings.add_noise(part, 3.7, 0.045 * coarse, 0.08 * coarse);
                rings.add_noise(part, 19.0, 0.045, 0.05);
                rings.add_noise(design, 75.0, 0.07, 0.04);
                for _ in 0..design.below(4) {
                    // A step between two turned diameters.
                    let (at, half) = (design.range(50.0, 330.0), design.range(1.6, 4.5));
                    rings.add_hump(at, half, design.range(-0.25, 0.1), design.sign() * design.range(0.5, 1.1));
                }
                for _ in 0..part.below(5) {
                    // A single deeper ring: the tool paused or a chip ran along.
                    rings.add_hump(part.range(20.0, 400.0), part.range(0.8, 1.6), part.range(-0.2, 0.15), 0.25);
                }
                if part.chance(0.16) {
                    // Chatter: a band of strong, even waves. Ugly, and not a defect here.
                    let (from, period) = (part.range(40.0, 240.0), part.range(3.5, 7.0));
                    for wave in 0..8_u8 {
                        rings.add_hump(from + f32::from(wave) * period, period * 0.5, 0.1, 0.35);
                    }
                }
                let mut feed = Profile::new(pitch, 64.0 / pitch);
                let (level, slope) = (design.range(0.01, 0.06), design.range(0.05, 0.28) * coarse);
                for copy in [-1.0, 0.0, 1.0] {
                    feed.add_hump((copy + 0.5) * pitch, pitch * 0.56, level, slope);
                }
                let kind = Kind::Turned {
                    centre,
                    rings,
                    feed,
                    pitch,
                    spiral: if design.chance(0.6) { pitch * design.sign() } else { 0.0 },
                    ambient: design.range(0.5, 0.8),
                    highlight: design.range(0.35, 1.0),
                    streaks: plane(part, design.range(26.0, 60.0)),
                    streak_strength: design.range(0.02, 0.05),
                };
                (kind, design.range(0.36, 0.5), part.range(0.01, 0.05), part.range(0.008, 0.03), 1.1)
            }
            Surface::Milled => {
                let radius = if design.chance(0.4) { design.range(70.0, 150.0) } else { design.range(200.0, 520.0) };
                let pitch = design.range(4.0, 13.0);
                let coarse = design.range(0.45, 1.2);
                let mut marks = Profile::new(2_400.0, 3.0);
                marks.add_feed(part, pitch, 0.05 * coarse, 0.22 * coarse);
                marks.add_noise(part, 1.0, 0.03 * coarse, 0.06 * coarse);
                marks.add_noise(part, 3.1, 0.04 * coarse, 0.07 * coarse);
                marks.add_noise(part, 28.0, 0.045, 0.05);
                if part.chance(0.15) {
                    let from = part.range(900.0, 1_400.0);
                    for wave in 0..10_u8 {
                        marks.add_hump(from + f32::from(wave) * pitch * 1.3, pitch * 0.6, 0.12, 0.3);
                    }
                }
                let kind = Kind::Milled {
                    marks,
                    radius,
                    pass_half: radius * design.range(0.62, 0.9),
                    pass_offset: design.range(-200.0, 200.0),
                    back_cut: if design.chance(0.55) { design.range(0.25, 0.8) } else { 0.0 },
                    shift: 1_200.0 + part.range(0.0, 60.0),
                    ambient: design.range(0.55, 0.85),
                    highlight: design.range(0.2, 0.6),
                    pass_levels: (0..64).map(|_| design.range(-0.05, 0.05)).collect(),
                    along: if design.chance(0.7) { (1.0, 0.0) } else { design.direction() },
                };
                (kind, design.range(0.4, 0.55), part.range(0.01, 0.05), part.range(0.008, 0.03), 1.2)
            }
            Surface::Cast => {
                let rough = design.range(0.5, 1.25);
                let octaves = vec![
                    (plane(part, 1.5), 0.06 * rough),
                    (plane(part, design.range(2.6, 3.8)), 0.085 * rough),
                    (plane(part, design.range(5.5, 8.0)), 0.06 * rough),
                    (plane(part, design.range(13.0, 24.0)), 0.035 * rough),
                ];
                let above = vec![vec![0.0; width]; octaves.len()];
                let kind = Kind::Relief { octaves, above };
                (kind, design.range(0.26, 0.46), part.range(0.05, 0.1), part.range(0.03, 0.06), 1.9)
            }
            Surface::Plastic => {
                let texture = design.mostly_low(0.008, 0.06);
                let octaves = vec![
                    (plane(part, design.range(1.8, 3.2)), texture),
                    (plane(part, 5.0), texture * 0.5),
                    (plane(part, design.range(60.0, 110.0)), 0.045),
                ];
                let above = vec![vec![0.0; width]; octaves.len()];
                let kind = Kind::Relief { octaves, above };
                let albedo = if design.chance(0.5) { design.range(0.16, 0.3) } else { design.range(0.35, 0.7) };
                (kind, albedo, part.range(0.015, 0.05), 0.006, 1.2)
            }
        };
        let broad_cell = part.range(70.0, 150.0);
        Self {
            kind,
            albedo,
            broad: plane(part, broad_cell),
            broad_strength,
            grain: plane(part, grain_cell),
            grain_strength,
            noise: [vec![0.0; width], vec![0.0; width]],
        }
    }

    /// Paints row `y`; `u`, `v` are the part coordinates of its first pixel, `du`, `dv` the step to the next.
    pub fn row(&mut self, y: usize, start: (f32, f32), step: (f32, f32), light: Light, out: &mut [f32]) {
        let [broad, grain] = &mut self.noise;
        self.broad.row(y, broad);
        self.grain.row(y, grain);
        let Light { u: light_u, v: light_v, hardness } = light;
        match &mut self.kind {
            Kind::Turned { centre, rings, feed, pitch, spiral, ambient, highlight, streaks, streak_strength } => {
                streaks.row(y, out);
                let (mut u, mut v) = (start.0 - centre.0, start.1 - centre.1);
                let per_pitch = 1.0 / *pitch;
                for out in out.iter_mut() {
                    let r = (u * u + v * v).sqrt() + 1e-3;
                    // How squarely the grooves face the lamp: this makes the bow-tie of light on a turned face.
                    let facing = (u * light_u + v * light_v) / r;
                    let bow = facing * facing;
                    let [level, slope] = rings.at(r);
                    let phase = r + if *spiral == 0.0 { 0.0 } else { *spiral * turn_of(u, v) };
                    let turns = (phase + 2.0 * *pitch) * per_pitch;
                    let [feed_level, feed_slope] = feed.at((turns - (turns as u32) as f32) * *pitch);
                    let shine = *ambient
                        + *highlight * hardness * (0.55 * bow + 0.45 * bow * bow * bow)
                        + *out * *streak_strength * bow;
                    *out =
                        shine * (1.0 + level + feed_level) + (slope + feed_slope) * facing * (0.35 + 0.65 * hardness);
                    u += step.0;
                    v += step.1;
                }
            }
            Kind::Milled {
                marks,
                radius,
                pass_half,
                pass_offset,
                back_cut,
                shift,
                ambient,
                highlight,
                pass_levels,
                along,
            } => {
                let (cos, sin) = *along;
                let (light_a, light_c) = (cos * light_u + sin * light_v, cos * light_v - sin * light_u);
                let (mut a, mut c) = (cos * start.0 + sin * start.1, cos * start.1 - sin * start.0);
                let (step_a, step_c) = (cos * step.0 + sin * step.1, cos * step.1 - sin * step.0);
                let per_radius = 1.0 / *radius;
                let per_pass = 0.5 / *pass_half;
                for out in out.iter_mut() {
                    let pass = (c + *pass_offset) * per_pass + 32.0;
                    let index = (pass as u32).min(63);
                    let across = (pass - index as f32 - 0.5) * 2.0 * *pass_half;
                    let root = (*radius * *radius - across * across).max(1.0).sqrt();
                    let [level, slope] = marks.at(a - root + *shift);
                    let facing = (root * light_a + across * light_c) * per_radius;
                    let mut shine = *highlight * hardness * facing * facing;
                    let mut relief = slope * facing;
                    let mut levels = level + pass_levels[index as usize];
                    if *back_cut > 0.0 {
                        let [level, slope] = marks.at(a + root + *shift);
                        let facing = (root * light_a - across * light_c) * per_radius;
                        shine = 0.6 * shine + 0.4 * *highlight * hardness * facing * facing;
                        relief += *back_cut * slope * facing;
                        levels += *back_cut * level;
                    }
                    // Where two passes meet, a fine ridge catches the light.
                    let seam = (1.0 - (across.abs() - *pass_half).abs() * 0.7).max(0.0);
                    *out = (*ambient + shine) * (1.0 + levels + 0.10 * seam) + relief * (0.35 + 0.65 * hardness);
                    a += step_a;
                    c += step_c;
                }
            }
            Kind::Relief { octaves, above } => {
                out.fill(1.0);
                let mut heights = vec![0.0; out.len()];
                for ((plane, strength), above) in octaves.iter_mut().zip(above) {
                    plane.row(y, &mut heights);
                    if y == 0 {
                        above.copy_from_slice(&heights);
                    }
                    // Slope per unit against the lamp; coarse noise is flatter, so it is weighed by its cell.
                    let gain = *strength * plane.cell_px() * (0.5 + 0.7 * hardness);
                    let (gain_u, gain_v) = (gain * light_u, gain * light_v);
                    let mut left = heights[0];
                    for ((out, &here), &above) in out.iter_mut().zip(&heights).zip(above.iter()) {
                        *out -= gain_u * (here - left) + gain_v * (here - above) - *strength * 0.18 * here;
                        left = here;
                    }
                    above.copy_from_slice(&heights);
                }
            }
        }
        let (albedo, broad_strength, grain_strength) = (self.albedo, self.broad_strength, self.grain_strength);
        for ((out, broad), grain) in out.iter_mut().zip(broad).zip(grain) {
            *out = (albedo * *out * (1.0 + broad_strength * *broad + grain_strength * *grain)).max(0.004);
        }
    }

    /// Brightness of the bare material, for edges and bores.
    pub fn albedo(&self) -> f32 {
        self.albedo
    }
}

/// What the part lies on.
pub struct Ground {
    level: f32,
    contrast: f32,
    plane: Plane,
    grain: Plane,
    noise: [Vec<f32>; 2],
    shadow: (f32, f32),
    chamfer: f32,
}

impl Ground {
    pub fn new(size_px: (usize, usize), scale: f32, design: &mut Dice, part: &mut Dice, light: Light) -> Self {
        let (width, height) = size_px;
        let reach = design.range(3.0, 14.0);
        // A dark fixture mostly, now and then a light table.
        let level = if design.chance(0.85) { design.range(0.02, 0.1) } else { design.range(0.6, 0.85) };
        Self {
            level,
            contrast: if level < 0.2 { 1.0 } else { 0.18 },
            plane: Plane::new(part, width, height, 90.0 * scale),
            grain: Plane::new(part, width, height, 2.2 * scale),
            noise: [vec![0.0; width], vec![0.0; width]],
            shadow: (light.u * reach, light.v * reach),
            chamfer: design.range(2.0, 7.0),
        }
    }

    /// Cuts the part out of row `y` along its outline, with a chamfered edge, a shadow and the ground beyond.
    #[expect(clippy::too_many_arguments, reason = "one row, its place and what to draw into it")]
    pub fn row(
        &mut self,
        y: usize,
        start: (f32, f32),
        step: (f32, f32),
        scale: f32,
        outline: Outline,
        light: Light,
        albedo: f32,
        out: &mut [f32],
        on_part: &mut [u8],
    ) {
        if matches!(outline, Outline::Everywhere) {
            return;
        }
        let [broad, grain] = &mut self.noise;
        self.plane.row(y, broad);
        self.grain.row(y, grain);
        let (mut u, mut v) = start;
        for (index, (out, on_part)) in out.iter_mut().zip(on_part).enumerate() {
            let (distance, normal_u, normal_v) = outline.distance(u, v);
            if distance > -self.chamfer - 1.5 {
                let facing = normal_u * light.u + normal_v * light.v;
                let edge = albedo * (0.42 + 0.75 * facing.max(0.0) * light.hardness + 0.2 * facing);
                let chamfered = ((distance + self.chamfer) * scale + 0.5).clamp(0.0, 1.0);
                let body = *out + (edge.max(0.02) - *out) * chamfered;
                let outside = (distance * scale + 0.5).clamp(0.0, 1.0);
                if outside > 0.0 {
                    let (shade, _, _) = outline.distance(u + self.shadow.0, v + self.shadow.1);
                    let lit = 0.35 + 0.65 * smooth_step(-6.0, 10.0, shade);
                    let ground = self.level * lit * (1.0 + self.contrast * (0.15 * broad[index] + 0.10 * grain[index]));
                    *out = body + (ground.max(0.004) - body) * outside;
                } else {
                    *out = body;
                }
                // A defect must lie on the face, not on the edge.
                *on_part = 0;
            }
            u += step.0;
            v += step.1;
        }
    }
}
