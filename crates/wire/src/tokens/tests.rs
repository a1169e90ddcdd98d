//! Counts of texts, prompts and answers.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Counter, EXACT, OutputText, Vocabulary};
use crate::{ReplyContext, formats::OPENAI_CHAT};

const BOTH: [Vocabulary; 2] = [Vocabulary::Cl100k, Vocabulary::O200k];

fn text(vocabulary: Vocabulary, text: &str) -> u64 {
    let mut counter = Counter::new(vocabulary);
    counter.text(text);
    counter.total()
}

fn prompt(request: &Value) -> u64 {
    let mut counter = Counter::new(Vocabulary::Cl100k);
    OPENAI_CHAT.count_prompt(request.to_string().as_bytes(), &mut counter);
    counter.total()
}

fn messages(messages: Value) -> u64 {
    prompt(&json!({"model": "m", "messages": messages}))
}

fn output(text: &OutputText) -> u64 {
    let mut counter = Counter::new(Vocabulary::Cl100k);
    text.count(&mut counter);
    counter.total()
}

#[test]
fn models_have_their_vocabulary() {
    for name in [
        "gpt-4o",
        "gpt-4o-mini-2024-07-18",
        "chatgpt-4o-latest",
        "gpt-4.1-nano",
        "gpt-4.5-preview",
        "gpt-5",
        "gpt-5.1-codex",
        "gpt-oss-120b",
        "o1",
        "o3-mini",
        "o4-mini-2025-04-16",
        "openai/gpt-4o",
        "ft:gpt-4o-2024-08-06:org::id",
    ] {
        assert_eq!(Vocabulary::of_model(name), Vocabulary::O200k, "{name}");
    }
    for name in [
        "gpt-4",
        "gpt-4-turbo",
        "gpt-3.5-turbo",
        "ft:gpt-3.5-turbo:o",
        "claude-x",
        "o",
        "o1x",
        "octo",
        "",
        "/",
    ] {
        assert_eq!(Vocabulary::of_model(name), Vocabulary::Cl100k, "{name}");
    }
}

/// Counts of the tokenizer that OpenAI publishes.
#[test]
fn texts_have_known_counts() {
    for (sample, cl100k, o200k) in [
        ("", 0, 0),
        ("Hello world", 2, 2),
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("hello \u{1f642}", 2, 2),
        ("<|endoftext|>", 7, 7),
    ] {
        assert_eq!((text(BOTH[0], sample), text(BOTH[1], sample)), (cl100k, o200k), "{sample:?}");
    }
}

#[test]
fn messages_have_known_counts() {
    for (request, tokens) in [
        (json!([{"role": "user", "content": "hi"}]), 8),
        (json!([{"role": "user", "content": "hello world"}]), 9),
        (json!([{"role": "system", "content": "hello:"}]), 9),
        (
            json!([
                {"role": "system", "content": "# Important: you're the best robot"},
                {"role": "user", "content": "hello robot"},
                {"role": "assistant", "content": "hello world"},
            ]),
            27,
        ),
        // One for the name and one for being named.
        (json!([{"role": "user", "name": "bob", "content": "hi"}]), 10),
        (json!([{"role": "user", "content": null}]), 7),
        (json!([{"role": "user", "content": [{"type": "text", "text": "hi"}, "hi"]}]), 9),
        (json!([]), 3),
    ] {
        assert_eq!(messages(request.clone()), tokens, "{request}");
    }
}

