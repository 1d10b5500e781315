//! Adapters together, on files that were made elsewhere.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{archive::PackArchive, keys::Keys};
use crate::{ports::archive::ImageArchive as _, types::Blake3Digest};

/// The key files of `docs/spec/sealing.md`.
fn vector_keys(folder: &std::path::Path) -> Keys {
    let page = include_str!("../../docs/spec/sealing.md");
    fs::create_dir(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    for (file, prefix) in [("log.skey", "PRIVATE+KEY+lineproof"), ("master.key", "LINEPROOF-MASTER-KEY-1+0")] {
        let path = folder.join(file);
        fs::write(&path, page.lines().find(|line| line.starts_with(prefix)).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Keys::open(folder).unwrap()
}

#[test]
fn a_pack_made_from_the_specification_alone_opens() {
    let folder = tempfile::tempdir().unwrap();
    let keys = vector_keys(&folder.path().join("keys"));
    let day = folder.path().join("images/not_ok/2026-11-23");
    fs::create_dir_all(&day).unwrap();
    fs::write(day.join("00000000.pack"), include_bytes!("../../docs/spec/vectors/archive-1.pack")).unwrap();
    let archive = PackArchive::open(folder.path().join("images"), keys.image_sealer()).unwrap();
    for (offset, image) in [(88, &b""[..]), (168, b"lineproof archive vector\n")] {
        let place = format!("not_ok/2026-11-23/00000000:{offset}").parse().unwrap();
        assert_eq!(archive.get(&place, Blake3Digest::of(image)).unwrap(), image);
    }
}
