//! Tests of the checker and of the text formats.

use serde_json::json;

use super::*;
use crate::tree::parse_json;

const INNER: Fields = &[def("on", Kind::Bool, "false", ""), opt("note", Kind::TEXT, "")];
const TABLE: Fields = &[
    req("name", Kind::NAME, "").alias("label"),
    def("count", Kind::int(1, 9), "3", ""),
    opt("width", Kind::U32, ""),
    opt("ratio", Kind::Number { min: 0.0, max: 1.0 }, ""),
    opt("mode", Kind::Enum(&["a", "b", "c"]), ""),
    opt("key", Kind::Secret, ""),
    opt("extra", Kind::Anything { secret: true }, ""),
    def("inner", Kind::Object(INNER), "{}", ""),
    opt("rules", Kind::List(&List { json: true, ..List::of(Kind::NAME) }), ""),
    opt("block", Kind::Object(INNER), "").later(Off::Disabled),
    opt("limits", Kind::Object(INNER), "").later(Off::Hollow),
];

fn run(text: &str, nulls: Nulls) -> (Value, Vec<String>) {
    let mode = if nulls == Nulls::Anywhere { Mode::Process } else { Mode::Strict };
    let found = check(&Kind::Object(TABLE), &parse_json(text).unwrap(), nulls, mode);
    let texts = found.problems.iter().map(Problem::resource_text).collect();
    (found.document, texts)
}

