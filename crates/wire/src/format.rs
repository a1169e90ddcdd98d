//! What a wire format must be able to do. Implementations are pure.

use std::sync::Arc;

use aisix_core::{Error, Usage};
use bytes::{Bytes, BytesMut};

use crate::{BodyOverrides, Counter, Document, OutputText, document::encode_string};

/// What the pipeline needs to know of a request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The model the caller named.
    pub model: String,
    /// Whether the caller wants a stream.
    pub stream: bool,
    /// Whether the caller asked for usage at the end of the stream.
    pub stream_usage: bool,
    /// Whether a message has no content, which some upstreams refuse.
    pub missing_content: bool,
}

/// What a reply is rewritten to on its way to the caller.
#[derive(Clone, Debug)]
pub struct ReplyContext {
    /// The model name the caller sent.
    pub model: Arc<str>,
    /// Whether a chunk that carries nothing but usage is passed on.
    pub stream_usage: bool,
    /// Path below `delta` of the field in which the vendor sends reasoning text.
    pub reasoning_field: Option<Arc<[String]>>,
    /// Used where the upstream gave no id.
    pub fallback_id: String,
    /// Unix seconds, used where the upstream gave no time.
    pub created: u64,
}

/// What was learned from a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyFacts {
    /// Tokens, as far as the upstream reported them.
    pub usage: Usage,
    /// The id that the provider gave to the answer.
    pub response_id: Option<String>,
    /// The model version that the provider named.
    pub model_version: Option<String>,
    /// Frames passed to the caller or swallowed; `[DONE]` does not count.
    pub frames: u64,
    /// Whether the upstream sent its end-of-stream marker.
    pub done_marker: bool,
}

/// An error that an upstream described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFault {
    /// The HTTP status that the error names, if it does.
    pub status: Option<u16>,
    /// Its text, shortened.
    pub message: String,
    /// Its machine-readable code.
    pub code: Option<String>,
    /// The parameter it complains about.
    pub param: Option<String>,
}

/// Longest upstream text shown to a caller, in bytes.
const MAX_TEXT: usize = 1024;

impl UpstreamFault {
    /// Makes the texts fit for a caller: the secret is struck out, as it is and
    /// as JSON spells it, and only then are they shortened, so that no part of it
    /// is left over.
    #[must_use]
    pub fn presentable(mut self, secret: &str) -> Self {
        let quoted = encode_string(secret);
        let spelt = &quoted[1..quoted.len() - 1];
        let texts = [&mut self.code, &mut self.param].into_iter().flatten();
        for text in texts.chain([&mut self.message]) {
            for form in [secret, spelt] {
                if !form.is_empty() && text.contains(form) {
                    *text = text.replace(form, "***");
                }
            }
            if text.len() > MAX_TEXT {
                text.truncate(text.floor_char_boundary(MAX_TEXT));
                text.push('…');
            }
        }
        self
    }
}

/// Why a successful response turned out not to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The upstream reported an error inside a 2xx response.
    InBand(UpstreamFault),
    /// The bytes are not what the format says; the text is for the operator.
    Malformed(String),
    /// The stream ended before the answer was complete.
    Incomplete,
}

/// A wire format of chat-like operations.
pub trait Format: Send + Sync {
    /// Checks a request body and reads what the pipeline needs.
    fn head(&self, body: &Document) -> Result<Head, Error>;

    /// Turns the caller's body into the one for an upstream of the same format.
    fn prepare(&self, body: &mut Document, head: &Head, upstream_model: &str, overrides: &BodyOverrides);

    /// Reads a complete reply and rewrites it for the caller.
    fn relay(&self, body: Bytes, context: &ReplyContext) -> Result<(Bytes, ReplyFacts), ReplyError>;

    /// Begins to rewrite a streamed reply.
    fn relay_stream(&self, context: ReplyContext) -> Box<dyn StreamRelay>;

    /// Counts the input of a request body.
    fn count_prompt(&self, request: &[u8], counter: &mut Counter);

    /// The text in a complete reply.
    fn output_text(&self, reply: &[u8]) -> OutputText;

    /// The error body for a caller of this format.
    fn encode_error(&self, error: &Error) -> Bytes;

    /// The error frame for a stream that has already begun.
    fn encode_stream_error(&self, error: &Error) -> Bytes;

    /// Reads an error body of an upstream of this format.
    fn decode_error(&self, status: u16, body: &[u8]) -> UpstreamFault;
}

/// Rewrites one streamed reply.
pub trait StreamRelay: Send {
    /// Takes bytes as they arrived and appends what the caller gets.
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<(), ReplyError>;

    /// The upstream ended: appends the terminal events, or says why the answer
    /// is not complete.
    fn finish(&mut self, out: &mut BytesMut) -> Result<(), ReplyError>;

    /// Whether the upstream's end-of-stream marker was seen; nothing after it is read.
    fn ended(&self) -> bool;

    /// What was learned so far.
    fn facts(&self) -> &ReplyFacts;

    /// The text so far of what was written for the caller.
    fn output(&mut self) -> &mut OutputText;
}
