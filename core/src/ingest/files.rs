//! Buffers of uploads as files: which upload a buffer belongs to, and when a file is whole.

use super::arrange::Arranged;
use super::inflate::{InflateError, inflate_at_most};
use crate::ids::ContentId;
use bytes::Bytes;
use nublar_schemas::agent::{FileBuffer, PathSpec};
use prost::Message;

/// The most plain data of one buffer. Agents send 1 MiB at most; what claims far more is a bomb.
const MOST_DATA: usize = 64 << 20;

/// Which upload a buffer belongs to. Upload numbers alone do not tell: a sparse read that fails
/// half-way starts over as a plain one under the same number.
pub fn upload_instance(
    session: &str,
    number: i64,
    pathspec: Option<&PathSpec>,
    sparse: bool,
) -> ContentId {
    let path = pathspec.map(Message::encode_to_vec).unwrap_or_default();
    ContentId::of(&[
        b"upload",
        session.as_bytes(),
        &number.to_le_bytes(),
        &path,
        &[u8::from(sparse)],
    ])
}

/// Which upload a buffer of a client event belongs to. Each event query numbers its uploads from 0,
/// anew whenever its agent starts, so that a number and a path name many files over the years. All
/// buffers of a plain file carry the time of its last change too; the last one of a sparse file has
/// none, so versions of that are told apart by their size alone.
pub fn event_upload_instance(buffer: &FileBuffer) -> ContentId {
    let path = buffer.pathspec.as_ref().map(Message::encode_to_vec);
    let version = if buffer.is_sparse { 0 } else { buffer.mtime };
    ContentId::of(&[
        b"event upload",
        &buffer.upload_number.to_le_bytes(),
        &path.unwrap_or_default(),
        &[u8::from(buffer.is_sparse)],
        &buffer.size.to_le_bytes(),
        &version.to_le_bytes(),
    ])
}

/// How much of a file there is to be, and whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the original.
    pub size: u64,
    /// Bytes that the whole has when stored: of a sparse file without its holes.
    pub expected: u64,
    /// Everything is there.
    pub complete: bool,
}

impl Extent {
    /// Of an upload's first and last buffer, by (order, id), and all of them arranged.
    pub fn of(first: &FileBuffer, last: &FileBuffer, arranged: &Arranged) -> Self {
        let eof = last.eof.then(|| last.offset.saturating_add(length(last)));
        let size = first.size.max(last.size);
        let expected = eof.unwrap_or(if first.is_sparse {
            first.stored_size.max(last.stored_size)
        } else {
            size
        });
        let complete = eof.is_some() && arranged.gaps.is_empty() && arranged.end >= expected;
        Self {
            size,
            expected: expected.max(arranged.end),
            complete,
        }
    }
}

fn length(buffer: &FileBuffer) -> u64 {
    match (buffer.uncompressed_length, buffer.reference.is_empty()) {
        (0, true) => buffer.data.len() as u64,
        (0, false) => buffer.data_length,
        (inflated, _) => inflated,
    }
}

/// What a buffer's data, which may stand in an object, is as plain bytes.
pub fn plain_data(buffer: &FileBuffer, data: Bytes) -> Result<Bytes, InflateError> {
    if buffer.uncompressed_length == 0 {
        return Ok(data);
    }
    let size = usize::try_from(buffer.uncompressed_length).unwrap_or(usize::MAX);
    inflate_at_most(&data, size, MOST_DATA).map(Bytes::from)
}
