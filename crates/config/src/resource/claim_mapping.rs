//! Which key a token stands for when it is bound to none.

use super::{Identity, Ref, ResourceKind};
use crate::schema::{Fields, Kind, List, def, req};

pub(crate) static KIND: ResourceKind = ResourceKind {
    refs: &[
        Ref::name("jwt_provider", "oidc_providers"),
        Ref::id("resolve.api_key_id", "api_keys", "api_key"),
    ],
    ..ResourceKind::new(
        "claim_mappings",
        "claim mapping",
        "Which key a token stands for when it is bound to none.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const TABLE: Fields = &[
    req("name", Kind::LABEL, "Unique name."),
    req("jwt_provider", Kind::FILLED, "Name of the OIDC provider."),
    def("priority", Kind::U32, "0", "Lower is tried first; then by name."),
    req(
        "match",
        Kind::List(&List::at_least(Kind::Object(CONDITION), 1)),
        "Conditions on claims; all must hold.",
    ),
    req("resolve", Kind::Object(RESOLVE), "The key that it stands for."),
    def("enabled", Kind::Bool, "true", "false = as if it were not there."),
];

const CONDITION: Fields = &[
    req("claim", Kind::FILLED, "The claim; dots lead into objects."),
    req("op", Kind::Enum(&["exact", "contains"]), "`exact` for a text, `contains` for a list."),
    req("values", Kind::List(&List::at_least(Kind::TEXT, 1)), "Values; one is enough."),
];

const RESOLVE: Fields = &[req(
    "api_key_id",
    Kind::FILLED,
    "Id of the key. In a resources file write `api_key: <display_name>` instead.",
)];