#[test]
fn defaults_and_aliases_are_written_out() {
    let (value, problems) = run(r#"{"label":"x"}"#, Nulls::Never);
    assert_eq!(problems, [""; 0]);
    assert_eq!(value, json!({"name": "x", "count": 3, "inner": {"on": false}}));
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let cases = [
        ("{}", r#"schema validation failed at ``: "name" is a required property"#),
        (
            r#"{"name":"x","cuont":1}"#,
            "schema validation failed at ``: Additional properties are not allowed ('cuont' was unexpected), did you mean `count`?",
        ),
        (
            r#"{"name":"x","zzzzzz":1}"#,
            "schema validation failed at ``: Additional properties are not allowed ('zzzzzz' was unexpected)",
        ),
        (r#"{"name":""}"#, "schema validation failed at `/name`: value is shorter than 1 character"),
        (r#"{"name":1}"#, "schema validation failed at `/name`: value is not of type \"string\""),
        (
            r#"{"name":"x","count":0}"#,
            "schema validation failed at `/count`: value is less than the minimum of 1.0",
        ),
        (
            r#"{"name":"x","count":-2}"#,
            "schema validation failed at `/count`: value is less than the minimum of 1.0",
        ),
        (
            r#"{"name":"x","count":10}"#,
            "schema validation failed at `/count`: value is greater than the maximum of 9.0",
        ),
        (
            r#"{"name":"x","count":1.5}"#,
            "schema validation failed at `/count`: value is not of type \"integer\"",
        ),
        (
            r#"{"name":"x","count":3.0}"#,
            "cannot decode canonical document: expected an integer, written without a fraction at `/count`",
        ),
        (
            r#"{"name":"x","width":4294967296}"#,
            "cannot decode canonical document: the number is greater than 4294967295 at `/width`",
        ),
        (
            r#"{"name":"x","ratio":1.5}"#,
            "schema validation failed at `/ratio`: value is greater than the maximum of 1.0",
        ),
        (
            r#"{"name":"x","mode":"d"}"#,
            r#"schema validation failed at `/mode`: value is not one of "a", "b" or "c""#,
        ),
        (r#"{"name":"x","label":"y"}"#, "cannot decode canonical document: duplicate field `name` at ``"),
        (
            r#"{"name":"x","inner":{"on":1}}"#,
            "schema validation failed at `/inner/on`: value is not of type \"boolean\"",
        ),
        (
            r#"{"name":"x","rules":["a",""]}"#,
            "schema validation failed at `/rules/1`: value is shorter than 1 character",
        ),
        ("[]", "schema validation failed at ``: value is not of type \"object\""),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text, Nulls::Never).1, [expected], "{text}");
    }
    let (_, problems) = run(r#"{"count":0,"mode":1}"#, Nulls::Never);
    assert_eq!(problems.len(), 3);
}

#[test]
fn null_means_absent_only_where_it_may() {
    let text = r#"{"name":"x","width":null,"count":null}"#;
    assert_eq!(run(text, Nulls::Never).1.len(), 2);
    assert_eq!(run(text, Nulls::Optional).1.len(), 1);
    let (value, problems) = run(text, Nulls::Anywhere);
    assert_eq!((problems.len(), &value["count"]), (0, &json!(3)));
    assert_eq!(run(r#"{"name":null}"#, Nulls::Anywhere).1.len(), 1);
}

#[test]
fn what_is_not_built_passes_while_it_is_off() {
    let off = r#"{"name":"x","limits":{"on":false,"note":" "},"block":{"note":"x"}}"#;
    assert_eq!(run(off, Nulls::Anywhere).1, [""; 0]);
    let on = r#"{"name":"x","block":{"on":true},"limits":{"on":true}}"#;
    assert_eq!(run(on, Nulls::Anywhere).1, ["limits: not supported yet"]);
    // A resource is accepted, and told as not enforced.
    for mode in [Mode::Strict, Mode::Lenient] {
        let found = check(&Kind::Object(TABLE), &parse_json(on).unwrap(), Nulls::Never, mode);
        assert_eq!((found.problems.len(), found.unenforced), (0, vec!["limits"]));
    }
}

#[test]
fn lists_may_be_json_text() {
    let (value, _) = run(r#"{"name":"x","rules":"[\"a\"]"}"#, Nulls::Never);
    assert_eq!(value["rules"], json!(["a"]));
    let (value, _) = run(r#"{"name":"x","rules":" "}"#, Nulls::Never);
    assert_eq!(value["rules"], json!([]));
    let (_, problems) = run(r#"{"name":"x","rules":"[sk-1"}"#, Nulls::Never);
    assert!(problems[0].contains("rules JSON string: "), "{problems:?}");
    assert!(!problems[0].contains("sk-1"));
}

#[test]
fn masking_hides_secrets_only() {
    let text = r#"{"name":"x","key":"sk-1","extra":{"a":["sk-2",1],"b":{"c":"sk-3"}}}"#;
    let (mut value, _) = run(text, Nulls::Never);
    mask(&Kind::Object(TABLE), &mut value);
    assert_eq!(value["key"], json!("***"));
    assert_eq!(value["extra"], json!({"a": ["***", 1], "b": {"c": "***"}}));
    assert_eq!(value["name"], json!("x"));
}

#[test]
fn formats() {
    use Format as F;
    let good = [
        (F::SocketAddr, "[::1]:3000"),
        (F::Net, "10.0.0.0/8"),
        (F::Net, "::1"),
        (F::IdHeader, " X-Request-Id "),
        (F::UpstreamHeader, "X-Team"),
        (F::HeaderTemplate, "a ${model.id}"),
        (F::Url, "https://api.example.com/v1"),
        (F::Url, "http://[::1]:80"),
        (F::Url, ""),
        (F::DateTime, "2030-01-01T00:00:00+02:00"),
        (F::Slug, "a.b-c_1"),
        (F::Pattern, "gpt-*"),
        (F::LogFilter, "aisix_proxy=debug,info"),
        (F::LogFilter, "WARN"),
        (F::DeltaPath, "delta.reasoning.text"),
        (F::Certificates, " "),
        (F::Name, "acme/gpt-4o *\u{e4}"),
        (F::BaseUrl, " https://api.example.com/v1/ "),
        (F::FullUrl, "https://x.example/mcp?team=1"),
        (F::NoCredentials, "accounts.example.com"),
        (F::HttpsOr(&["minio"]), "http://minio:9000/x"),
        (F::HttpsOr(&["minio"]), "http://localhost"),
        (F::SlsEndpoint, "http://mock-sls:80"),
        (F::DatadogSite, "localhost:9"),
        (F::HostPattern, "*.a.b"),
        (F::OwnHeader, "x-caller"),
        (F::ServerName, "_git_hub"),
        (F::Segment, "legal-team.v2"),
        (F::AppliesTo, "model:m:1"),
        (F::TimeZone, "America/Argentina/Ushuaia"),
        (F::Clock, "23:59"),
        (F::EndClock, "24:00"),
        (F::Date, "2028-02-29"),
    ];
    for (format, text) in good {
        assert_eq!(format.check(text), Ok(()), "{format:?} {text}");
    }
    let upper = "AB".repeat(32);
    let bad = [
        (F::SocketAddr, "localhost:3000"),
        (F::Net, "10.0.0.0/33"),
        (F::IdHeader, "Cookie"),
        (F::IdHeader, "traceparent"),
        (F::IdHeader, "a b"),
        (F::UpstreamHeader, "Authorization"),
        (F::UpstreamHeader, "Content-Length"),
        (F::HeaderTemplate, "a\nb"),
        (F::HeaderTemplate, "${nope}"),
        (F::Url, "api.example.com"),
        (F::Url, "ftp://x"),
        (F::Url, "https://u:p@x"),
        (F::Url, "https://x:99999"),
        (F::Url, "https://x/v1?k=1"),
        (F::Url, "https:///v1"),
        (F::Url, "https://a b"),
        (F::DateTime, "2030-01-01"),
        (F::DateTime, "2030-01-01T00:00:00"),
        (F::KeyHash, &upper),
        (F::KeyHash, "ab"),
        (F::Regex, "("),
        (F::Slug, "-a"),
        (F::Pattern, "a*b*"),
        (F::LogFilter, "inof"),
        (F::LogFilter, "a=inof"),
        (F::DeltaPath, "thoughts"),
        (F::DeltaPath, "delta..x"),
        (F::Certificates, "not a certificate"),
        (F::Name, "left\u{200f}right"),
        (F::BaseUrl, " "),
        (F::BaseUrl, "https://x.example/a?b=c"),
        (F::FullUrl, "https://x.example/#top"),
        (F::FullUrl, "https://x.example/?API_KEY=abc"),
        (F::NoCredentials, "https://u:p@x.example/"),
        (F::HttpsOr(&["minio"]), "http://minio.evil.example/x"),
        (F::HttpsOr(&["minio"]), "http://minio:x@evil.example"),
        (F::SlsEndpoint, "CN.log.aliyuncs.com"),
        (F::SlsEndpoint, ".aliyuncs.com"),
        (F::DatadogSite, "datadoghq.com.evil.example"),
        (F::HostPattern, "*.com"),
        (F::HostPattern, "a..b"),
        (F::HostPattern, "a:80"),
        (F::OwnHeader, "X-Caller"),
        (F::ServerName, "git__hub"),
        (F::Segment, "a b"),
        (F::AppliesTo, "modell"),
        (F::TimeZone, "europe/berlin"),
        (F::Clock, "24:00"),
        (F::Clock, "9:00"),
        (F::EndClock, "24:01"),
        (F::Date, "2027-02-29"),
        (F::Date, "2028-2-09"),
    ];
    let long = "n".repeat(513);
    assert!(F::Name.check(&long).is_err() && F::Name.check(&long[1..]).is_ok());

    for (format, text) in bad {
        let error = format.check(text).expect_err(text);
        // The reserved headers are known names and may be said.
        let shown = format == F::IdHeader || text.len() < 4;
        assert!(shown || !error.contains(text), "{error}");
    }
}
