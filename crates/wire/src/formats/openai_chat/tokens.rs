//! What of a chat counts as tokens.
//!
//! Sources: OpenAI Cookbook, "How to count tokens with tiktoken" (messages);
//! `hmarr/openai-chat-tokens` (tools, which the models see as TypeScript).

use std::{borrow::Cow, collections::HashSet, fmt::Write};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{Counter, OutputText, document::decode_string, scan::Scanner};

/// Around each message.
const MESSAGE: u64 = 3;
/// The beginning of the answer.
const PRIMING: u64 = 3;
const NAME: u64 = 1;
const TOOLS: u64 = 9;
/// As [`TOOLS`], where the tools join a system message.
const TOOLS_AFTER_SYSTEM: u64 = 5;
const NO_TOOL: u64 = 1;
const CHOSEN_TOOL: u64 = 7;
const SMALL_IMAGE: u64 = 85;
const LARGE_IMAGE: u64 = 250;
/// Definitions of more bytes than this are not written out.
const MAX_TOOLS: usize = 1024 * 1024;

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    messages: Raw<'a>,
    #[serde(borrow, default)]
    tools: Raw<'a>,
    #[serde(borrow, default)]
    tool_choice: Raw<'a>,
    /// The deprecated form of `tools`.
    #[serde(borrow, default)]
    functions: Raw<'a>,
    /// The deprecated form of `tool_choice`.
    #[serde(borrow, default)]
    function_call: Raw<'a>,
}

/// A message of a request.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Raw<'a>,
    #[serde(borrow, default)]
    content: Raw<'a>,
    #[serde(borrow, default)]
    name: Raw<'a>,
    #[serde(borrow, default)]
    tool_call_id: Raw<'a>,
    #[serde(borrow, default)]
    tool_calls: Raw<'a>,
    /// The deprecated form of `tool_calls`.
    #[serde(borrow, default)]
    function_call: Raw<'a>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Raw<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Raw<'a>,
    #[serde(borrow, default)]
    arguments: Raw<'a>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Raw<'a>,
    #[serde(borrow, default)]
    image_url: Raw<'a>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow, default)]
    detail: Raw<'a>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    message: Raw<'a>,
    #[serde(borrow, default)]
    delta: Raw<'a>,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    choices: Raw<'a>,
}

/// Counts the input of a request. What cannot be taken apart counts by its
/// length.
pub(super) fn count_prompt(body: &[u8], counter: &mut Counter) {
    let Ok(request) = serde_json::from_slice::<Request<'_>>(body) else {
        return counter.bytes(body.len() as u64);
    };
    let mut system = false;
    for raw in items(request.messages) {
        counter.add(MESSAGE);
        match serde_json::from_str::<Message<'_>>(raw.get()) {
            Ok(message) => {
                system |= message.role.is_some_and(|role| role.get() == r#""system""#);
                count_message(&message, counter);
            }
            Err(_) => counter.bytes(raw.get().len() as u64),
        }
    }
    let tools: Vec<&RawValue> = [request.tools, request.functions].into_iter().flat_map(items).collect();
    if !tools.is_empty() {
        counter.add(if system { TOOLS_AFTER_SYSTEM } else { TOOLS });
        match tools.iter().map(|tool| tool.get().len()).sum() {
            size @ 0..=MAX_TOOLS => {
                let declarations = declarations(tools.into_iter().map(value), size);
                counter.text(&declarations);
            }
            size => counter.bytes(size as u64),
        }
    }
    if let Some(choice) = request.tool_choice.or(request.function_call) {
        count_choice(choice, counter);
    }
    counter.add(PRIMING);
}

fn count_message(message: &Message<'_>, counter: &mut Counter) {
    for raw in [message.role, message.name, message.tool_call_id].into_iter().flatten() {
        count_string(raw, counter);
    }
    if message.name.is_some() {
        counter.add(NAME);
    }
    if let Some(content) = message.content {
        count_content(content, counter);
    }
    let calls = items(message.tool_calls).into_iter();
    let calls = calls.filter_map(|raw| serde_json::from_str::<ToolCall<'_>>(raw.get()).ok()?.function);
    for raw in calls.chain(message.function_call) {
        if let Ok(Function { arguments: Some(arguments), .. }) = serde_json::from_str(raw.get()) {
            counter.text(&text(arguments.get()));
        }
    }
}

fn count_content(content: &RawValue, counter: &mut Counter) {
    if !content.get().starts_with('[') {
        return count_string(content, counter);
    }
    for raw in items(Some(content)) {
        if raw.get().starts_with('"') {
            count_string(raw, counter);
            continue;
        }
        let Ok(part) = serde_json::from_str::<Part<'_>>(raw.get()) else {
            counter.bytes(raw.get().len() as u64);
            continue;
        };
        if let Some(text) = part.text {
            count_string(text, counter);
        }
        if let Some(image) = part.image_url {
            let image = serde_json::from_str::<Image<'_>>(image.get()).ok();
            let detail = image.and_then(|image| decode_string(image.detail?.get()));
            let small = matches!(detail.as_deref(), None | Some("low" | "auto"));
            counter.add(if small { SMALL_IMAGE } else { LARGE_IMAGE });
        }
    }
}

fn count_choice(choice: &RawValue, counter: &mut Counter) {
    match value(choice) {
        Value::String(word) if word == "none" => counter.add(NO_TOOL),
        Value::Object(choice) => {
            counter.add(CHOSEN_TOOL);
            let function = choice.get("function").and_then(Value::as_object).unwrap_or(&choice);
            counter.text(function.get("name").and_then(Value::as_str).unwrap_or_default());
        }
        _ => {}
    }
}

