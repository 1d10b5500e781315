//! The plant's own certificate authority, as far as it is no file and no signature: who a certificate names, and the
//! register of every certificate ever issued. Written down in `docs/spec/pki.md`.

pub mod names;
pub mod register;
