//! The files of JSONTestSuite, which are kept beside the repository. Use it as
//! `#[path = "support/json_suite.rs"] mod json_suite;`.
#![allow(unreachable_pub)]

use std::{env, fs, path::Path};

/// Its 318 files, name and bytes, in the order of their names: `y_` is JSON, `n_` is not, `i_` is for each to decide. None
/// where the suite is absent, which is said; under `CI=true` that is a failure.
pub fn files() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/JSONTestSuite/test_parsing");
    let Ok(entries) = fs::read_dir(&folder) else {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs {}", folder.display());
        eprintln!("passed over: no {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 318);
    files
}
