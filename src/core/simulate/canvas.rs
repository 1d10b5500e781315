//! The light that reaches the lens, pixel by pixel, and small shapes drawn into it.

/// Luminance before the lens (1.0 saturates the sensor at exposure 1) and where the part's face is.
#[derive(Clone)]
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    /// Pixels in one unit.
    pub scale: f32,
    pub light: Vec<f32>,
    /// 1 where a defect may lie.
    pub on_part: Vec<u8>,
}

/// A rectangle of pixels, clipped to the frame; `x1`, `y1` are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub x0: usize,
    pub y0: usize,
    pub x1: usize,
    pub y1: usize,
}

impl Area {
    pub fn width(self) -> usize {
        self.x1 - self.x0
    }

    pub fn height(self) -> usize {
        self.y1 - self.y0
    }

    pub fn is_empty(self) -> bool {
        self.x0 >= self.x1 || self.y0 >= self.y1
    }

    pub fn grown(self, by: usize, canvas: &Canvas) -> Self {
        Self {
            x0: self.x0.saturating_sub(by),
            y0: self.y0.saturating_sub(by),
            x1: (self.x1 + by).min(canvas.width),
            y1: (self.y1 + by).min(canvas.height),
        }
    }
}

impl Canvas {
    pub fn new(width: usize, height: usize) -> Self {
        let scale = width.min(height) as f32 / 512.0;
        Self { width, height, scale, light: vec![0.0; width * height], on_part: vec![1; width * height] }
    }

    /// Image units of a pixel's centre; the origin is the middle of the frame.
    #[inline]
    pub fn units(&self, x: usize, y: usize) -> (f32, f32) {
        (
            (x as f32 + 0.5 - self.width as f32 * 0.5) / self.scale,
            (y as f32 + 0.5 - self.height as f32 * 0.5) / self.scale,
        )
    }

    /// The pixels within `half_u`, `half_v` units of a point in image units.
    pub fn area(&self, at: (f32, f32), half_x: f32, half_y: f32) -> Area {
        let pixel = |unit: f32, side: usize| (unit * self.scale + side as f32 * 0.5).clamp(0.0, side as f32) as usize;
        Area {
            x0: pixel(at.0 - half_x, self.width),
            y0: pixel(at.1 - half_y, self.height),
            x1: (pixel(at.0 + half_x, self.width) + 1).min(self.width),
            y1: (pixel(at.1 + half_y, self.height) + 1).min(self.height),
        }
    }

    /// Whether the pixel under a point in image units shows the part's face.
    pub fn is_part(&self, at: (f32, f32)) -> bool {
        let x = at.0 * self.scale + self.width as f32 * 0.5;
        let y = at.1 * self.scale + self.height as f32 * 0.5;
        x >= 0.0
            && y >= 0.0
            && (x as usize) < self.width
            && (y as usize) < self.height
            && self.on_part[y as usize * self.width + x as usize] == 1
    }

    /// Calls `draw` with the offset of each row of `area`.
    pub fn rows(area: Area, width: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        (area.y0..area.y1).map(move |y| (y, y * width + area.x0..y * width + area.x1))
    }
}
