//! Lamp, lens and sensor: uneven light, glare, focus, exposure and noise.

use super::{
    canvas::Canvas,
    dice::{Dice, exp_minus},
};

/// How this frame was lit and taken.
pub struct Optics {
    gradient: (f32, f32),
    vignette: f32,
    glare: Option<Glare>,
    pub exposure: f32,
    kernel: Vec<f32>,
    read_noise: f32,
    shot_noise: f32,
}

struct Glare {
    at: (f32, f32),
    half: (f32, f32),
    strength: f32,
}

/// Longest arm of the blur kernel in pixels.
const BLUR_ARM_MAX: usize = 12;

impl Optics {
    pub fn new(canvas: &Canvas, shiny: bool, dice: &mut Dice) -> Self {
        let fall = dice.mostly_low(0.0, 0.34);
        let towards = dice.direction();
        let glare = dice.chance(if shiny { 0.14 } else { 0.04 }).then(|| Glare {
            at: (dice.range(-220.0, 220.0), dice.range(-220.0, 220.0)),
            half: (dice.range(18.0, 70.0), dice.range(18.0, 70.0)),
            strength: dice.range(0.25, 0.9),
        });
        // In focus most of the time; a few frames are soft.
        let sigma_units = if dice.chance(0.12) { dice.range(1.0, 1.7) } else { dice.range(0.45, 0.95) };
        Self {
            gradient: (fall * towards.0 / 256.0, fall * towards.1 / 256.0),
            vignette: dice.range(0.0, 0.22) / (256.0 * 256.0 * 2.0),
            glare,
            exposure: dice.range(0.78, 1.22),
            kernel: kernel(sigma_units * canvas.scale),
            read_noise: dice.range(0.7, 2.2),
            shot_noise: dice.range(0.03, 0.13),
        }
    }

    /// Lights the canvas and images it through the lens: values in 0..=255, clipped as the sensor clips.
    pub fn expose(&self, canvas: &Canvas) -> Vec<f32> {
        let mut image = canvas.light.clone();
        for (y, row) in image.chunks_exact_mut(canvas.width).enumerate() {
            let (mut ux, uy) = canvas.units(0, y);
            let step = 1.0 / canvas.scale;
            for pixel in row {
                *pixel *= 1.0 + self.gradient.0 * ux + self.gradient.1 * uy - self.vignette * (ux * ux + uy * uy);
                ux += step;
            }
        }
        if let Some(glare) = &self.glare {
            let area = canvas.area(glare.at, glare.half.0 * 2.6, glare.half.1 * 2.6);
            for (y, row) in Canvas::rows(area, canvas.width) {
                for (offset, index) in row.enumerate() {
                    let (ux, uy) = canvas.units(area.x0 + offset, y);
                    let (a, b) = ((ux - glare.at.0) / glare.half.0, (uy - glare.at.1) / glare.half.1);
                    let square = a * a + b * b;
                    if square < 6.0 {
                        // The lamp's mirror image sits on top of what the face itself sends back.
                        image[index] *= 1.0 + 2.2 * glare.strength * (exp_minus(square) - 0.0025).max(0.0);
                    }
                }
            }
        }
        blur(&mut image, canvas.width, canvas.height, &self.kernel);
        let gain = self.exposure * 255.0;
        for pixel in &mut image {
            *pixel = (*pixel * gain).clamp(0.0, 255.0);
        }
        image
    }

    /// Standard deviation of the sensor's noise at a grey level.
    pub fn noise_at(&self, level: f32) -> f32 {
        self.read_noise + self.shot_noise * level.max(0.0).sqrt()
    }

    /// Reads the sensor out: adds noise and rounds to 8 bits.
    pub fn read_out(&self, image: &[f32], dice: &mut Dice) -> Vec<u8> {
        // The sum of four bytes is close to a normal distribution of deviation 147.8.
        let table: Vec<f32> = (0..=255_u8).map(|level| self.noise_at(f32::from(level)) / 147.8).collect();
        let mut pixels = Vec::with_capacity(image.len());
        for pair in image.chunks(2) {
            let bits = dice.next_u64();
            for (lane, &level) in pair.iter().enumerate() {
                let bits = (bits >> (32 * lane)) as u32;
                let bytes = (bits & 0x00ff_00ff) + ((bits >> 8) & 0x00ff_00ff);
                let sum = ((bytes & 0xffff) + (bytes >> 16)) as f32 - 510.0;
                pixels.push((level + sum * table[level as usize] + 0.5) as u8);
            }
        }
        pixels
    }
}

/// One arm of a normalised Gaussian: centre first.
fn kernel(sigma: f32) -> Vec<f32> {
    let arm = ((sigma * 2.6) as usize + 1).min(BLUR_ARM_MAX);
    let mut kernel: Vec<f32> = (0..=arm).map(|i| exp_minus((i * i) as f32 / (2.0 * sigma * sigma))).collect();
    let sum = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
    kernel.iter_mut().for_each(|weight| *weight /= sum);
    kernel
}

/// Separable blur in place; the border repeats.
fn blur(image: &mut [f32], width: usize, height: usize, kernel: &[f32]) {
    let arm = kernel.len() - 1;
    let mut padded = vec![0.0; width + 2 * arm];
    for row in image.chunks_exact_mut(width) {
        padded[..arm].fill(row[0]);
        padded[arm..arm + width].copy_from_slice(row);
        padded[arm + width..].fill(row[width - 1]);
        for (out, centre) in row.iter_mut().zip(&padded[arm..]) {
            *out = kernel[0] * centre;
        }
        for (tap, weight) in kernel.iter().enumerate().skip(1) {
            let (left, right) = (&padded[arm - tap..arm - tap + width], &padded[arm + tap..arm + tap + width]);
            for ((out, left), right) in row.iter_mut().zip(left).zip(right) {
                *out += weight * (left + right);
            }
        }
    }
    // Down the columns with a ring of the rows already overwritten.
    let mut kept: Vec<Vec<f32>> = (0..=arm).map(|_| image[..width].to_vec()).collect();
    for y in 0..height {
        let slot = y % (arm + 1);
        kept[slot].copy_from_slice(&image[y * width..(y + 1) * width]);
        let mut out = vec![0.0; width];
        for (out, centre) in out.iter_mut().zip(&kept[slot]) {
            *out = kernel[0] * centre;
        }
        for (tap, weight) in kernel.iter().enumerate().skip(1) {
            // Rows above the first are the first: the ring starts filled with it.
            let above = &kept[(y + (arm + 1) - tap) % (arm + 1)];
            let below = (y + tap).min(height - 1);
            let below = &image[below * width..(below + 1) * width];
            for ((out, above), below) in out.iter_mut().zip(above).zip(below) {
                *out += weight * (above + below);
            }
        }
        image[y * width..(y + 1) * width].copy_from_slice(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blur_keeps_the_light_and_spreads_it_evenly() {
        let mut image = vec![0.0; 31 * 31];
        image[15 * 31 + 15] = 1.0;
        blur(&mut image, 31, 31, &kernel(1.3));
        assert!((image.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!((image[15 * 31 + 13] - image[13 * 31 + 15]).abs() < 1e-6);
        assert!((image[15 * 31 + 17] - image[13 * 31 + 15]).abs() < 1e-6);
        let mut flat = vec![0.5; 20 * 12];
        blur(&mut flat, 20, 12, &kernel(2.0));
        assert!(flat.iter().all(|v| (v - 0.5).abs() < 1e-5), "the border repeats");
    }
}
