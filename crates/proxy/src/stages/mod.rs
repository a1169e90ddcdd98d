//! The stages of the pipeline. None calls another.

mod accept;
mod attempt;
mod client_ip;
mod decode;
mod identify;
mod length;
mod resolve;
mod route;

pub use accept::refuse_head;
pub(crate) use accept::{Accepted, Arrival};
pub(crate) use attempt::attempt;
pub(crate) use decode::{Call, decode};
pub(crate) use identify::identify;
pub use length::{CONFLICTING_LENGTH, UNSUPPORTED_CODING, host_problem, read_off};
pub(crate) use length::{check_host, check_length, drain};
pub(crate) use resolve::{Addressed, resolve};
pub(crate) use route::{Plan, route};
