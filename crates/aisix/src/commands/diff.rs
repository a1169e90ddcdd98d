//! `aisix diff`: what would have to change.

use std::process::ExitCode;

use aisix_config::plan::plan;
use anyhow::Result;

use super::print;
use crate::places::{Access, Contents, Place};

#[derive(Debug)]
pub(crate) struct Diff {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) json: bool,
    pub(crate) access: Access,
}

impl Diff {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let from = self.read(&self.from).await?;
        let to = self.read(&self.to).await?;
        if from.masked || to.masked {
            eprintln!(
                "note: a running gateway does not show its secrets: they are taken for equal (`aisix apply --dry-run` compares them)"
            );
        }
        let plan = plan(&from.documents, &to.documents, true);
        match (self.json, plan.is_empty()) {
            (true, _) => print(&serde_json::to_string_pretty(&plan)?)?,
            (false, false) => print(&plan.to_string())?,
            (false, true) => eprintln!("{} and {} hold the same", self.from, self.to),
        }
        Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn read(&self, place: &Place) -> Result<Contents> {
        let contents = place.open(&self.access).await?.read().await?;
        for refused in &contents.refused {
            eprintln!("warning: {place}: passed over: {refused}");
        }
        Ok(contents)
    }
}
