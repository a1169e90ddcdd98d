//! Stores of documents. A store knows rows, revisions and commits; what stands
//! in a document is no business of this crate.
//!
//! [`etcd`] follows and writes an etcd cluster, [`embedded`] keeps a SQLite
//! file, and [`cache`] keeps the image of a store for a start without it.

pub mod cache;
pub mod embedded;
pub mod etcd;