#[test]
fn the_cookbook_example() {
    // "How to count tokens with tiktoken": 129 by gpt-4.
    let system = |name: Option<&str>, content: &str| match name {
        Some(name) => json!({"role": "system", "name": name, "content": content}),
        None => json!({"role": "system", "content": content}),
    };
    let (user, assistant) = (Some("example_user"), Some("example_assistant"));
    let request = json!([
        system(None, "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."),
        system(user, "New synergies will help drive top-line growth."),
        system(assistant, "Things working well together will increase revenue."),
        system(user, "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage."),
        system(assistant, "Let's talk later when we're less busy about how to do better."),
        {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
    ]);
    assert_eq!(messages(request), 129);
}

#[test]
fn images_count_by_their_detail() {
    let image = |url: Value| {
        messages(json!([{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]))
    };
    let long = "data:image/png;base64,".to_owned() + &"A".repeat(10_000);
    assert_eq!(image(json!({"url": long})), 7 + 85);
    assert_eq!(image(json!({"url": "u", "detail": "auto"})), 7 + 85);
    assert_eq!(image(json!({"url": "u", "detail": "low"})), 7 + 85);
    assert_eq!(image(json!({"url": "u", "detail": "high"})), 7 + 250);
    assert_eq!(image(json!("u")), 7 + 85);
}

/// Counts that OpenAI reported for gpt-3.5-turbo.
#[test]
fn tools_have_known_counts() {
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let nested = json!({"foo": object(json!({
        "bar": {"type": "string", "enum": ["a", "b", "c"]}, "baz": {"type": "boolean"},
    }))});
    let recipe = json!({
        "type": "object", "required": ["ingredients", "instructions", "time_to_cook"],
        "properties": {
            "ingredients": {"type": "array", "items": {
                "type": "object", "required": ["name", "unit", "amount"],
                "properties": {
                    "name": {"type": "string"},
                    "unit": {"enum": ["grams", "ml", "cups", "pieces", "teaspoons"], "type": "string"},
                    "amount": {"type": "number"},
                },
            }},
            "instructions": {"type": "array", "items": {"type": "string"},
                "description": "Steps to prepare the recipe (no numbering)"},
            "time_to_cook": {"type": "number", "description": "Total time to prepare the recipe in minutes"},
        },
    });
    let two = json!({"foo": {"type": "string"}, "bar": {"type": "number", "description": "A number"}});
    for (function, tokens) in [
        (json!({"name": "foo", "parameters": object(json!({}))}), 31),
        (json!({"name": "foo"}), 31),
        (json!({"name": "foo", "description": "Do a foo", "parameters": object(json!({}))}), 36),
        (
            json!({"name": "bing_bong", "description": "Do a bing bong", "parameters": object(json!({"foo": {"type": "string"}}))}),
            49,
        ),
        (json!({"name": "bing_bong", "description": "Do a bing bong", "parameters": object(two)}), 57),
        (json!({"name": "bing_bong", "description": "Do a bing bong", "parameters": object(nested)}), 68),
        (json!({"name": "get_recipe", "parameters": recipe}), 106),
    ] {
        let hello = json!([{"role": "user", "content": "hello"}]);
        let tools = json!([{"type": "function", "function": function}]);
        assert_eq!(prompt(&json!({"messages": hello, "tools": tools})), tokens, "{function}");
        assert_eq!(prompt(&json!({"messages": hello, "functions": [function]})), tokens, "{function}");
    }
}

#[test]
fn tools_and_choices_have_their_surcharge() {
    let with = |extra: Value| {
        let mut request = json!({"messages": [{"role": "user", "content": "hi"}]});
        if let (Some(request), Value::Object(extra)) = (request.as_object_mut(), extra) {
            request.extend(extra);
        }
        prompt(&request)
    };
    let tools = json!([{"type": "function", "function": {"name": "foo"}}]);
    let plain = with(json!({"tools": tools}));
    let system = json!([{"role": "system", "content": "hi"}]);
    assert_eq!(with(json!({"messages": system, "tools": tools})), plain - 4);
    assert_eq!(with(json!({"messages": system})), 8, "without tools a system message is one like any other");
    for (choice, tokens) in [
        (json!("auto"), 0),
        (json!("required"), 0),
        (json!("none"), 1),
        (json!({"type": "function", "function": {"name": "foo"}}), 8),
        (json!(7), 0),
    ] {
        assert_eq!(with(json!({"tools": tools, "tool_choice": choice})), plain + tokens, "{choice}");
    }
    assert_eq!(with(json!({"tools": []})), 8);
}

#[test]
fn tool_calls_in_the_history_count() {
    let arguments = r#"{"city":"Paris"}"#;
    let call = json!([{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]);
    let asked = messages(json!([{"role": "assistant", "content": null, "tool_calls": call}]));
    assert_eq!(asked, 7 + text(BOTH[0], arguments));
    let answered = messages(json!([{"role": "tool", "tool_call_id": "call_1", "content": "rain"}]));
    assert_eq!(answered, 7 + text(BOTH[0], "call_1") + text(BOTH[0], "rain"));
}

#[test]
fn what_cannot_be_taken_apart_counts_by_its_length() {
    let mut counter = Counter::new(Vocabulary::Cl100k);
    OPENAI_CHAT.count_prompt(
        br#"{"messages":[{"role":"user","content":"aaaaaaaa","content":"aaaaaaaa"}]}"#,
        &mut counter,
    );
    assert_eq!(counter.total(), 3 + 3 + 57 / 4);
    let mut counter = Counter::new(Vocabulary::Cl100k);
    OPENAI_CHAT.count_prompt(b"12345678", &mut counter);
    assert_eq!(counter.total(), 2);
}

#[test]
fn a_rough_count_looks_at_nothing() {
    let mut counter = Counter::rough(Vocabulary::Cl100k);
    counter.text("Hello world, 16b");
    assert_eq!(counter.total(), 4);
}

#[test]
fn a_reply_has_its_text_in_one_piece() {
    let call = |arguments: Value| json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let reply = json!({"choices": [
        {"index": 0, "message": {"role": "assistant", "reasoning_content": "why\n", "content": "Hello \"world\""}},
        {"index": 1, "message": {"role": "assistant", "content": null, "tool_calls": [call(json!("{\"a\":1}")), call(json!({"b": 2}))]}},
        {"index": 2, "message": {"content": [{"type": "text", "text": "parts"}], "refusal": "no"}},
    ]});
    let mut expected = OutputText::default();
    expected.push(b"why\nHello \"world\"f{\"a\":1}f{\"b\":2}parts");
    assert_eq!(OPENAI_CHAT.output_text(reply.to_string().as_bytes()), expected);
    for none in ["{}", r#"{"choices":[]}"#, r#"{"choices":[7]}"#, r#"{"choices":[{"index":0}]}"#, "nonsense"]
    {
        assert!(OPENAI_CHAT.output_text(none.as_bytes()).is_empty(), "{none}");
    }
}

/// The text that a stream of these deltas collects.
fn streamed(deltas: &[Value], reasoning_field: Option<&str>) -> OutputText {
    let context = ReplyContext {
        model: "alias".into(),
        stream_usage: false,
        reasoning_field: reasoning_field.map(|field| [field.to_owned()].into()),
        fallback_id: "x".into(),
        created: 7,
    };
    let mut relay = OPENAI_CHAT.relay_stream(context);
    for delta in deltas {
        let chunk = json!({"id": "u", "model": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        relay.push(format!("data: {chunk}\n\n").as_bytes(), &mut BytesMut::new()).expect("stream");
    }
    relay.output().clone()
}

#[test]
fn a_stream_collects_its_text() {
    let name = json!([{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}]);
    let part = |part: &str| json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]});
    let text = streamed(
        &[
            json!({"role": "assistant", "content": ""}),
            json!({"reasoning_content": "a"}),
            json!({"reasoning_content": "b"}),
            json!({"reasoning": "c"}),
            json!({"content": " d"}),
            json!({"content": " e"}),
            json!({"content": "\"\n"}),
            json!({"content": " \u{e9}"}),
            json!({"tool_calls": name}),
            part("{\"a\""),
            part(":1}"),
            json!({}),
        ],
        None,
    );
    let mut expected = OutputText::default();
    expected.push("abc d e\"\n \u{e9}weather{\"a\":1}".as_bytes());
    assert_eq!(text, expected);
    let mut expected = OutputText::default();
    expected.push(b"hmm");
    assert_eq!(streamed(&[json!({"thoughts": "hm"}), json!({"thoughts": "m"})], Some("thoughts")), expected);
}

#[test]
fn output_is_counted_up_to_a_mebibyte_and_then_guessed() {
    let mut out = OutputText::default();
    for _ in 0..EXACT / 4 {
        out.push(b" the");
    }
    assert_eq!(output(&out), EXACT as u64 / 4);
    out.push(&[b'x'; 4001]);
    assert_eq!((out.len(), output(&out)), (EXACT as u64 + 4001, EXACT as u64 / 4 + 1000));
    out.truncate(EXACT as u64 + 400);
    assert_eq!((out.len(), output(&out)), (EXACT as u64 + 400, EXACT as u64 / 4 + 100));
    out.truncate(8);
    assert_eq!((out.len(), output(&out)), (8, 2));
    out.truncate(9);
    assert_eq!(out.len(), 8);
}

#[test]
fn a_character_across_the_limit_does_no_harm() {
    let mut out = OutputText::default();
    out.push(&vec![b'\n'; EXACT - 1]);
    let before = output(&out);
    out.push("\u{1f642}\u{1f642}".as_bytes());
    assert!((before..=before + 8).contains(&output(&out)));
    let mut counter = Counter::new(Vocabulary::Cl100k);
    counter.text(&("\n".repeat(EXACT - 1) + "\u{1f642}\u{1f642}"));
    assert_eq!(counter.total(), before + 2);
}

#[test]
fn endless_words_end() {
    for piece in ["a", " ", "\u{1f642}", "\u{4e00}"] {
        let long = piece.repeat(64 * 1024 / piece.len());
        for vocabulary in BOTH {
            assert!(text(vocabulary, &long) <= long.len() as u64);
        }
    }
}

proptest! {
    #[test]
    fn the_whole_has_no_more_tokens_than_its_parts(a in "(\\PC|\\s){0,60}", b in "(\\PC|\\s){0,60}") {
        for vocabulary in BOTH {
            let (whole, parts) = (text(vocabulary, &format!("{a}{b}")), text(vocabulary, &a) + text(vocabulary, &b));
            // Words are cut differently where the parts meet.
            prop_assert!(whole <= parts + 8, "{whole} > {parts}");
            prop_assert!(whole <= (a.len() + b.len()) as u64);
        }
    }

    #[test]
    fn streamed_text_is_the_same_however_it_is_cut(parts in prop::collection::vec("(\\PC|\\s){0,12}", 0..12)) {
        let deltas: Vec<Value> = parts.iter().map(|part| json!({"content": part})).collect();
        let mut expected = OutputText::default();
        expected.push(parts.concat().as_bytes());
        prop_assert_eq!(streamed(&deltas, None), expected);
    }

    #[test]
    fn any_request_is_counted(content in "\\PC{0,40}", depth in 0usize..200) {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        let content = Value::from(content);
        for body in [
            format!(r#"{{"messages":[{{"role":"user","content":{content}}},{deep}],"tools":[{deep}],"tool_choice":[{deep}]}}"#),
            format!(r#"{{"messages":{deep},"tools":{content}}}"#),
        ] {
            let mut counter = Counter::new(Vocabulary::Cl100k);
            OPENAI_CHAT.count_prompt(body.as_bytes(), &mut counter);
            prop_assert!(counter.total() >= 3);
        }
    }
}
