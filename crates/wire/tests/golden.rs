//! Golden fixtures of the relay: walks `fixtures/openai_chat/relay` and compares
//! what each case gives with the files beside it. `fixtures/README.md` says what
//! the files are. `UPDATE_FIXTURES=1` writes the expected files anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aisix_wire::{
    BodyOverrides, Document, ReplyContext, ReplyError, ReplyFacts, UpstreamFault, formats::OPENAI_CHAT,
};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

const INPUTS: &[&str] = &["request.json", "overrides.json", "upstream_reply.json", "upstream_reply.sse"];
const OUTPUTS: &[&str] = &["upstream_request.json", "reply.json", "reply.sse", "facts.json", "error.json"];

/// `overrides.json`: what the operator configured, and the upstream's status.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Overrides {
    upstream_model: String,
    upstream_status: u16,
    renames: Vec<(String, String)>,
    temperature_max: Option<f64>,
    temperature_min: Option<f64>,
    defaults: Vec<(String, String)>,
    flatten_text_parts: bool,
    reasoning_field: Option<Vec<String>>,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            upstream_model: "upstream-model".into(),
            upstream_status: 200,
            renames: Vec::new(),
            temperature_max: None,
            temperature_min: None,
            defaults: Vec::new(),
            flatten_text_parts: false,
            reasoning_field: None,
        }
    }
}

impl Overrides {
    fn body(&self) -> BodyOverrides {
        BodyOverrides {
            renames: self.renames.clone(),
            temperature_max: self.temperature_max,
            temperature_min: self.temperature_min,
            defaults: self.defaults.clone(),
            flatten_text_parts: self.flatten_text_parts,
        }
    }
}

/// A folder.
struct Case {
    name: String,
    folder: PathBuf,
    files: BTreeSet<String>,
}

type Files = BTreeMap<&'static str, Vec<u8>>;

impl Case {
    /// A file without the newline that ends it; event streams as they are.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes =
            self.files.contains(name).then(|| fs::read(self.folder.join(name)).expect("readable"))?;
        if !name.ends_with(".sse") {
            assert_eq!(bytes.pop(), Some(b'\n'), "{}/{name} must end with a newline", self.name);
        }
        Some(bytes)
    }

    fn overrides(&self) -> Overrides {
        let text = self.read("overrides.json");
        text.map_or_else(Overrides::default, |text| serde_json::from_slice(&text).expect("overrides"))
    }

    /// What the code makes of the inputs.
    fn run(&self) -> Files {
        let mut made = Files::new();
        let body = self.read("request.json").expect("a case has a request.json");
        let overrides = self.overrides();
        let mut document = match Document::parse(body.into()) {
            Ok(document) => document,
            Err(error) => {
                made.insert("error.json", pretty(&json!({"where": "body", "text": error.to_string()})));
                return made;
            }
        };
        let head = match OPENAI_CHAT.head(&document) {
            Ok(head) => head,
            Err(error) => {
                let body: Value = serde_json::from_slice(&OPENAI_CHAT.encode_error(&error)).expect("JSON");
                let error = json!({"where": "request", "status": error.status(), "body": body});
                made.insert("error.json", pretty(&error));
                return made;
            }
        };
        OPENAI_CHAT.prepare(&mut document, &head, &overrides.upstream_model, &overrides.body());
        made.insert("upstream_request.json", document.to_bytes().into());
        let context = ReplyContext {
            model: head.model.into(),
            stream_usage: head.stream_usage,
            reasoning_field: overrides.reasoning_field.map(Arc::from),
            fallback_id: "chatcmpl-filled-in".into(),
            created: 1_700_000_000,
        };
        if let Some(reply) = self.read("upstream_reply.json") {
            if overrides.upstream_status == 200 {
                relay(reply.into(), &context, &mut made);
            } else {
                let fault = OPENAI_CHAT.decode_error(overrides.upstream_status, &reply).presentable("");
                made.insert("error.json", pretty(&json!({"where": "status", "fault": fault_json(&fault)})));
            }
        }
        if let Some(stream) = self.read("upstream_reply.sse") {
            assert!(head.stream, "{}: a streamed reply needs a request with stream: true", self.name);
            let (out, facts, result) = relay_stream(&context, &[&stream]);
            check_stream(&self.name, &context, &stream, &(out.clone(), facts.clone(), result.clone()));
            made.insert("reply.sse", out);
            made.insert("facts.json", pretty(&facts_json(&facts)));
            if let Err(error) = result {
                made.insert("error.json", pretty(&reply_error("stream", &error)));
            }
        }
        made
    }
}

fn relay(reply: Bytes, context: &ReplyContext, made: &mut Files) {
    match OPENAI_CHAT.relay(reply, context) {
        Ok((out, facts)) => {
            made.insert("reply.json", out.into());
            made.insert("facts.json", pretty(&facts_json(&facts)));
        }
        Err(error) => {
            made.insert("error.json", pretty(&reply_error("reply", &error)));
        }
    }
}

