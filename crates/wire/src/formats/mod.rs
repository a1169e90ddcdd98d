//! The wire formats, one line each.

use aisix_core::Dialect;

use crate::Format;

mod openai_chat;

/// OpenAI chat completions.
pub static OPENAI_CHAT: &dyn Format = &openai_chat::OpenAiChat;

/// The format in which a dialect's errors are written where no operation is
/// known yet.
pub fn of_dialect(dialect: Dialect) -> &'static dyn Format {
    match dialect {
        Dialect::OpenAi => OPENAI_CHAT,
    }
}
