//! How stored documents become rows, log lines and files again.

mod arrange;
mod bodies;
mod documents;
mod events;
mod files;
mod lines;

pub(crate) use arrange::{Arranged, Piece, arrange};
pub(crate) use bodies::{Found, Within, bodies};
pub(crate) use documents::{documents, each};
pub(crate) use events::{Events, Told, event_lines};
pub(crate) use files::{Upload, by_upload, content, describe};
pub(crate) use lines::{Block, log_lines, row_lines};
