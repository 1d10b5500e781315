//! Boxes of whole pixels.

use serde::{Deserialize, Serialize};

/// A box in frame pixels. What this service makes is at least 1x1 and lies within its frame.
///
/// In evidence it is `{"height":…,"width":…,"x":…,"y":…}`; the fields stand in that order, because serde writes them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    #[serde(rename = "height")]
    pub height_px: u32,
    #[serde(rename = "width")]
    pub width_px: u32,
    #[serde(rename = "x")]
    pub x_px: u32,
    #[serde(rename = "y")]
    pub y_px: u32,
}

impl Bounds {
    /// All of a frame.
    #[must_use]
    pub fn whole((width_px, height_px): (u32, u32)) -> Self {
        Self { height_px, width_px, x_px: 0, y_px: 0 }
    }

    /// Width and height.
    #[must_use]
    pub fn size(self) -> (u32, u32) {
        (self.width_px, self.height_px)
    }

    /// The first column behind it.
    #[must_use]
    pub fn right_px(self) -> u32 {
        self.x_px.saturating_add(self.width_px)
    }

    /// The first row behind it.
    #[must_use]
    pub fn bottom_px(self) -> u32 {
        self.y_px.saturating_add(self.height_px)
    }
}
