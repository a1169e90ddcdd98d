//! `aisix store`: care of the embedded store.

use std::{path::PathBuf, process::ExitCode};

use aisix_store::embedded::EmbeddedStore;
use anyhow::Result;

use super::print;
use crate::places::{key_source, secret};

#[derive(Debug)]
pub(crate) struct RotateKey {
    pub(crate) data_dir: PathBuf,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) key_env: Option<String>,
    pub(crate) new_key_env: Option<String>,
}

impl RotateKey {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let new = self.new_key_env.as_deref();
        let new = new.map(|variable| secret("--new-key-env", variable, "the new key")).transpose()?;
        let source = key_source(("--key-env", self.key_env.as_deref()), self.key_file)?;
        let store = EmbeddedStore::open_existing(&self.data_dir, source)?;
        let rotation = store.rotate_key(new).await?;
        let file = store.path().display();
        print(&format!(
            "{file} is encrypted with the key {} now: {} row(s) and {} former version(s)",
            rotation.key, rotation.rows, rotation.history
        ))?;
        if let (Some(old), Some(new)) = (&self.key_env, &self.new_key_env) {
            eprintln!(
                "Start the gateway with the value of {new} in {old} from now on; one that runs must be started again."
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
