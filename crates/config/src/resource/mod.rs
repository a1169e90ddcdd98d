//! The resource kinds: one file each with its field table, its rules and, once
//! it is used at run time, its typed form; and one line in [`KINDS`], from
//! which the file format, stored documents, the admin surface, JSON Schemas
//! and the reference are made.

mod a2a_agent;
mod api_key;
mod cache_policy;
mod claim_mapping;
mod cycles;
mod guardrail;
mod guardrail_attachment;
mod mcp_auth_settings;
mod mcp_policy;
mod mcp_server;
mod model;
mod observability_exporter;
mod oidc_provider;
mod passthrough_route;
mod provider_key;
mod rate_limit_policy;
mod refs;
mod rule;
mod set;

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::schema::{self, Checked, Fault, Kind, Mode, Nulls, Path, Problem};
use crate::tree::Node;

pub use api_key::ApiKey;
pub(crate) use cycles::Links;
pub use model::{Cooldown, Direct, Model};
pub use provider_key::{
    Adapter, KeyTls, ParamConstraints, ProviderKey, RequestOverrides, ResponseOverrides, StreamDoneMarker,
    TelemetryTags,
};
pub(crate) use refs::{By, Ref, Site, no_more_refs, read_refs, visit_refs};
pub(crate) use set::{AnyRows, Unbuilt, rows_of};
pub use set::{ResourceSet, Rows, Stored, View};

/// Every kind, in the order in which a file is worked through.
pub static KINDS: &[&ResourceKind] = &[
    &provider_key::KIND,
    &model::KIND,
    &api_key::KIND,
    &guardrail::KIND,
    &guardrail_attachment::KIND,
    &mcp_server::KIND,
    &mcp_policy::KIND,
    &a2a_agent::KIND,
    &cache_policy::KIND,
    &observability_exporter::KIND,
    &rate_limit_policy::KIND,
    &oidc_provider::KIND,
    &claim_mapping::KIND,
    &passthrough_route::KIND,
    &mcp_auth_settings::KIND,
];

type MoreRefs = fn(&mut Value, &mut dyn FnMut(Site<'_>));

/// What a kind is made of.
pub struct ResourceKind {
    /// The plural name: key in a file, path segment, label.
    pub name: &'static str,
    /// One of them, in words.
    pub title: &'static str,
    /// What they are for, in the reference.
    pub(crate) doc: &'static str,
    /// The document.
    pub(crate) shape: Kind,
    pub(crate) nulls: Nulls,
    pub(crate) identity: Identity,
    /// Fields beside the identity whose values no two resources share.
    pub(crate) unique: &'static [&'static str],
    /// Fields that name other resources.
    pub(crate) refs: &'static [Ref],
    /// References that a path cannot tell.
    pub(crate) more_refs: MoreRefs,
    /// Fields of a resources file that hold a name, each with the field of
    /// `more_refs` that they stand for.
    pub(crate) sugar: &'static [(&'static str, &'static str)],
    /// Texts that no two resources share, besides the unique fields: what a
    /// collision is called, and the text.
    pub(crate) exclusive: fn(&Value) -> Vec<(&'static str, String)>,
    /// The rules that the shape cannot say.
    pub(crate) rules: fn(&Node, &Value, &mut Vec<Problem>),
    /// What a JSON Schema can say of these rules: a list of schemas.
    pub(crate) schema: &'static str,
    /// Fields that have no effect on a resource of this form: refused when
    /// written, taken out of stored documents.
    pub(crate) inapplicable: fn(&Value) -> Vec<&'static str>,
    /// Whether the gateway acts on it.
    pub enforced: bool,
    pub(crate) new_rows: fn() -> Box<dyn AnyRows>,
}

impl ResourceKind {
    /// A kind that nothing is known of yet but its shape.
    pub(crate) const fn new(
        name: &'static str,
        title: &'static str,
        doc: &'static str,
        shape: Kind,
        identity: Identity,
    ) -> Self {
        Self {
            name,
            title,
            doc,
            shape,
            nulls: Nulls::Never,
            unique: &[],
            identity,
            refs: &[],
            more_refs: no_more_refs,
            sugar: &[],
            exclusive: |_| Vec::new(),
            rules: |_, _, _| {},
            schema: "[]",
            inapplicable: |_| Vec::new(),
            enforced: false,
            new_rows: || Box::new(Rows::<Unbuilt>::default()),
        }
    }
}

impl std::fmt::Debug for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What tells resources of a kind apart, beside their ids.
#[derive(Clone, Copy)]
pub(crate) enum Identity {
    /// A field that is unique.
    Field(&'static str),
    /// There is at most one.
    Singleton,
    /// Made of several fields.
    Made(fn(&Value) -> String),
}

/// A resource on its way between sources: complete, with its secrets.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// The kind.
    pub kind: &'static ResourceKind,
    /// The id.
    pub id: String,
    /// The canonical document: canonical field names, defaults written out,
    /// references by id where the field is one, secrets in clear.
    pub value: Value,
}

impl Document {
    /// What it is called.
    pub fn identity(&self) -> Option<String> {
        self.kind.identity(&self.value)
    }
}

/// Values hold credentials.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({}/{})", self.kind.name, self.id)
    }
}

