//! Where the next page begins, as an opaque text that belongs to one filter and order.

use data_encoding::BASE64URL_NOPAD;

use crate::ports::index::{Filter, Order, RecipeFilter};

/// A cursor of another version is refused, not guessed at.
const VERSION: u8 = 1;
const BYTES: usize = 1 + 8 + 8;

/// Why a text is no cursor for this search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    #[error("this is no cursor of this service; start again without one")]
    Unknown,
    #[error("the cursor belongs to another filter or order; repeat the search it came from, or start without a cursor")]
    OtherFilter,
}

/// The cursor for the page that goes on at entry `position`: the next one for oldest first, the last one already shown
/// for newest first. It is a place in the log, so neither new entries nor a rebuilt index move it.
#[must_use]
pub fn encode(filter: &Filter, order: Order, position: u64) -> String {
    let mut bytes = [0; BYTES];
    bytes[0] = VERSION;
    bytes[1..9].copy_from_slice(&fingerprint(filter, order));
    bytes[9..].copy_from_slice(&position.to_le_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

/// # Errors
/// [`CursorError`].
pub fn decode(cursor: &str, filter: &Filter, order: Order) -> Result<u64, CursorError> {
    if cursor.len() != BASE64URL_NOPAD.encode_len(BYTES) {
        return Err(CursorError::Unknown);
    }
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| CursorError::Unknown)?;
    let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| CursorError::Unknown)?;
    if bytes[0] != VERSION {
        return Err(CursorError::Unknown);
    }
    if bytes[1..9] != fingerprint(filter, order) {
        return Err(CursorError::OtherFilter);
    }
    Ok(u64::from_le_bytes(*bytes.last_chunk().expect("a cursor ends with 8 bytes")))
}

/// Eight bytes that differ for different searches. They are compared, never trusted: a forged cursor names a place in
/// the log, and the filter applies to whatever lies there.
fn fingerprint(filter: &Filter, order: Order) -> [u8; 8] {
    let Filter { kinds, from, to, line, station, camera, product, serial, lot, verdicts, recipe, score_min, score_max } =
        filter;
    let mut hasher = blake3::Hasher::new_derive_key("lineproof history cursor 1");
    let mut add = |value: Option<&[u8]>| {
        let bytes = value.unwrap_or_default();
        hasher.update(&[u8::from(value.is_some())]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    // The order in which a set is given is no difference.
    let mut kinds: Vec<u8> = kinds.iter().map(|kind| *kind as u8).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut verdicts: Vec<u8> = verdicts.iter().map(|verdict| *verdict as u8).collect();
    verdicts.sort_unstable();
    verdicts.dedup();
    add(Some(&[order as u8]));
    add(Some(&kinds));
    add(Some(&verdicts));
    for time in [from, to] {
        add(time.map(|time| time.unix_nanos().to_le_bytes()).as_ref().map(<[u8; 8]>::as_slice));
    }
    for score in [score_min, score_max] {
        add(score.map(|score| score.ordered_bits().to_le_bytes()).as_ref().map(<[u8; 4]>::as_slice));
    }
    add(line.as_ref().map(|id| id.as_str().as_bytes()));
    add(station.as_ref().map(|id| id.as_str().as_bytes()));
    add(camera.as_ref().map(|id| id.as_str().as_bytes()));
    add(product.as_ref().map(|id| id.as_str().as_bytes()));
    add(serial.as_ref().map(|id| id.as_str().as_bytes()));
    add(lot.as_ref().map(|id| id.as_str().as_bytes()));
    add(match recipe {
        Some(RecipeFilter::Name(name)) => Some(name.as_str().as_bytes()),
        _ => None,
    });
    add(match recipe {
        Some(RecipeFilter::Digest(digest)) => Some(&digest.0),
        _ => None,
    });
    let mut fingerprint = [0; 8];
    hasher.finalize_xof().fill(&mut fingerprint);
    fingerprint
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Verdict;

    #[test]
    fn a_cursor_belongs_to_one_filter_and_order() {
        let filter = Filter { verdicts: vec![Verdict::Ok, Verdict::NotOk], ..Filter::default() };
        let cursor = encode(&filter, Order::NewestFirst, 77);
        assert_eq!(decode(&cursor, &filter, Order::NewestFirst), Ok(77));
        let same = Filter { verdicts: vec![Verdict::NotOk, Verdict::Ok], ..Filter::default() };
        assert_eq!(decode(&cursor, &same, Order::NewestFirst), Ok(77));
        assert_eq!(decode(&cursor, &filter, Order::OldestFirst), Err(CursorError::OtherFilter));
        let line = Filter { line: Some("a".parse().unwrap()), ..filter.clone() };
        assert_eq!(decode(&cursor, &line, Order::NewestFirst), Err(CursorError::OtherFilter));
        let camera = Filter { camera: Some("a".parse().unwrap()), ..filter };
        assert_ne!(encode(&line, Order::NewestFirst, 7), encode(&camera, Order::NewestFirst, 7));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in ".{0,40}") {
            prop_assert!(decode(&text, &Filter::default(), Order::NewestFirst).is_err());
        }
    }
}
