//! How camera frame counters run: upwards, sometimes late by a little, from the start again after a camera restarts.

/// A counter this far below the highest one is a camera that started anew, not a late frame.
pub const RESTART_DISTANCE: u64 = 4096;

/// Where a camera stands when `counter` turns up after `before`: entries come in the order of commitment, so a late
/// frame, or the gap entry of an earlier jump, may come after a higher counter.
#[must_use]
pub fn stands_at(before: Option<u64>, counter: u64) -> u64 {
    match before {
        Some(before) if counter < before && before - counter <= RESTART_DISTANCE => before,
        _ => counter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_frames_do_not_set_a_camera_back_and_a_restart_does() {
        assert_eq!(stands_at(None, 7), 7);
        assert_eq!(stands_at(Some(6), 5), 6);
        assert_eq!(stands_at(Some(6), 9), 9);
        assert_eq!(stands_at(Some(100_000), 1), 1);
    }
}