impl PartialEq for ResourceKind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ResourceKind {}

/// A kind that has a typed form.
pub(crate) trait Resource: DeserializeOwned + Send + Sync + 'static {
    const KIND: &'static ResourceKind;
}

/// The kind of a collection.
pub fn kind_of(name: &str) -> Option<&'static ResourceKind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

impl ResourceKind {
    /// What the document of a resource is called: by people, in a file, in a plan.
    pub fn identity(&self, document: &Value) -> Option<String> {
        match self.identity {
            Identity::Field(field) => document[field].as_str().map(str::to_owned),
            Identity::Singleton => Some(self.name.to_owned()),
            Identity::Made(make) => Some(make(document)),
        }
    }

    /// Fields whose values no two resources share.
    pub(crate) fn unique_fields(&self) -> impl Iterator<Item = &'static str> {
        let identity = match self.identity {
            Identity::Field(field) => Some(field),
            Identity::Singleton | Identity::Made(_) => None,
        };
        identity.into_iter().chain(self.unique.iter().copied())
    }

    /// Older spellings of its fields, each with the canonical one.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let fields = match self.shape {
            Kind::Object(fields) => fields,
            Kind::Union(union) => union.common,
            _ => &[],
        };
        fields.iter().filter_map(|field| Some((field.alias?, field.name)))
    }

    /// Whether its documents can name resources of another kind.
    pub(crate) fn may_refer_to(&self, kind: &str) -> bool {
        self.has_more_refs() || self.refs.iter().any(|known| known.kind == kind)
    }

    pub(crate) fn has_more_refs(&self) -> bool {
        !std::ptr::fn_addr_eq(self.more_refs, no_more_refs as MoreRefs)
    }

    /// The document as operators may see it.
    pub fn masked(&self, document: &Value) -> Value {
        let mut masked = document.clone();
        schema::mask(&self.shape, &mut masked);
        masked
    }

    /// Checks a document: shape, rules, and what has no effect.
    pub(crate) fn check(&self, node: &Node, mode: Mode) -> Checked {
        let mut checked = schema::check(&self.shape, node, self.nulls, mode);
        (self.rules)(node, &checked.document, &mut checked.problems);
        for field in (self.inapplicable)(&checked.document) {
            if node.get(field).is_none_or(Node::is_null) {
                continue;
            }
            if mode == Mode::Lenient {
                checked.ignored.push(format!("inapplicable:{field}"));
            } else {
                let origin = node.get(field).map_or(&node.origin, |node| &node.origin).clone();
                let why = "has no effect on a resource of this form";
                checked.problems.push(Problem {
                    path: Path::of(field),
                    origin,
                    fault: Fault::Rule(why.into()),
                });
            }
        }
        if mode == Mode::Lenient {
            for field in (self.inapplicable)(&checked.document) {
                if let Some(members) = checked.document.as_object_mut() {
                    members.remove(field);
                }
            }
            let advice = |problem: &Problem| matches!(problem.fault, Fault::Advice(_));
            let told = checked.problems.iter().filter(|problem| advice(problem));
            checked.ignored.extend(told.map(|problem| format!("invalid:{}", problem.path.generic())));
            checked.problems.retain(|problem| !advice(problem));
        }
        checked
    }
}

const NAMESPACE: Uuid = Uuid::from_u128(0x63e5_0ab2_677a_54d3_8d1e_c0cb_29ce_ae94);

/// The id that a file entry gets: a UUIDv5 of its kind and identity.
pub(crate) fn derived_id(kind: &str, identity: &str) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{kind}/{identity}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests;
