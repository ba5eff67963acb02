//! What is inside an envelope: lists of messages, each of them compressed for itself.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use crate::error::{FieldError, WireError};
use crate::field::{Fields, HEAD, put_bytes, put_varint};

/// How the lists of a body are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are: what a server sends.
    None,
    /// Each list is a zlib stream: what agents send.
    Zlib,
}

/// A decrypted body. Its lists are still compressed.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    plain: Bytes,
    nonce: Range<usize>,
    timestamp_us: u64,
    compression: Compression,
    len: usize,
}

impl Packed {
    /// Reads a serialized `PackedMessageList`; every field of it is seen here, no list is inflated.
    ///
    /// Errors: broken protobuf, an unknown compression, a nonce that is no UTF-8.
    pub fn parse(plain: Bytes) -> Result<Self, WireError> {
        let malformed = WireError::malformed("PackedMessageList");
        let (mut nonce, mut timestamp_us, mut compression, mut len) = (0..0, 0, 0, 0);
        for field in Fields::new(&plain) {
            let field = field.map_err(&malformed)?;
            match field.number {
                1 => {
                    field.bytes().map_err(&malformed)?;
                    len += 1;
                }
                4 => compression = field.varint().map_err(&malformed)?,
                6 => timestamp_us = field.varint().map_err(&malformed)?,
                7 => {
                    let (at, number) = (field.at, field.number);
                    nonce = field.bytes().map_err(&malformed)?;
                    if std::str::from_utf8(&plain[nonce.clone()]).is_err() {
                        return Err(malformed(FieldError::Utf8 { at, number }));
                    }
                }
                _ => {}
            }
        }
        let compression = match compression {
            0 => Compression::None,
            1 => Compression::Zlib,
            other => {
                return Err(WireError::Unsupported {
                    what: format!("compression {other}"),
                });
            }
        };
        Ok(Self {
            plain,
            nonce,
            timestamp_us,
            compression,
            len,
        })
    }

    /// Names the org; it is compared by the caller.
    pub fn nonce(&self) -> &str {
        // It was checked to be UTF-8 when it was parsed.
        std::str::from_utf8(&self.plain[self.nonce.clone()]).unwrap_or_default()
    }

    /// Microseconds since 1970 by the sender's clock.
    pub fn timestamp_us(&self) -> u64 {
        self.timestamp_us
    }

    /// How the lists came.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No list at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lists one after the other, inflated when one is taken: each is a serialized
    /// `MessageList` of at most `limit` bytes.
    ///
    /// A list beyond the limit costs no more memory than the limit and gives
    /// [`WireError::ListTooLarge`]. After an error the next list may be taken all the same.
    pub fn lists(&self, limit: usize) -> Lists<'_> {
        Lists {
            packed: self,
            fields: Fields::new(&self.plain),
            index: 0,
            limit,
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The nonce is what lets an agent in.
        f.debug_struct("Packed")
            .field("bytes", &self.plain.len())
            .field("timestamp_us", &self.timestamp_us)
            .field("compression", &self.compression)
            .field("lists", &self.len)
            .finish_non_exhaustive()
    }
}

/// Made by [`Packed::lists`].
pub struct Lists<'a> {
    packed: &'a Packed,
    fields: Fields<'a>,
    index: usize,
    limit: usize,
}

impl Iterator for Lists<'_> {
    type Item = Result<Bytes, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        // `Packed::parse` has walked these fields: none of them is an error any more.
        let range = self
            .fields
            .by_ref()
            .flatten()
            .find(|field| field.number == 1)?
            .bytes()
            .ok()?;
        let index = self.index;
        self.index += 1;
        let list = self.packed.plain.slice(range);
        Some(match self.packed.compression {
            Compression::None if list.len() > self.limit => Err(WireError::ListTooLarge {
                index,
                limit: self.limit,
            }),
            Compression::None => Ok(list),
            Compression::Zlib => {
                INFLATER.with_borrow_mut(|inflater| inflater.inflate(&list, self.limit, index))
            }
        })
    }
}

