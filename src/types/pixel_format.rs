//! Raw camera pixels, named and numbered as in the GenICam Pixel Format Naming Convention (PFNC).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A raw pixel format with its 32-bit PFNC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u32)]
pub enum PixelFormat {
    Mono8 = 0x0108_0001,
    Mono10 = 0x0110_0003,
    Mono12 = 0x0110_0005,
    Mono16 = 0x0110_0007,
    Mono10p = 0x010A_0046,
    Mono12p = 0x010C_0047,
    BayerGR8 = 0x0108_0008,
    BayerRG8 = 0x0108_0009,
    BayerGB8 = 0x0108_000A,
    BayerBG8 = 0x0108_000B,
    RGB8 = 0x0218_0014,
    BGR8 = 0x0218_0015,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0} is no pixel format this service reads; it reads Mono8, Mono10, Mono12, Mono16, Mono10p, Mono12p, BayerGR8, BayerRG8, BayerGB8, BayerBG8, RGB8 and BGR8"
)]
pub struct UnknownPixelFormat(pub String);

impl PixelFormat {
    pub const ALL: [Self; 12] = [
        Self::Mono8,
        Self::Mono10,
        Self::Mono12,
        Self::Mono16,
        Self::Mono10p,
        Self::Mono12p,
        Self::BayerGR8,
        Self::BayerRG8,
        Self::BayerGB8,
        Self::BayerBG8,
        Self::RGB8,
        Self::BGR8,
    ];

    /// The 32-bit PFNC code.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }

    /// # Errors
    /// [`UnknownPixelFormat`] for a code outside [`Self::ALL`].
    pub fn from_code(code: u32) -> Result<Self, UnknownPixelFormat> {
        let unknown = || UnknownPixelFormat(format!("PFNC code 0x{code:08X}"));
        Self::ALL.into_iter().find(|format| format.code() == code).ok_or_else(unknown)
    }

    /// Bits one pixel takes in a row, as the PFNC code says in bits 16..24.
    #[must_use]
    pub fn bits_per_pixel(self) -> u32 {
        (self.code() >> 16) & 0xff
    }

    /// The PFNC name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mono8 => "Mono8",
            Self::Mono10 => "Mono10",
            Self::Mono12 => "Mono12",
            Self::Mono16 => "Mono16",
            Self::Mono10p => "Mono10p",
            Self::Mono12p => "Mono12p",
            Self::BayerGR8 => "BayerGR8",
            Self::BayerRG8 => "BayerRG8",
            Self::BayerGB8 => "BayerGB8",
            Self::BayerBG8 => "BayerBG8",
            Self::RGB8 => "RGB8",
            Self::BGR8 => "BGR8",
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PixelFormat {
    type Err = UnknownPixelFormat;

    fn from_str(text: &str) -> Result<Self, UnknownPixelFormat> {
        let unknown = || UnknownPixelFormat(format!("{:?}", text.chars().take(40).collect::<String>()));
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_carry_the_bits_that_a_pixel_takes() {
        assert_eq!(PixelFormat::Mono8.bits_per_pixel(), 8);
        assert_eq!(PixelFormat::Mono10p.bits_per_pixel(), 10);
        assert_eq!(PixelFormat::Mono12.bits_per_pixel(), 16);
        assert_eq!(PixelFormat::BGR8.bits_per_pixel(), 24);
        for format in PixelFormat::ALL {
            assert_eq!(PixelFormat::from_code(format.code()), Ok(format));
            assert_eq!(format.name().parse(), Ok(format));
        }
    }
}
