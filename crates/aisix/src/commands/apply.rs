//! `aisix apply`: makes a place hold what a file says, after showing the plan.

use std::{path::PathBuf, process::ExitCode};

use aisix_config::{load_resources, plan::Plan, unenforced_note};
use anyhow::{Result, bail};
use serde::Serialize;

use super::{confirmed, print};
use crate::places::{Access, Open, Place};

#[derive(Debug)]
pub(crate) struct Apply {
    pub(crate) file: PathBuf,
    pub(crate) to: Place,
    pub(crate) dry_run: bool,
    pub(crate) yes: bool,
    pub(crate) prune: bool,
    pub(crate) json: bool,
    pub(crate) access: Access,
}

/// What machines are told.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

impl Apply {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let loaded = load_resources(&self.file, &|name| std::env::var(name).ok())?;
        if let Some(note) = unenforced_note(&loaded) {
            eprintln!("{note}");
        }
        let place = match self.dry_run {
            true => self.to.open(&self.access).await?,
            false => self.to.open_or_make(&self.access).await?,
        };
        let (plan, _) = place.apply(&loaded.documents, self.prune, true).await?;
        // With `--prune` the plan removes them.
        if let (Open::Store(store), false) = (&place, self.prune) {
            for refused in store.refused() {
                eprintln!("warning: {}: left as it is: {refused}", self.to);
            }
        }
        if !plan.broken.is_empty() {
            self.tell(&plan, None)?;
            bail!("nothing was written: the plan breaks {} reference(s), marked with `!`", plan.broken.len());
        }
        if self.dry_run || plan.is_empty() {
            self.tell(&plan, None)?;
            return Ok(ExitCode::SUCCESS);
        }
        if !self.json {
            print(&plan.to_string())?;
        } else if !self.yes {
            eprintln!("{plan}");
        }
        if !confirmed(self.yes, &format!("Make {} so?", self.to))? {
            eprintln!("Nothing was written.");
            return Ok(ExitCode::FAILURE);
        }
        if !self.yes {
            let (again, _) = place.apply(&loaded.documents, self.prune, true).await?;
            if again.to_string() != plan.to_string() {
                bail!(
                    "nothing was written: {} was changed meanwhile, and the plan is another one now",
                    self.to
                );
            }
        }
        let (plan, revision) = place.apply(&loaded.documents, self.prune, false).await?;
        if !plan.broken.is_empty() {
            bail!(
                "nothing was written: {} was changed meanwhile, and the plan breaks references now",
                self.to
            );
        }
        if self.json {
            self.tell(&plan, Some(revision))?;
        } else {
            print(&format!("applied to {} as revision {revision}", self.to))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn tell(&self, plan: &Plan, revision: Option<u64>) -> Result<()> {
        match (self.json, plan.is_empty() && plan.broken.is_empty()) {
            (true, _) => print(&serde_json::to_string_pretty(&Told { plan, revision })?),
            (false, true) => print(&format!("nothing to change: {} holds it already", self.to)),
            (false, false) => print(&plan.to_string()),
        }
    }
}
