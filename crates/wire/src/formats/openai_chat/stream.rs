//! Streamed replies.
//!
//! Most frames of a stream differ only in one piece of text. The first such
//! frame is taken apart and remembered as a template; a later frame that has
//! the same bytes around a piece of plain text is rewritten without parsing.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{error, response, tokens};
use crate::{
    Document, Event, OutputText, ReplyContext, ReplyFacts, SseDecoder, StreamRelay,
    document::encode_string,
    edit::{edit_array, edit_object},
    format::ReplyError,
};

/// Stands for the text while a template is made; holds nothing that JSON escapes.
const MARK: &str = "<aisix:text>";
/// Text and reasoning alternate; more shapes than this are not worth keeping.
const MAX_TEMPLATES: usize = 2;
/// A stream whose frames never repeat is not worth more tries.
const MAX_LEARNED: u32 = 8;

pub(super) struct ChatStream {
    decoder: SseDecoder,
    rewriter: Rewriter,
    ended: bool,
}

impl ChatStream {
    pub(super) fn new(context: ReplyContext) -> Self {
        let rewriter = Rewriter {
            context,
            facts: ReplyFacts::default(),
            output: OutputText::default(),
            choices: Vec::new(),
            templates: Vec::new(),
            learned: 0,
        };
        Self { decoder: SseDecoder::new(), rewriter, ended: false }
    }
}

impl StreamRelay for ChatStream {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), ReplyError> {
        if self.ended {
            return Ok(());
        }
        self.decoder.push(bytes);
        while let Some(event) = self.decoder.next_event() {
            if self.rewriter.event(&event, out)? {
                self.ended = true;
                return Ok(());
            }
        }
        if self.decoder.overflowed() {
            return Err(ReplyError::Malformed("a stream event is larger than 16 MiB".into()));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), ReplyError> {
        if !self.ended
            && let Some(event) = self.decoder.last_event()
        {
            self.rewriter.event(&event, out)?;
        }
        self.ended = true;
        if !self.rewriter.complete() {
            return Err(ReplyError::Incomplete);
        }
        out.put_slice(b"data: [DONE]\n\n");
        Ok(())
    }

    fn ended(&self) -> bool {
        self.ended
    }

    fn facts(&self) -> &ReplyFacts {
        &self.rewriter.facts
    }

    fn output(&mut self) -> &mut OutputText {
        &mut self.rewriter.output
    }
}

/// Frame bytes around a piece of text: as they come, and as they go out.
struct Template {
    head_in: Vec<u8>,
    tail_in: Vec<u8>,
    head_out: Vec<u8>,
    tail_out: Vec<u8>,
}

struct Rewriter {
    context: ReplyContext,
    facts: ReplyFacts,
    output: OutputText,
    /// Index of each choice seen and whether it has its finish reason.
    choices: Vec<(u64, bool)>,
    templates: Vec<Template>,
    /// How many templates were made so far.
    learned: u32,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

impl Rewriter {
    /// Handles one event. `true` ends the stream.
    fn event(&mut self, event: &Event<'_>, out: &mut BytesMut) -> Result<bool, ReplyError> {
        let data = &*event.data;
        if event.name.as_deref() == Some("error") {
            self.facts.frames += 1;
            return Err(ReplyError::InBand(error::in_event(data)));
        }
        if data.trim_ascii() == b"[DONE]" {
            self.facts.done_marker = true;
            return Ok(true);
        }
        if data.trim_ascii().is_empty() {
            return Ok(false);
        }
        self.facts.frames += 1;
        if !self.apply_template(data, out) {
            self.parse(event, out)?;
        }
        Ok(false)
    }

    fn complete(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|(_, finished)| *finished)
    }

