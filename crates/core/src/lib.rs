//! The vocabulary of the gateway: operations, token usage, errors, secrets,
//! name patterns and request ids. Everything here is plain data; nothing does
//! I/O or reads a clock.

mod error;
mod glob;
mod operation;
pub mod probe;
mod request_id;
pub mod rows;
mod secret;
mod usage;

pub use error::{Error, Reason, Source};
pub use glob::{Capture, Glob};
pub use operation::{Dialect, Operation};
pub use probe::Lifecycle;
pub use request_id::RequestId;
pub use secret::Secret;
pub use usage::{Price, Usage};

/// The version of the product, as reported by `--version` and the `Server` header.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
