//! Holds the layers of `src/lib.rs`: who may name whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each layer may use besides itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("core", &["types"]),
    ("ports", &["types", "core"]),
    ("adapters", &["types", "core", "ports"]),
    ("services", &["types", "core", "ports"]),
    ("edge", &["types", "core", "ports", "services"]),
    ("app", &["types", "core", "ports", "adapters", "services", "edge"]),
];

/// Crates that only one file may name.
const ONE_FILE: &[(&str, &str)] = &[("sled", "src/adapters/"), ("ort", "src/adapters/ort")];

/// Crates and modules that pure code may not name.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "prost",
    "sled",
    "ort",
    "std::fs",
    "std::net",
    "std::thread",
    "std::time::SystemTime",
    "Instant::now",
];

#[test]
fn every_layer_uses_only_the_layers_below_it() {
    let mut wrong = Vec::new();
    for (layer, allowed) in MAY_USE {
        for file in rust_files(&Path::new("src").join(layer)) {
            for (number, line) in code_lines(&file) {
                for (other, _) in MAY_USE.iter().filter(|(other, _)| other != layer && !allowed.contains(other)) {
                    if line.contains(&format!("crate::{other}")) || names_in_group(&line, other) {
                        wrong.push(format!("{}:{number}: {layer} uses {other}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn adapters_do_not_name_each_other() {
    let mut wrong = Vec::new();
    for file in rust_files(Path::new("src/adapters")) {
        let own = file.strip_prefix("src/adapters").expect("below adapters").components().next().expect("has a name");
        let own = Path::new(own.as_os_str()).file_stem().expect("has a stem").to_string_lossy().into_owned();
        for (number, line) in code_lines(&file) {
            if let Some(rest) = line.split("crate::adapters::").nth(1)
                && !rest.starts_with(&own)
            {
                wrong.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn core_and_types_are_pure() {
    let mut wrong = Vec::new();
    for layer in ["src/core", "src/types"] {
        for file in rust_files(Path::new(layer)) {
            for (number, line) in code_lines(&file) {
                for word in IMPURE {
                    if names(&line, word) {
                        wrong.push(format!("{}:{number}: {word}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_file_knows_each_engine_and_only_the_edge_knows_prost() {
    for (name, home) in ONE_FILE {
        let users: Vec<PathBuf> = rust_files(Path::new("src"))
            .into_iter()
            .filter(|file| code_lines(file).iter().any(|(_, line)| names(line, name)))
            .collect();
        assert!(users.len() <= 1, "{name} is named by {users:?}");
        assert!(
            users.iter().all(|file| file.starts_with(home) || file.to_string_lossy().starts_with(home)),
            "{users:?}"
        );
    }
    for file in rust_files(Path::new("src")) {
        let is_allowed = ["src/edge", "src/app"].iter().any(|layer| file.starts_with(layer));
        let names_prost = code_lines(&file).iter().any(|(_, line)| names(line, "prost") || names(line, "prost_types"));
        assert!(is_allowed || !names_prost, "{} names prost", file.display());
    }
}

/// The lines of a file before its unit tests, without comments.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("a source file is readable");
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

/// Whether a path in the line starts with this crate or module.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(&format!("{word}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    }) || line.trim_start().starts_with(&format!("use {word};"))
}

/// `use crate::{…}` puts layers at the start of lines, one indentation in.
fn names_in_group(line: &str, layer: &str) -> bool {
    line.starts_with(&format!("    {layer}::"))
}

/// Modules that `#[cfg(test)]` includes.
fn is_for_tests(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("sample.rs")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.expect("a folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_for_tests(&path) {
            files.push(path);
        }
    }
    files.sort();
    files
}
