//! `aisix validate`: the checks of boot and reload without starting anything.

use std::{path::Path, process::ExitCode};

use aisix_config::{load_process_config, load_resources, unenforced_note};
use anyhow::Result;

use crate::boot;

/// Checks a resources file.
pub(crate) fn resources(path: &Path) -> Result<ExitCode> {
    let loaded = load_resources(path, &|name| std::env::var(name).ok())?;
    println!("OK: {} loaded {} resource(s)", path.display(), loaded.count);
    if let Some(note) = unenforced_note(&loaded) {
        eprintln!("{note}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a process configuration and the certificate files it names.
pub(crate) fn config(path: &Path) -> Result<ExitCode> {
    let config = load_process_config(Some(path), &boot::environment())?;
    boot::check_files(&config)?;
    println!("OK: {} is valid", path.display());
    Ok(ExitCode::SUCCESS)
}