    fn apply_template(&mut self, data: &[u8], out: &mut BytesMut) -> bool {
        self.templates.iter().any(|template| {
            let text = data
                .strip_prefix(&*template.head_in)
                .and_then(|rest| rest.strip_suffix(&*template.tail_in))
                .filter(|text| is_plain(text));
            if let Some(text) = text {
                out.reserve(template.head_out.len() + text.len() + template.tail_out.len());
                out.put_slice(&template.head_out);
                out.put_slice(text);
                out.put_slice(&template.tail_out);
                self.output.push(text);
            }
            text.is_some()
        })
    }

    fn parse(&mut self, event: &Event<'_>, out: &mut BytesMut) -> Result<(), ReplyError> {
        let mut chunk = Document::parse_text(String::from_utf8_lossy(&event.data).into_owned())
            .map_err(|e| ReplyError::Malformed(format!("stream chunk: {e}")))?;
        if let Some(error) = response::in_band(&chunk) {
            return Err(error);
        }
        if chunk.get("choices").is_none() && chunk.get("usage").is_none_or(|raw| raw == "null") {
            // An event of another name, such as a `ping`, is none that clients of this format know.
            if event.name.as_deref().is_some_and(|name| name != "message") {
                self.facts.frames -= 1;
                return Ok(());
            }
            return Err(ReplyError::Malformed("stream chunk: no `choices` array".into()));
        }
        self.note_identity(&chunk);
        let raw_choices = chunk.get("choices").unwrap_or("[]").to_owned();
        let choices: Vec<Choice<'_>> = match serde_json::from_str::<Option<Vec<Choice<'_>>>>(&raw_choices) {
            Ok(choices) => choices.unwrap_or_default(),
            Err(e) => return Err(ReplyError::Malformed(format!("stream chunk: `choices`: {e}"))),
        };
        let mut carries = false;
        for choice in &choices {
            let finished = choice.finish_reason.as_ref().is_some_and(|reason| !reason.is_empty());
            carries |= finished || choice.delta.is_some_and(|delta| !is_empty_delta(delta.get()));
            match self.choices.iter_mut().find(|(index, _)| *index == choice.index) {
                Some((_, done)) => *done |= finished,
                None => self.choices.push((choice.index, finished)),
            }
        }
        let usage = response::usage(&chunk);
        if let Some(usage) = usage {
            self.facts.usage = usage;
        }
        if usage.is_some() && !carries && !self.context.stream_usage {
            return Ok(());
        }
        if usage.is_none()
            && self.learned < MAX_LEARNED
            && let [Choice { delta: Some(delta), finish_reason, .. }] = &choices[..]
            && finish_reason.as_ref().is_none_or(|reason| reason.is_empty())
        {
            self.learn(&chunk, delta.get(), &raw_choices);
        }
        if self.rewrite(&mut chunk) {
            tokens::collect(chunk.get("choices").unwrap_or_default(), &mut self.output);
        } else if carries {
            let deltas = choices.iter().filter_map(|choice| choice.delta);
            deltas.for_each(|delta| tokens::collect_message(delta.get(), &mut self.output));
        }
        write_frame(&chunk, out);
        Ok(())
    }

    fn note_identity(&mut self, chunk: &Document) {
        if self.facts.response_id.is_none() {
            self.facts.response_id = chunk.get_str("id").filter(|id| !id.is_empty()).map(Cow::into_owned);
        }
        if self.facts.model_version.is_none() {
            self.facts.model_version =
                chunk.get_str("model").filter(|name| !name.is_empty()).map(Cow::into_owned);
        }
    }

    /// Says whether the choices were changed.
    fn rewrite(&self, chunk: &mut Document) -> bool {
        response::set_identity(chunk, &self.context, "chat.completion.chunk");
        if chunk.get("usage") == Some("null") && !self.context.stream_usage {
            chunk.remove("usage");
        }
        let field = self.context.reasoning_field.as_deref();
        let raw = chunk.get("choices").unwrap_or("[]");
        if field.is_none() && !raw.contains(r#""reasoning""#) {
            return false;
        }
        let edited = edit_array(raw, |choice| {
            edit_object(choice, "delta", |delta| {
                if let Some(path) = field {
                    copy_reasoning(delta, path);
                }
                response::rename_reasoning(delta);
            });
        });
        let Some(edited) = edited else { return false };
        chunk.set("choices", edited);
        true
    }

