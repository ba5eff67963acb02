//! Reads the items of a segment file one after the other.

use super::format::{self, Item};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes before the body of an item that tell its length.
const HEAD: usize = 8;

/// Why there is no next item.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    /// What stands here is no item.
    Damaged(u64),
}

/// The items between two places of a file.
pub(super) struct Items<'a> {
    file: &'a File,
    salt: u64,
    pos: u64,
    limit: u64,
    chunk: usize,
    /// Bytes of the file from `pos` on, as far as they were read.
    ahead: Bytes,
}

impl<'a> Items<'a> {
    /// Reads from `pos`, where an item begins, up to `limit`, in steps of `chunk` bytes.
    pub(super) fn new(file: &'a File, salt: u64, pos: u64, limit: u64, chunk: usize) -> Self {
        Self {
            file,
            salt,
            pos,
            limit,
            chunk,
            ahead: Bytes::new(),
        }
    }

    /// Where the next item begins.
    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    /// The next item, none at the limit.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Broken> {
        if self.pos >= self.limit {
            return Ok(None);
        }
        self.need(HEAD)?;
        let len = format::item_len(&self.ahead).ok_or(Broken::Damaged(self.pos))?;
        self.need(len)?;
        let bytes = self.ahead.slice(..len);
        let item = format::decode(bytes, self.salt).ok_or(Broken::Damaged(self.pos))?;
        self.ahead = self.ahead.slice(len..);
        self.pos += len as u64;
        Ok(Some(item))
    }

    /// Makes sure that so many bytes are there.
    fn need(&mut self, len: usize) -> Result<(), Broken> {
        if self.ahead.len() >= len {
            return Ok(());
        }
        let left = self.limit - self.pos;
        if (len as u64) > left {
            return Err(Broken::Damaged(self.pos));
        }
        let size = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(self.chunk.max(len));
        let mut bytes = vec![0; size];
        self.file
            .read_exact_at(&mut bytes, self.pos)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    Broken::Damaged(self.pos)
                } else {
                    Broken::Io(error)
                }
            })?;
        self.ahead = bytes.into();
        Ok(())
    }
}
