//! `aisix validate`: the checks of boot and reload without starting anything.

use std::{path::Path, process::ExitCode};

use aisix_config::{load_process_config, load_resources};
use anyhow::Result;

use crate::boot;

/// Checks a resources file.
pub(crate) fn resources(path: &Path) -> Result<ExitCode> {
    match load_resources(path, &|name| std::env::var(name).ok()) {
        Ok(loaded) => {
            println!("OK: {} loaded {} resource(s)", path.display(), loaded.count);
            Ok(ExitCode::SUCCESS)
        }
        Err(report) => {
            eprintln!("{report}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Checks a process configuration and the certificate files it names.
pub(crate) fn config(path: &Path) -> Result<ExitCode> {
    let config = load_process_config(path, &boot::environment())?;
    boot::check_files(&config)?;
    println!("OK: {} is valid", path.display());
    Ok(ExitCode::SUCCESS)
}
