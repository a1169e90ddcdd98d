//! A resources file is taken as a whole or refused with a report.
//!
//! Input: the file.

#![no_main]

use std::{path::PathBuf, sync::LazyLock};

use aisix_config::load_resources;
use libfuzzer_sys::fuzz_target;

/// In memory where there is such a place; one for each process.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("aisix-fuzz-{}.yaml", std::process::id()))
});

fn env(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("the-secret-of-the-environment".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fuzz_target!(|input: &[u8]| {
    std::fs::write(&*FILE, input).expect("a temporary file can be written");
    match load_resources(&FILE, &env) {
        Ok(loaded) => {
            assert_eq!(loaded.set.len(), loaded.count);
            assert!(!format!("{:?}", loaded.set).contains("the-secret-of-the-environment"));
        }
        Err(errors) => {
            let report = errors.to_string();
            assert!(!report.trim().is_empty());
            assert!(!report.contains("the-secret-of-the-environment"), "{report}");
        }
    }
});
