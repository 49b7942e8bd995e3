//! What machines see well: the layering, the heads of files, one door to the file system.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The packages of ours that a crate depends on, outside its tests.
fn dependencies(folder: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("steadfast")).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn dependencies_point_down() {
    let expected = [
        ("crates/core", vec![]),
        ("crates/storage", vec!["steadfast-core"]),
        ("crates/durability", vec!["steadfast-core"]),
        ("crates/engine", vec!["steadfast-core", "steadfast-durability", "steadfast-storage"]),
        (".", vec!["steadfast-engine"]),
    ];
    for (folder, expected) in expected {
        assert_eq!(dependencies(folder), expected, "{folder}");
    }
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut files = Vec::new();
    rust_files(root(), &mut files);
    assert!(files.len() > 40, "the files were found");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", file.display());
    }
}

#[test]
fn files_are_opened_in_one_place() {
    let doors = ["crates/durability/src/std_disk.rs"];
    let mut files = Vec::new();
    for layer in ["core", "storage", "durability", "engine"] {
        rust_files(&root().join("crates").join(layer).join("src"), &mut files);
    }
    // Unit tests damage files behind everybody's back.
    let tests = |file: &PathBuf| file.components().any(|part| part.as_os_str() == "tests");
    for file in files.into_iter().filter(|file| !tests(file)) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let opens =
            ["std::fs", "File::open", "File::create"].iter().any(|door| text.contains(door));
        assert_eq!(opens, doors.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    for folder in [
        ".",
        "crates/core",
        "crates/storage",
        "crates/durability",
        "crates/engine",
        "crates/testing",
        "crates/cli",
    ] {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{folder}");
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
}
