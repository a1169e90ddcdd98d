//! Wire formats, frame codecs, adapters and vendors: pure functions over bytes.
//! Nothing here opens a socket or reads a clock.

pub mod adapters;
mod document;
mod edit;
mod format;
pub mod formats;
mod scan;
mod sse;
mod tokens;
mod vendors;

pub use adapters::{Adapter, Address};
pub use document::{Document, ParseError};
pub use edit::{BodyOverrides, flatten_text_parts};
pub use format::{Format, Head, ReplyContext, ReplyError, ReplyFacts, StreamRelay, UpstreamFault};
pub use sse::{Event, SseDecoder};
pub use tokens::{Counter, OutputText, Vocabulary};
