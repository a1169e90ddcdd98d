//! OpenAI chat completions.
//!
//! Source: OpenAI API reference, "Chat" and "Streaming".

mod error;
mod request;
mod response;
mod stream;
#[cfg(test)]
mod tests;
mod tokens;

use aisix_core::Error;
use bytes::Bytes;

use crate::{
    BodyOverrides, Counter, Document, Format, Head, OutputText, ReplyContext, ReplyFacts, StreamRelay,
    UpstreamFault, format::ReplyError,
};

/// The format.
#[derive(Debug)]
pub(crate) struct OpenAiChat;

impl Format for OpenAiChat {
    fn head(&self, body: &Document) -> Result<Head, Error> {
        request::head(body)
    }

    fn prepare(&self, body: &mut Document, head: &Head, upstream_model: &str, overrides: &BodyOverrides) {
        request::prepare(body, head, upstream_model, overrides);
    }

    fn relay(&self, body: Bytes, context: &ReplyContext) -> Result<(Bytes, ReplyFacts), ReplyError> {
        response::relay(body, context)
    }

    fn relay_stream(&self, context: ReplyContext) -> Box<dyn StreamRelay> {
        Box::new(stream::ChatStream::new(context))
    }

    fn count_prompt(&self, request: &[u8], counter: &mut Counter) {
        tokens::count_prompt(request, counter);
    }

    fn output_text(&self, reply: &[u8]) -> OutputText {
        tokens::output_text(reply)
    }

    fn encode_error(&self, error: &Error) -> Bytes {
        error::encode(error, error.kind())
    }

    fn encode_stream_error(&self, error: &Error) -> Bytes {
        error::encode_frame(error)
    }

    fn decode_error(&self, status: u16, body: &[u8]) -> UpstreamFault {
        error::decode(status, body)
    }
}
