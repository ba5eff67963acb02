//! How stored documents become rows, log lines and files again.

mod bodies;
mod documents;
mod events;
mod files;
mod lines;

pub(crate) use bodies::{Within, bodies};
pub(crate) use documents::{documents, each};
pub(crate) use events::{Events, Told, event_lines};
pub(crate) use files::{LOOKED_AT, Upload, by_upload, content, describe, find, is_upload};
pub(crate) use lines::{Block, log_lines, row_lines};
pub(crate) use nublar_core::ingest::{Arranged, Found, Piece, arrange};