fn count_string(raw: &RawValue, counter: &mut Counter) {
    if let Some(text) = decode_string(raw.get()) {
        counter.text(&text);
    }
}

/// The text of a complete reply.
pub(super) fn output_text(reply: &[u8]) -> OutputText {
    let mut output = OutputText::default();
    if let Ok(Reply { choices: Some(choices) }) = serde_json::from_slice(reply) {
        collect(choices.get(), &mut output);
    }
    output
}

/// Appends the text of each choice of a reply or chunk: reasoning, content,
/// tool names and arguments.
pub(super) fn collect(choices: &str, output: &mut OutputText) {
    let choices: Vec<Choice<'_>> = serde_json::from_str(choices).unwrap_or_default();
    for raw in choices.iter().filter_map(|choice| choice.message.or(choice.delta)) {
        collect_message(raw.get(), output);
    }
}

/// Appends the text of a message or delta.
pub(super) fn collect_message(message: &str, output: &mut OutputText) {
    // Most deltas have one short text: this is faster than deserializing them.
    // It was read as JSON before, so there is no flaw to be told of.
    let _ = Scanner::new(message.as_bytes()).object(|span| {
        let value = &message[span.value.0..span.value.1];
        match &message[span.key.0..span.key.1] {
            r#""content""# | r#""reasoning_content""# => collect_content(value, output),
            r#""tool_calls""# => array(value).into_iter().for_each(|raw| {
                let call = serde_json::from_str::<ToolCall<'_>>(raw.get()).ok();
                collect_function(call.and_then(|call| call.function), output);
            }),
            r#""function_call""# => collect_function(serde_json::from_str(value).ok(), output),
            _ => {}
        }
    });
}

fn collect_content(content: &str, output: &mut OutputText) {
    if !content.starts_with('[') {
        return output.push(text(content).as_bytes());
    }
    for part in array(content).into_iter().filter_map(|raw| serde_json::from_str::<Part<'_>>(raw.get()).ok())
    {
        output.push(part.text.map(|raw| text(raw.get())).unwrap_or_default().as_bytes());
    }
}

fn collect_function(raw: Raw<'_>, output: &mut OutputText) {
    let function = raw.and_then(|raw| serde_json::from_str::<Function<'_>>(raw.get()).ok());
    for raw in function.into_iter().flat_map(|function| [function.name, function.arguments]).flatten() {
        output.push(text(raw.get()).as_bytes());
    }
}

/// A string decoded, nothing for `null`, anything else as it is written: some
/// vendors send arguments as an object.
fn text(raw: &str) -> Cow<'_, str> {
    match raw {
        "null" => "".into(),
        _ => decode_string(raw).unwrap_or(raw.into()),
    }
}

/// What nests too deeply is kept as text.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into())
}

fn items(raw: Raw<'_>) -> Vec<&RawValue> {
    raw.map(|raw| array(raw.get())).unwrap_or_default()
}

fn array(raw: &str) -> Vec<&RawValue> {
    serde_json::from_str(raw).unwrap_or_default()
}

/// Tools as the models see them: functions of a TypeScript namespace.
fn declarations(tools: impl Iterator<Item = Value>, size: usize) -> String {
    let mut out = String::with_capacity(size);
    out.push_str("namespace functions {\n\n");
    for tool in tools {
        let function = tool.get("function").unwrap_or(&tool);
        let Some(name) = function["name"].as_str() else {
            // A tool of the provider's own.
            out.push_str(&tool.to_string());
            out.push('\n');
            continue;
        };
        comment(function, "", &mut out);
        // Writing to a string cannot fail, here and below.
        let _ = write!(out, "type {name} = (");
        let parameters = &function["parameters"];
        if parameters["properties"].as_object().is_some_and(|properties| !properties.is_empty()) {
            out.push_str("_: {\n");
            fields(parameters, 0, &mut out);
            out.push('}');
        }
        out.push_str(") => any;\n\n");
    }
    out.push_str("} // namespace functions");
    out
}

fn comment(of: &Value, indent: &str, out: &mut String) {
    if let Some(text) = of["description"].as_str().filter(|text| !text.is_empty()) {
        let _ = writeln!(out, "{indent}// {text}");
    }
}

fn fields(object: &Value, depth: usize, out: &mut String) {
    let indent = " ".repeat(depth);
    let required: HashSet<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        comment(schema, &indent, out);
        let optional = if required.contains(&**name) { "" } else { "?" };
        let _ = write!(out, "{indent}{name}{optional}: ");
        kind(schema, depth, out);
        out.push_str(",\n");
    }
}

fn kind(schema: &Value, depth: usize, out: &mut String) {
    let options = schema["enum"].as_array();
    match (schema["type"].as_str(), options) {
        (Some("string" | "integer" | "number"), Some(options)) => {
            let options: Vec<String> = options.iter().map(Value::to_string).collect();
            out.push_str(&options.join(" | "));
        }
        (Some("integer" | "number"), None) => out.push_str("number"),
        (Some(plain @ ("string" | "boolean" | "null")), _) => out.push_str(plain),
        (Some("array"), _) => {
            kind(&schema["items"], depth, out);
            out.push_str("[]");
        }
        (Some("object"), _) => {
            out.push_str("{\n");
            fields(schema, depth + 2, out);
            out.push('}');
        }
        _ => out.push_str("any"),
    }
}
