//! The document keeps what it does not edit.

use super::*;
use proptest::prelude::*;

fn doc(text: &str) -> Document {
    Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a document")
}

fn text(document: &Document) -> String {
    String::from_utf8(document.to_bytes().to_vec()).expect("UTF-8")
}

#[test]
fn untouched_documents_are_the_same_bytes() {
    let source = " { \"b\" : 1.50e+1 , \"a\":[1, 2,{\"x\":null}] }\n";
    assert_eq!(text(&doc(source)), source);
}

#[test]
fn set_replaces_in_place_and_appends_at_the_end() {
    let mut d = doc(r#"{ "model" : "a", "t":0.70, "x":{"k":[1]} }"#);
    d.set_str("model", "b\"c");
    d.set("stream", "true");
    assert_eq!(text(&d), r#"{ "model" : "b\"c", "t":0.70, "x":{"k":[1]},"stream":true }"#);
    assert_eq!(d.get("stream"), Some("true"));
}

#[test]
fn set_on_an_empty_object() {
    let mut d = doc("{}");
    d.set("a", "1");
    d.set("b", "2");
    assert_eq!(text(&d), r#"{"a":1,"b":2}"#);
}

#[test]
fn remove_and_rename_keep_order() {
    let mut d = doc(r#"{"a":1, "b":2, "c":3.0}"#);
    d.remove("b");
    d.rename("a", "z");
    assert_eq!(text(&d), r#"{"z":1,"c":3.0}"#);
}

#[test]
fn rename_wins_over_an_existing_target() {
    let mut d = doc(r#"{"max_tokens":1,"max_completion_tokens":2}"#);
    d.rename("max_tokens", "max_completion_tokens");
    assert_eq!(text(&d), r#"{"max_completion_tokens":1}"#);
}

#[test]
fn escaped_keys_are_found() {
    let mut d = doc(r#"{"mo\u0064el":"a","q\"":1}"#);
    assert_eq!(d.get_str("model").as_deref(), Some("a"));
    d.set_str("model", "b");
    assert_eq!(text(&d), r#"{"mo\u0064el":"b","q\"":1}"#);
}

#[test]
fn bad_texts_are_told_apart() {
    let parse = |t: &[u8]| Document::parse(Bytes::copy_from_slice(t)).err();
    assert_eq!(parse(b" \n"), Some(ParseError::Empty));
    assert_eq!(parse(b"[1]"), Some(ParseError::NotAnObject));
    assert_eq!(parse(b"{\"a\":\"\xff\"}"), Some(ParseError::NotUtf8(6)));
    assert_eq!(parse(b"{\"a\":1,\"a\":2}"), Some(ParseError::Duplicate("a".into())));
    assert!(matches!(parse(b"{\"a\":1"), Some(ParseError::Syntax { .. })));
    assert!(matches!(parse(b"{\"a\":1} x"), Some(ParseError::Syntax { .. })));
    assert!(matches!(parse(b"{\"a\":01}"), Some(ParseError::Syntax { .. })));
    assert!(matches!(parse(b"\"a"), Some(ParseError::Syntax { .. })));
}

#[test]
fn depth_is_bounded() {
    let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(Document::parse(deep(127).into()).is_ok());
    assert_eq!(Document::parse(deep(10_000).into()).err(), Some(ParseError::TooDeep));
    let wide = format!("{{\"a\":[{}1],\"s\":\"{}\"}}", "[1],".repeat(500), "[".repeat(500));
    assert!(Document::parse(wide.into()).is_ok());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".*".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((".*", inner), 0..6)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn an_edit_changes_only_its_field(
        pairs in prop::collection::vec((".*", json()), 0..8),
        name in ".*",
        value in json(),
    ) {
        let mut object: serde_json::Map<String, serde_json::Value> = pairs.into_iter().collect();
        let mut d = doc(&serde_json::Value::Object(object.clone()).to_string());
        d.set(&name, value.to_string());
        object.insert(name.clone(), value);
        let expected = serde_json::Value::Object(object.clone()).to_string();
        prop_assert_eq!(text(&d), expected);
        d.remove(&name);
        object.shift_remove(&name);
        prop_assert_eq!(text(&d), serde_json::Value::Object(object).to_string());
    }

    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(bytes.into());
    }
}
