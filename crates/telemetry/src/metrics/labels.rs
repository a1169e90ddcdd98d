//! Label values become small ids while the configuration is compiled.
//!
//! Only configured names are interned, never what a caller sends, so the
//! tables stay as small as the configuration's history. Ids stay valid over
//! reloads: the same values always give the same id.

use std::{collections::HashMap, sync::Arc};

use crate::text::clean;

/// The value of a label that was never resolved.
pub(crate) const UNKNOWN: &str = "unknown";
const UNRESOLVED: &str = "unresolved";
const MAX_LABEL_CHARS: usize = 256;

/// A configured model name, as the `model` label shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelId(u32);

impl ModelId {
    /// No configured model has the name, or it was never read.
    pub const UNRESOLVED: Self = Self(0);
}

impl Default for ModelId {
    fn default() -> Self {
        Self::UNRESOLVED
    }
}

/// A caller: the labels of its API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(u32);

/// A target: a model on its provider key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetId(u32);

impl TargetId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The labels that identify a caller. Blank values read `unknown`.
#[derive(Clone, Copy, Debug)]
pub struct CallerLabels<'a> {
    /// Id of the API key resource.
    pub api_key_id: &'a str,
    /// `team_id` of the key.
    pub team_id: Option<&'a str>,
    /// `user_id` of the key.
    pub user_id: Option<&'a str>,
    /// `user_name` of the key.
    pub user_name: Option<&'a str>,
}

/// The labels that identify a target. Blank values read `unknown`.
#[derive(Clone, Copy, Debug)]
pub struct TargetLabels<'a> {
    /// Display name of the dispatched model (a wildcard: of its row).
    pub model: &'a str,
    /// Vendor id.
    pub provider: &'a str,
    /// Configured upstream model name (a wildcard: the template).
    pub upstream_model: &'a str,
    /// Id of the provider key resource.
    pub provider_key_id: &'a str,
    /// Display name of the provider key.
    pub provider_key_name: &'a str,
}

type Row<const N: usize> = [Arc<str>; N];

/// Rows of label values; row 0 stands for "never resolved".
struct Table<const N: usize> {
    ids: HashMap<Row<N>, u32>,
    rows: Vec<Row<N>>,
}

impl<const N: usize> Table<N> {
    fn new(unresolved: &str) -> Self {
        Self { ids: HashMap::new(), rows: vec![std::array::from_fn(|_| unresolved.into())] }
    }

    fn intern(&mut self, values: [&str; N]) -> u32 {
        let row = values.map(|value| {
            let value = clean(value, MAX_LABEL_CHARS);
            let blank = value.trim().is_empty();
            Arc::from(if blank { UNKNOWN } else { &*value })
        });
        if let Some(id) = self.ids.get(&row) {
            return *id;
        }
        let id = self.rows.len() as u32;
        self.rows.push(row.clone());
        self.ids.insert(row, id);
        id
    }
}

/// All interned labels.
pub(crate) struct Interner {
    models: Table<1>,
    callers: Table<4>,
    targets: Table<5>,
}

impl Interner {
    pub(crate) fn new() -> Self {
        Self { models: Table::new(UNRESOLVED), callers: Table::new(UNKNOWN), targets: Table::new(UNKNOWN) }
    }

    pub(crate) fn model(&mut self, name: &str) -> ModelId {
        ModelId(self.models.intern([name]))
    }

    pub(crate) fn caller(&mut self, labels: CallerLabels<'_>) -> CallerId {
        let or_unknown = |value: Option<_>| value.unwrap_or(UNKNOWN);
        CallerId(self.callers.intern([
            labels.api_key_id,
            or_unknown(labels.team_id),
            or_unknown(labels.user_id),
            or_unknown(labels.user_name),
        ]))
    }

    pub(crate) fn target(&mut self, labels: TargetLabels<'_>) -> TargetId {
        TargetId(self.targets.intern([
            labels.model,
            &labels.provider.to_lowercase(),
            labels.upstream_model,
            labels.provider_key_id,
            labels.provider_key_name,
        ]))
    }

    /// The values of all ids given out so far.
    pub(crate) fn names(&self) -> Names {
        Names {
            models: self.models.rows.clone(),
            callers: self.callers.rows.clone(),
            targets: self.targets.rows.clone(),
        }
    }
}

/// Label values by id.
pub(crate) struct Names {
    models: Vec<Row<1>>,
    callers: Vec<Row<4>>,
    targets: Vec<Row<5>>,
}

/// Label values of a caller.
pub(crate) struct CallerNames<'a> {
    pub(crate) api_key_id: &'a str,
    pub(crate) team_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) user_name: &'a str,
}

/// Label values of a target.
pub(crate) struct TargetNames<'a> {
    pub(crate) model: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) upstream_model: &'a str,
    pub(crate) provider_key_id: &'a str,
    pub(crate) provider_key_name: &'a str,
}

impl Names {
    pub(crate) fn model(&self, id: ModelId) -> &str {
        &self.models[id.0 as usize][0]
    }

    pub(crate) fn caller(&self, id: Option<CallerId>) -> CallerNames<'_> {
        let [api_key_id, team_id, user_id, user_name] = &self.callers[id.map_or(0, |id| id.0 as usize)];
        CallerNames { api_key_id, team_id, user_id, user_name }
    }

    pub(crate) fn target(&self, id: Option<TargetId>) -> TargetNames<'_> {
        let [model, provider, upstream_model, provider_key_id, provider_key_name] =
            &self.targets[id.map_or(0, TargetId::index)];
        TargetNames { model, provider, upstream_model, provider_key_id, provider_key_name }
    }

    /// All targets with their ids.
    pub(crate) fn target_ids(&self) -> impl Iterator<Item = TargetId> + use<> {
        (1..self.targets.len() as u32).map(TargetId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(provider: &str) -> TargetLabels<'_> {
        TargetLabels {
            model: "m",
            provider,
            upstream_model: "u",
            provider_key_id: "k",
            provider_key_name: "  ",
        }
    }

    #[test]
    fn ids_are_stable_and_values_are_clean() {
        let mut interner = Interner::new();
        let a = interner.target(target("OpenAI"));
        let b = interner.target(target("other"));
        assert_eq!(interner.target(target("openai")), a);
        assert_ne!(a, b);
        let long = "x".repeat(300) + "\n";
        let model = interner.model(&long);
        assert_eq!(interner.model("unresolved-not"), interner.model("unresolved-not"));
        let names = interner.names();
        assert_eq!(names.target(Some(a)).provider, "openai");
        assert_eq!(names.target(Some(a)).provider_key_name, "unknown");
        assert_eq!(names.target(None).model, "unknown");
        assert_eq!(names.model(model).len(), 256);
        assert_eq!(names.model(ModelId::UNRESOLVED), "unresolved");
        assert_eq!(names.caller(None).api_key_id, "unknown");
        assert_eq!(names.target_ids().collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn callers_without_a_team_are_unknown() {
        let mut interner = Interner::new();
        let id = interner.caller(CallerLabels {
            api_key_id: "k1",
            team_id: None,
            user_id: Some("u"),
            user_name: Some(""),
        });
        let names = interner.names();
        let caller = names.caller(Some(id));
        assert_eq!(
            [caller.api_key_id, caller.team_id, caller.user_id, caller.user_name],
            ["k1", "unknown", "u", "unknown"]
        );
    }
}
