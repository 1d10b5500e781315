//! One word per idea, parsed once at the edge and trusted afterwards.

mod bounds;
mod digest;
mod ids;
mod pixel_format;
mod role;
mod score;
mod time;
mod verdict;

pub use bounds::Bounds;
pub use digest::{Blake3Digest, DigestError, Sha256Digest};
pub use ids::{
    CameraId, EntryIndex, FrameId, FrameKey, IdError, LineId, LotId, ProductId, RecipeRef, Serial, StationId, ViewName,
};
pub use pixel_format::{PixelFormat, UnknownPixelFormat};
pub use role::{Role, Roles};
pub use score::{Score, ScoreError};
pub use time::{Instant, TimeError};
pub use verdict::Verdict;
