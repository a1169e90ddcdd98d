//! `aisix export`: a configuration as a resources file.

use std::{
    fs::{OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use aisix_config::{Export as File, ExportOptions, export};
use anyhow::{Context, Result, bail};

use super::print;
use crate::places::{Access, Place};

#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) place: Place,
    pub(crate) reveal_secrets: bool,
    pub(crate) output: Option<PathBuf>,
    pub(crate) access: Access,
}

impl Export {
    pub(super) async fn run(self) -> Result<ExitCode> {
        if self.reveal_secrets && matches!(self.place, Place::Gateway { .. }) {
            bail!("--reveal-secrets: a running gateway does not show its secrets; export from its store");
        }
        let contents = self.place.open(&self.access).await?.read().await?;
        let file = export(&contents.documents, ExportOptions { reveal_secrets: self.reveal_secrets });
        match &self.output {
            Some(path) => {
                write(path, &file.yaml).with_context(|| format!("{} cannot be written", path.display()))?;
                eprintln!("Exported {} resource(s) to {}", file.count, path.display());
            }
            None => {
                print(file.yaml.strip_suffix('\n').unwrap_or(&file.yaml))?;
                eprintln!("Exported {} resource(s) to stdout", file.count);
            }
        }
        tell(&file, &contents.refused);
        let clean = file.problems.is_empty() && contents.refused.is_empty();
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What the file does not say.
fn tell(file: &File, refused: &[String]) {
    for row in refused {
        eprintln!("rejected: {row}");
    }
    for warning in &file.warnings {
        eprintln!("warning: {warning}");
    }
    if !file.problems.is_empty() {
        eprintln!("The file cannot be loaded as it is, {} problem(s):", file.problems.len());
        file.problems.iter().for_each(|problem| eprintln!("  - {problem}"));
    }
    if !file.placeholders.is_empty() {
        let count = file.placeholders.len();
        eprintln!(
            "{count} secret value(s) were replaced with ${{VAR}} placeholders; set these variables before loading the file:"
        );
        for placeholder in &file.placeholders {
            let name = placeholder.name.escape_debug();
            eprintln!("  {}  {} \"{name}\": {}", placeholder.variable, placeholder.kind, placeholder.field);
        }
    }
}

/// Writes a file that only its owner can read, whatever it was before.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.set_len(0)?;
    }
    file.write_all(text.as_bytes())?;
    file.flush()
}
