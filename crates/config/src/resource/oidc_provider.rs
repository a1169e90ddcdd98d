//! Issuers of tokens that callers may present instead of keys.

use serde_json::Value;

use super::rule::Review;
use super::{Identity, ResourceKind};
use crate::schema::{Fields, Format, Kind, List, Map, Problem, TEXTS, def, opt, req};
use crate::tree::Node;

pub(crate) static KIND: ResourceKind = ResourceKind {
    exclusive,
    rules,
    ..ResourceKind::new(
        "oidc_providers",
        "OIDC provider",
        "Issuers of tokens that callers may present instead of keys.",
        Kind::Object(TABLE),
        Identity::Field("name"),
    )
};

const TABLE: Fields = &[
    req("name", Kind::LABEL, "Unique name."),
    req("issuer", Kind::text(1, Format::NoCredentials), "Exactly the `iss` of its tokens."),
    req("audiences", Kind::List(&List::at_least(Kind::FILLED, 1)), "Accepted audiences; one is enough."),
    opt("jwks_uri", Kind::text(1, Format::FullUrl), "Where its keys are. Default: asked from the issuer."),
    def("identity_claim", Kind::FILLED, r#""sub""#, "Claim that says who it is; dots lead into objects."),
    def("required_scopes", TEXTS, "[]", "Scopes that a token must have, all of them."),
    opt(
        "bound_claims",
        Kind::Map(&Map::to(Kind::Either(&[Kind::TEXT, Kind::List(&List::at_least(Kind::TEXT, 1))]))),
        "Claims and the values they may have.",
    ),
    def("leeway_secs", Kind::int(0, 300), "0", "How far clocks may be apart."),
    def("enabled", Kind::Bool, "true", "false = its tokens are refused."),
];

fn rules(node: &Node, _: &Value, problems: &mut Vec<Problem>) {
    // Without the address of the keys, they are looked for below the issuer.
    let mut review = Review::new(node, problems);
    let plain = |text: &str| Format::NoCredentials.check(text).is_ok();
    if !review.has("jwks_uri") && review.text("issuer").is_some_and(plain) {
        review.advise_format("issuer", Format::FullUrl);
    }
}

fn exclusive(document: &Value) -> Vec<(&'static str, String)> {
    let issuer = document["issuer"].as_str().filter(|_| document["enabled"] == true);
    issuer.map(|issuer| ("duplicate enabled OIDC issuer", issuer.to_owned())).into_iter().collect()
}
