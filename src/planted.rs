//! Bugs on request: each hook leaves out one step that the guarantees rest on, so that `make faults TIER=medium` can show
//! that its checks notice. Only a build with the feature `planted-bugs` has any; in every other build [`has`] is a
//! constant `false` and the hooks are compiled away.
//!
//! | name | what goes wrong |
//! |---|---|
//! | `skip-wal-sync` | a group is acknowledged without fdatasync |
//! | `answer-before-sync` | a group is acknowledged before it is written |
//! | `skip-pack-sync` | an image is not durable when its entry is |
//! | `skip-directory-sync` | new names are not durable |
//! | `drop-tail-at-recovery` | a start forgets the last entry of the write-ahead log |
//! | `double-append-on-retry` | a frame that is sent again gets a second entry |
//! | `forget-anchor` | a start believes the checkpoint beside the log instead of the anchor |
//! | `sign-without-reading` | tiles are signed without being read back |
//! | `accept-flipped-tile` | a start leaves a tile as it lies there |
//! | `ignore-client-digest` | a frame damaged on its way is inspected |
//! | `ok-on-inference-error` | a failed inference gets a verdict |
//! | `answer-when-poisoned` | a session that failed its canary gives verdicts |
//! | `omit-gap` | a jump of the frame counter is not recorded |
//! | `flip-tile`, `flip-leaf`, `inference-error`, `wrong-canary` | no bugs but faults: a bit of a tile on its way to the disk, a bit of a leaf hash in memory, a failing model, a session that computes wrong |

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
#[must_use]
pub const fn has(_bug: &str) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub use on_request::{has, plant};

#[cfg(feature = "planted-bugs")]
mod on_request {
    use std::sync::{LazyLock, PoisonError, RwLock};

    /// Names, separated by commas.
    static PLANTED: LazyLock<RwLock<String>> =
        LazyLock::new(|| RwLock::new(std::env::var("LINEPROOF_PLANTED").unwrap_or_default()));

    /// Whether this bug is planted.
    #[must_use]
    pub fn has(bug: &str) -> bool {
        PLANTED.read().unwrap_or_else(PoisonError::into_inner).split(',').any(|name| name == bug)
    }

    /// Plants these in this process instead of what `LINEPROOF_PLANTED` says.
    pub fn plant(bugs: &str) {
        bugs.clone_into(&mut PLANTED.write().unwrap_or_else(PoisonError::into_inner));
    }
}
