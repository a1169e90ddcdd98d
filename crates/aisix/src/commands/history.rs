//! `aisix history` and `aisix rollback`: what was, and the way back to it.

use std::{path::PathBuf, process::ExitCode};

use aisix_config::kind_of;
use aisix_core::rows::{AuditChange, AuditRecord};
use anyhow::{Result, bail};

use super::{confirmed, print};
use crate::places::{Access, Place, Store};

/// Changed resources that are named in a line.
const NAMED: usize = 3;

#[derive(Debug)]
pub(crate) struct History {
    pub(crate) store: PathBuf,
    pub(crate) limit: usize,
    pub(crate) access: Access,
}

impl History {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let store = Store::embedded(&self.store, self.access.store_key()?).await?;
        let records = store.history(self.limit).await?;
        if records.is_empty() {
            eprintln!("Nothing was written yet.");
            return Ok(ExitCode::SUCCESS);
        }
        print(&table(&records))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A line for each record, in columns.
fn table(records: &[AuditRecord]) -> String {
    let row = |record: &AuditRecord| {
        let actor = record.actor.escape_debug().to_string();
        let action = record.action.escape_debug().to_string();
        [
            record.revision.to_string(),
            record.at.escape_debug().to_string(),
            actor,
            action,
            told(&record.changes),
        ]
    };
    let head = ["REVISION", "AT", "BY", "ACTION", "CHANGES"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(records.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 5]| {
        let columns = row.iter().zip(&widths).map(|(text, width)| format!("{text:width$}  "));
        columns.collect::<String>() + &row[4]
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `+ model fast, ~ api key ci and 3 more`
fn told(changes: &[AuditChange]) -> String {
    let one = |change: &AuditChange| {
        let sign = match (&change.before, &change.after) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        let title = kind_of(&change.kind).map_or(change.kind.as_str(), |kind| kind.title);
        format!("{sign} {title} {}", change.name.as_ref().unwrap_or(&change.id).escape_debug())
    };
    let named: Vec<String> = changes.iter().take(NAMED).map(one).collect();
    let more = changes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

#[derive(Debug)]
pub(crate) struct Rollback {
    pub(crate) revision: u64,
    pub(crate) to: Place,
    pub(crate) dry_run: bool,
    pub(crate) yes: bool,
    pub(crate) access: Access,
}

impl Rollback {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let (place, revision) = (self.to.open(&self.access).await?, self.revision);
        let (plan, _) = place.rollback(revision, true).await?;
        if plan.is_empty() {
            print(&format!("{} holds what it held at revision {revision}", self.to))?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&plan.to_string())?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !confirmed(self.yes, &format!("Bring {} back to revision {revision}?", self.to))? {
            eprintln!("Nothing was written.");
            return Ok(ExitCode::FAILURE);
        }
        if !self.yes && place.rollback(revision, true).await?.0 != plan {
            bail!(
                "nothing was written: {} was changed meanwhile, and the way back is another one now",
                self.to
            );
        }
        let (_, made) = place.rollback(revision, false).await?;
        print(&format!("brought back revision {revision} of {} as revision {made}", self.to))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(name: &str, before: bool, after: bool) -> AuditChange {
        let document = |there: bool| there.then(|| json!({}));
        AuditChange {
            kind: "models".into(),
            id: "1".into(),
            name: Some(name.into()),
            before: document(before),
            after: document(after),
        }
    }

    #[test]
    fn history_is_a_table() {
        let record = |revision, actor: &str, changes| AuditRecord {
            revision,
            at: "2026-01-02T03:04:05Z".into(),
            actor: actor.into(),
            remote: None,
            action: "apply".into(),
            changes,
        };
        let several = vec![
            change("a", false, true),
            change("b", true, true),
            change("c", true, false),
            change("d", true, true),
        ];
        let records =
            [record(12, "cli:jo\u{1b}", several), record(3, "admin-1", vec![change("x", true, true)])];
        let text = "\
REVISION  AT                    BY            ACTION  CHANGES
12        2026-01-02T03:04:05Z  cli:jo\\u{1b}  apply   + model a, ~ model b, - model c and 1 more
3         2026-01-02T03:04:05Z  admin-1       apply   ~ model x";
        assert_eq!(table(&records), text);
    }
}
