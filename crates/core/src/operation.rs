//! What a request asks for and in which dialect.

/// What an endpoint does, independent of the dialect it is spoken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Answer a conversation.
    Chat,
    /// List the models a caller may use.
    ListModels,
}

/// The format a client speaks; it also fixes the shape of error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI API shapes.
    OpenAi,
}

impl Dialect {
    /// The value of the `inbound_protocol` metric label.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
        }
    }
}
