//! The request pipeline: endpoint table, stages, upstream client, and the
//! configuration compiled for them.

mod endpoints;
mod gateway;
mod pipeline;
mod reply;
mod rewrite;
mod snapshot;
mod stages;
pub mod upstream;

pub use endpoints::ENDPOINTS;
pub use gateway::{Gateway, GatewayParts, Settings, Worker};
pub use reply::ReplyBody;
pub use rewrite::{Rewrite, RewriteError};
pub use snapshot::Snapshot;
pub use stages::{CONFLICTING_LENGTH, UNSUPPORTED_CODING, host_problem, read_off, refuse_head};
