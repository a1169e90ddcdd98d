//! Tests of the three readers.

use super::*;

fn yaml(text: &str) -> Node {
    match parse_yaml(text).unwrap() {
        Document::One(node) => node,
        _ => panic!("expected one document"),
    }
}

fn yaml_error(text: &str) -> String {
    match parse_yaml(text) {
        Err(error) => error.message,
        Ok(_) => panic!("expected an error"),
    }
}

#[test]
fn the_three_formats_give_the_same_tree() {
    let expected = serde_json::json!({"a": {"b": [1, -2, 0.5], "c": "007"}, "d": true});
    let from_yaml = yaml("a:\n  b: [1, -2, 0.5]\n  c: \"007\"\nd: true\n");
    let from_toml = parse_toml("d = true\n[a]\nb = [1, -2, 0.5]\nc = \"007\"\n").unwrap();
    let from_json = parse_json(r#"{"a":{"b":[1,-2,0.5],"c":"007"},"d":true}"#).unwrap();
    assert_eq!(from_yaml.to_json(), expected);
    assert_eq!(from_toml.to_json(), expected);
    assert_eq!(from_json.to_json(), expected);
    assert_eq!(from_yaml.at("a.c").unwrap().origin, Origin::Line(3));
    assert_eq!(from_toml.at("a.c").unwrap().origin, Origin::Line(4));
    assert_eq!(from_json.at("a.c").unwrap().origin, Origin::Unknown);
}

#[test]
fn plain_yaml_scalars() {
    let cases = [
        ("~", serde_json::json!(null)),
        ("yes", serde_json::json!("yes")),
        ("True", serde_json::json!(true)),
        ("0x1F", serde_json::json!(31)),
        ("+7", serde_json::json!(7)),
        ("1e3", serde_json::json!(1000.0)),
        ("1.2.3", serde_json::json!("1.2.3")),
        ("2030-01-01", serde_json::json!("2030-01-01")),
        ("inf", serde_json::json!("inf")),
        ("-", serde_json::json!([null])),
        ("18446744073709551615", serde_json::json!(u64::MAX)),
        ("!!str 12", serde_json::json!("12")),
        ("'12'", serde_json::json!("12")),
        ("${PORT}", serde_json::json!("${PORT}")),
    ];
    for (text, expected) in cases {
        assert_eq!(yaml(text).to_json(), expected, "{text}");
    }
}

#[test]
fn aliases_are_expanded_within_bounds() {
    assert_eq!(yaml("a: &x {k: 1}\nb: *x\n").to_json(), serde_json::json!({"a": {"k": 1}, "b": {"k": 1}}));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = level - 1;
        let items = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(yaml_error(&bomb).contains("too large"));
}

#[test]
fn refused_yaml() {
    let cases = [
        ("a: 1\na: 2\n", "duplicate mapping key `a` at byte 5 line 2 column 1"),
        ("? [x]\n: 1\n", "a mapping key must be plain text"),
        ("a: !secret x\n", "tag is not supported"),
        ("a: .nan\n", "numbers must be finite"),
        ("a: [1\n", " line "),
    ];
    for (text, expected) in cases {
        let error = yaml_error(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let deep = "[".repeat(20_000);
    assert!(!yaml_error(&deep).is_empty());
}

#[test]
fn byte_positions_count_bytes() {
    assert!(yaml_error("ä: 1\nä: 2\n").contains("at byte 6 line 2"));
}

#[test]
fn documents_are_counted() {
    assert!(matches!(parse_yaml("# nothing\n").unwrap(), Document::Empty));
    assert!(matches!(parse_yaml("a: 1\n---\nb: 2\n").unwrap(), Document::Many(2)));
}

#[test]
fn refused_json_and_toml() {
    let duplicate = parse_json(r#"{"a":1,"a":2}"#).unwrap_err().message;
    assert!(duplicate.contains("duplicate key `a` at line 1"), "{duplicate}");
    assert!(parse_json("{} x").is_err());
    assert!(parse_json(&"[".repeat(20_000)).is_err());
    let toml = parse_toml("key = \"sk-secret\nb = 1\n").unwrap_err().message;
    assert!(toml.contains("at line 1") && !toml.contains("sk-secret"), "{toml}");
    assert!(parse_toml("a = nan").is_err());
    assert!(parse_toml("a = 1\na = 2").is_err());
}
