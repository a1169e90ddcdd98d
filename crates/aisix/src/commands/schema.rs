//! `aisix schema`: what a document of a kind may hold.

use std::process::ExitCode;

use aisix_config::{KINDS, ResourceKind, json_schema};
use anyhow::Result;
use serde_json::{Map, Value};

use super::print;

#[derive(Debug)]
pub(crate) struct Schema {
    /// Without one, every kind.
    pub(crate) kind: Option<&'static ResourceKind>,
}

impl Schema {
    pub(super) fn run(self) -> Result<ExitCode> {
        let schema = match self.kind {
            Some(kind) => json_schema(kind),
            None => {
                let each = KINDS.iter().map(|kind| (kind.name.to_owned(), json_schema(kind)));
                Value::Object(each.collect::<Map<_, _>>())
            }
        };
        print(&serde_json::to_string_pretty(&schema)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
