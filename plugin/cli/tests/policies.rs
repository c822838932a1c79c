//! The policies that the repository hands out: every one is exercised by a case, and all cases pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use common::{json, root};

#[test]
fn every_starter_policy_is_exercised_and_every_case_passes() {
    let mut folders: Vec<String> = std::fs::read_dir(root().join("policies/starter"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| format!("policies/starter/{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    folders.sort();
    assert!(folders.len() >= 7, "{folders:?}");
    for folder in &folders {
        let (report, code) = json(&["test", folder, "--require-coverage"]);
        assert_eq!(code, 0, "{report:#}");
        let set = &report["sets"][0];
        assert_eq!(set["coverage"]["covered"], set["coverage"]["policies"], "{folder}");
        assert!(set["passed"].as_u64().unwrap() >= 6, "{folder}");
    }
    let readme = std::fs::read_to_string(root().join("policies/README.md")).unwrap();
    for folder in &folders {
        let name = folder.rsplit('/').next().unwrap();
        assert!(readme.contains(&format!("(starter/{name})")), "the README lacks {name}");
    }
}