type Outcome = (Vec<u8>, ReplyFacts, Result<(), ReplyError>);

fn relay_stream(context: &ReplyContext, pieces: &[&[u8]]) -> Outcome {
    let mut relay = OPENAI_CHAT.relay_stream(context.clone());
    let mut out = BytesMut::new();
    let mut run = || {
        for piece in pieces {
            relay.push(piece, &mut out)?;
        }
        relay.finish(&mut out)
    };
    let result = run();
    (out.to_vec(), relay.facts().clone(), result)
}

/// What holds for every stream: a split changes nothing, and `[DONE]` stands
/// once and last if the answer is complete, else nowhere.
fn check_stream(name: &str, context: &ReplyContext, stream: &[u8], whole: &Outcome) {
    for at in 1..stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(&relay_stream(context, &[left, right]), whole, "{name}: split at byte {at}");
    }
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(&relay_stream(context, &single), whole, "{name}: byte by byte");
    let (out, _, result) = whole;
    let text = String::from_utf8(out.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let complete = text.ends_with("data: [DONE]\n\n");
    assert_eq!(complete, result.is_ok(), "{name}: [DONE]");
    assert_eq!(text.matches("data: [DONE]\n").count(), usize::from(complete), "{name}: [DONE]");
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("JSON")
}

fn facts_json(facts: &ReplyFacts) -> Value {
    let usage = &facts.usage;
    json!({
        "usage": {"input": usage.input, "output": usage.output, "total": usage.total,
            "cached": usage.cached, "reasoning": usage.reasoning},
        "response_id": facts.response_id, "model_version": facts.model_version,
        "frames": facts.frames, "done_marker": facts.done_marker,
    })
}

fn fault_json(fault: &UpstreamFault) -> Value {
    json!({"status": fault.status, "message": fault.message, "code": fault.code, "param": fault.param})
}

fn reply_error(place: &str, error: &ReplyError) -> Value {
    match error {
        ReplyError::InBand(fault) => json!({"where": place, "kind": "in_band", "fault": fault_json(fault)}),
        ReplyError::Malformed(text) => json!({"where": place, "kind": "malformed", "text": text}),
        ReplyError::Incomplete => json!({"where": place, "kind": "incomplete"}),
    }
}

fn cases() -> Vec<Case> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/openai_chat/relay");
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect()
    };
    let cases = names(&tree).into_iter().map(|name| {
        let folder = tree.join(&name);
        assert!(folder.is_dir(), "{name}: only folders are expected here");
        Case { files: names(&folder), folder, name }
    });
    cases.collect()
}

/// What differs between the files made and the files there.
fn compare(case: &Case, made: &Files) -> Vec<String> {
    let mut problems = Vec::new();
    for name in &case.files {
        if OUTPUTS.contains(&&**name) && !made.contains_key(&**name) {
            problems.push(format!("{}/{name}: expected, but nothing like it was made", case.name));
        } else if !OUTPUTS.contains(&&**name) && !INPUTS.contains(&&**name) {
            problems.push(format!("{}/{name}: unexpected file", case.name));
        }
    }
    for (name, made) in made {
        match case.read(name) {
            None => problems.push(format!(
                "{}/{name}: made, but not expected:\n  {}",
                case.name,
                String::from_utf8_lossy(made)
            )),
            Some(expected) if expected != *made => problems.push(format!(
                "{}/{name}:\n  expected {}\n  made     {}",
                case.name,
                String::from_utf8_lossy(&expected),
                String::from_utf8_lossy(made)
            )),
            Some(_) => {}
        }
    }
    problems
}

fn update(case: &Case, made: &Files) {
    for name in OUTPUTS {
        let file = case.folder.join(name);
        if let Some(made) = made.get(name) {
            let mut bytes = made.clone();
            if !name.ends_with(".sse") {
                bytes.push(b'\n');
            }
            fs::write(file, bytes).expect("writable");
        } else if file.exists() {
            fs::remove_file(file).expect("removable");
        }
    }
}

#[test]
fn every_case_gives_what_its_files_say() {
    let cases = cases();
    assert!(!cases.is_empty(), "no fixtures");
    if std::env::var_os("UPDATE_FIXTURES").is_some_and(|value| value == "1") {
        for case in &cases {
            update(case, &case.run());
        }
    }
    let cases = self::cases();
    let half = cases.len().div_ceil(2);
    let problems: Vec<String> = std::thread::scope(|scope| {
        let check = |part: &[Case]| -> Vec<String> {
            part.iter().flat_map(|case| compare(case, &case.run())).collect()
        };
        let parts: Vec<_> = cases.chunks(half).map(|part| scope.spawn(move || check(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("see the panic above")).collect()
    });
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