thread_local! {
    /// Its buffer soon has the size that bodies need: then each list is inflated once, into memory
    /// that is there already.
    static INFLATER: RefCell<Inflater> = RefCell::default();
}

/// No buffer beyond this is kept for the next body.
const KEPT: usize = 16 << 20;

/// Inflates into one buffer, which grows as needed and never beyond the limit, and hands out copies
/// of their exact size.
#[derive(Default)]
struct Inflater {
    decompressor: Decompressor,
    buffer: Vec<u8>,
}

impl Inflater {
    fn inflate(&mut self, list: &[u8], limit: usize, index: usize) -> Result<Bytes, WireError> {
        let inflated = self.inflate_within(list, limit);
        if self.buffer.len() > KEPT {
            self.buffer = Vec::new();
        }
        inflated.map_err(|error| match error {
            DecompressionError::InsufficientSpace => WireError::ListTooLarge { index, limit },
            DecompressionError::BadData => WireError::BadZlib { index },
        })
    }

    fn inflate_within(&mut self, list: &[u8], limit: usize) -> Result<Bytes, DecompressionError> {
        // A buffer that is too small costs inflating the beginning again.
        let guess = list.len().saturating_mul(8).max(64 << 10);
        let mut room = guess.max(self.buffer.len()).min(limit);
        loop {
            if self.buffer.len() < room {
                self.buffer.resize(room, 0);
            }
            match self
                .decompressor
                .zlib_decompress(list, &mut self.buffer[..room])
            {
                Ok(len) => return Ok(Bytes::copy_from_slice(&self.buffer[..len])),
                Err(DecompressionError::InsufficientSpace) if room < limit => {
                    room = room.saturating_mul(4).min(limit);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A serialized `PackedMessageList`, ready to be encrypted. Sealing it twice gives two bodies with
/// the same messages and different IVs, which is how an agent repeats itself after a failure.
#[derive(Clone, PartialEq, Eq)]
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// Packs serialized lists (see [`message_list`]); `timestamp_us` is in microseconds since 1970.
    pub fn new(lists: &[Bytes], compression: Compression, nonce: &str, timestamp_us: u64) -> Self {
        let content: usize = lists.iter().map(|list| list.len() + HEAD).sum();
        // Room for the padding too: encryption is in place.
        let mut out = Vec::with_capacity(content + nonce.len() + 4 * HEAD);
        match compression {
            Compression::None => lists.iter().for_each(|list| put_bytes(&mut out, 1, list)),
            Compression::Zlib => {
                let mut compressor = Compressor::new(CompressionLvl::new(1).unwrap_or_default());
                let mut buffer = Vec::new();
                for list in lists {
                    buffer.resize(compressor.zlib_compress_bound(list.len()), 0);
                    // It fits: that is what the bound means.
                    let len = compressor
                        .zlib_compress(list, &mut buffer)
                        .unwrap_or_default();
                    put_bytes(&mut out, 1, &buffer[..len]);
                }
            }
        }
        put_varint(&mut out, 4, u64::from(compression == Compression::Zlib));
        put_varint(&mut out, 6, timestamp_us);
        put_bytes(&mut out, 7, nonce.as_bytes());
        Self(out)
    }

    /// The bytes, in a buffer of their own.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + HEAD * 2);
        bytes.extend_from_slice(&self.0);
        bytes
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.0.len())
    }
}

/// Puts serialized `VeloMessage`s into one serialized `MessageList`.
pub fn message_list(messages: &[Bytes]) -> Bytes {
    let content: usize = messages.iter().map(|message| message.len() + HEAD).sum();
    let mut out = Vec::with_capacity(content);
    messages
        .iter()
        .for_each(|message| put_bytes(&mut out, 1, message));
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use nublar_schemas::agent::{PackedMessageList, packed_message_list};
    use prost::Message as _;

    use super::*;

    fn packed(lists: &[Bytes], compression: Compression) -> Packed {
        Packed::parse(
            Plaintext::new(lists, compression, "nonce=", 7)
                .into_vec()
                .into(),
        )
        .unwrap()
    }

    #[test]
    fn lists_come_out_as_they_went_in() {
        let lists = [
            Bytes::from_static(b"one"),
            Bytes::new(),
            Bytes::from(b"rows ".repeat(100_000)),
            Bytes::from(
                (0..50_000u32)
                    .flat_map(u32::to_le_bytes)
                    .collect::<Vec<_>>(),
            ),
        ];
        for compression in [Compression::None, Compression::Zlib] {
            let packed = packed(&lists, compression);
            let out: Vec<_> = packed.lists(1 << 20).collect::<Result<_, _>>().unwrap();
            assert_eq!(out, lists);
            assert_eq!((packed.nonce(), packed.timestamp_us()), ("nonce=", 7));
            assert_eq!((packed.compression(), packed.len()), (compression, 4));
        }
    }

    #[test]
    fn the_limit_is_exact_and_a_list_beyond_it_hides_no_other() {
        let lists = [Bytes::from(vec![0; 65_537]), Bytes::from(vec![1; 65_536])];
        for compression in [Compression::None, Compression::Zlib] {
            let out: Vec<_> = packed(&lists, compression).lists(65_536).collect();
            let error = WireError::ListTooLarge {
                index: 0,
                limit: 65_536,
            };
            assert_eq!(out, [Err(error), Ok(lists[1].clone())]);
        }
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_the_limit() {
        let mut compressor = Compressor::new(CompressionLvl::best());
        let mut bomb = vec![0; 1 << 20];
        let len = compressor
            .zlib_compress(&vec![0; 64 << 20], &mut bomb)
            .unwrap();
        bomb.truncate(len);
        let mut inflater = Inflater::default();
        let inflated = inflater.inflate(&bomb, 1 << 20, 0);
        assert_eq!(
            inflated,
            Err(WireError::ListTooLarge {
                index: 0,
                limit: 1 << 20
            })
        );
        assert_eq!(inflater.buffer.len(), 1 << 20);
        assert_eq!(
            inflater.inflate(&bomb, 64 << 20, 0).unwrap().len(),
            64 << 20
        );
        assert_eq!(inflater.buffer.len(), 0, "so much is not kept");
    }

    #[test]
    fn what_is_no_zlib_stream_is_refused() {
        let list = PackedMessageList {
            message_list: vec![Bytes::from_static(b"no zlib"), Bytes::new()],
            compression: packed_message_list::Compression::Zcompression.into(),
            ..Default::default()
        };
        let packed = Packed::parse(list.encode_to_vec().into()).unwrap();
        let out: Vec<_> = packed.lists(100).collect();
        assert_eq!(
            out,
            [
                Err(WireError::BadZlib { index: 0 }),
                Err(WireError::BadZlib { index: 1 })
            ]
        );
    }

    #[test]
    fn unknown_compression_and_a_nonce_that_is_no_text_are_refused() {
        let list = PackedMessageList {
            compression: 2,
            ..Default::default()
        };
        let error = Packed::parse(list.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.to_string(), "session: compression 2 is not supported");
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 7, &[0xff]);
        let error = Packed::parse(bytes.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PackedMessageList: field 7 at byte 0 is no utf-8"
        );
    }

    #[test]
    fn what_we_pack_is_what_every_decoder_reads() {
        let messages = [Bytes::from_static(b"\x0a\x03F.A"), Bytes::new()];
        let list = message_list(&messages);
        let plain = Plaintext::new(&[list], Compression::None, "n", 9).into_vec();
        let decoded = PackedMessageList::decode(plain.as_slice()).unwrap();
        assert_eq!((decoded.nonce.as_str(), decoded.timestamp), ("n", 9));
        let walked: Vec<_> = crate::messages(decoded.message_list[0].clone())
            .map(|m| m.unwrap().bytes)
            .collect();
        assert_eq!(walked, messages);
    }
}
