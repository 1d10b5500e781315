//! Checks a handover: the passport of the entry by which a log announced its next key, under a checkpoint that a key
//! signed which the auditor trusts already (`docs/spec/rotation.md`).

use super::{Problem, Step, verify_passport};
use crate::core::{
    export::keys::{Keys, VerifierKey},
    lineage::{
        passport::Passport,
        rotation::{Rotation, RotationEvent, Said},
    },
};

/// Trusts the key that a handover announces, once everything in it is checked. What was checked stands in the step.
///
/// # Errors
/// [`Problem`]; then no key was added.
pub fn take_handover(text: &str, keys: &mut Keys) -> Result<(Step, VerifierKey), Problem> {
    if let Some(problem) = verify_passport(text, keys).problem {
        return Err(problem);
    }
    let passport = Passport::parse(text).map_err(Problem::Passport)?;
    let (vkey, origin) =
        announced(&passport.entry, passport.checkpoint.lines().next().unwrap_or_default()).ok_or(Problem::Handover)?;
    keys.trust(vkey.clone());
    Ok((Step::Handover { index: passport.index.0, origin, key: vkey.key_id() }, vkey))
}

/// The key that an entry announces for the log of this origin, if it does.
pub(super) fn announced(entry: &[u8], origin: &str) -> Option<(VerifierKey, String)> {
    let Said { event: RotationEvent::Announced, vkey } = Rotation::read(entry)? else { return None };
    let key = VerifierKey::parse(&vkey).ok().filter(|key| key.is_log() && key.name() == origin)?;
    (key.line() == vkey).then(|| (key, origin.to_owned()))
}