    /// Remembers the bytes around the text of a frame whose delta has one
    /// non-empty text field.
    fn learn(&mut self, chunk: &Document, delta: &str, choices: &str) {
        let source = chunk.original().as_bytes();
        let Some(text) = text_of(delta) else { return };
        // Offsets of the nested texts within the whole frame.
        let Some(choices_at) = chunk.get("choices").map(|raw| offset(source, raw)) else { return };
        let text_at = choices_at + offset(choices.as_bytes(), delta) + offset(delta.as_bytes(), text);
        let (head, tail) = (&source[..text_at], &source[text_at + text.len()..]);
        let marked = [head, MARK.as_bytes(), tail].concat();
        let Ok(mut sample) = Document::parse(marked.into()) else { return };
        self.rewrite(&mut sample);
        let mut frame = BytesMut::new();
        write_frame(&sample, &mut frame);
        let mut marks = memchr::memmem::find_iter(&frame, MARK.as_bytes());
        // More than one: the frame itself holds that text.
        let (Some(at), None) = (marks.next(), marks.next()) else { return };
        self.learned += 1;
        if self.templates.len() == MAX_TEMPLATES {
            self.templates.remove(0);
        }
        self.templates.push(Template {
            head_in: head.to_vec(),
            tail_in: tail.to_vec(),
            head_out: frame[..at].to_vec(),
            tail_out: frame[at + MARK.len()..].to_vec(),
        });
    }
}

/// Where `part`, a slice of `whole`, begins.
fn offset(whole: &[u8], part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// The text between the quotes of `content` or `reasoning_content`.
fn text_of(delta: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Delta<'a> {
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(borrow, default)]
        reasoning_content: Option<&'a RawValue>,
    }
    let delta: Delta<'_> = serde_json::from_str(delta).ok()?;
    let plain = |raw: &'_ RawValue| raw.get().len() > 2 && raw.get().starts_with('"');
    let raw = delta.content.filter(|raw| plain(raw)).or(delta.reasoning_content.filter(|raw| plain(raw)))?;
    let inner = &raw.get()[1..raw.get().len() - 1];
    is_plain(inner.as_bytes()).then_some(inner)
}

/// Text that can stand inside a JSON string as it is.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
        && (text.is_ascii() || std::str::from_utf8(text).is_ok())
}

fn is_empty_delta(raw: &str) -> bool {
    let Ok(delta) = Document::parse_text(raw.to_owned()) else {
        return false;
    };
    delta.names().all(|name| matches!(delta.get(name), Some("null" | r#""""# | "[]" | "{}")))
}

/// Copies the vendor's reasoning text to `reasoning_content`.
fn copy_reasoning(delta: &mut Document, path: &[String]) {
    match path {
        [] => {}
        [name] if name == "reasoning_content" => {}
        [name] => {
            let raw = delta.get(name).filter(|raw| raw.len() > 2 && raw.starts_with('"')).map(str::to_owned);
            if let Some(raw) = raw {
                delta.set("reasoning_content", raw);
            }
        }
        [name, rest @ ..] => {
            let pointer = format!("/{}", rest.join("/"));
            let text = delta
                .get(name)
                .and_then(|raw| serde_json::from_str::<serde_json::Value>(raw).ok())
                .and_then(|value| value.pointer(&pointer)?.as_str().map(str::to_owned));
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                delta.set("reasoning_content", encode_string(&text));
            }
        }
    }
}

fn write_frame(chunk: &Document, out: &mut BytesMut) {
    let body = chunk.to_bytes();
    out.reserve(body.len() + 8);
    out.put_slice(b"data: ");
    // A line break between tokens would end the field; inside strings it is always escaped.
    for line in body.split(|byte| *byte == b'\n' || *byte == b'\r') {
        out.put_slice(line);
    }
    out.put_slice(b"\n\n");
}
