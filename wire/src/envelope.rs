//! The outermost layer of every body and frame: `ClientCommunication`, read and written.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{FieldError, WireError};
use crate::field::{Fields, HEAD, put_bytes, put_varint};

/// The protocol version that we speak; agents before it (0.6.8) speak another one.
pub const API_VERSION: u32 = 4;

/// AES works on blocks of this many bytes, and keys, IVs and HMAC keys are as long.
pub(crate) const BLOCK: usize = 16;

/// The metadata are a name and a signature, some 300 bytes; this leaves room for larger keys.
const METADATA_LIMIT: usize = 4096;

/// The key that a session is encrypted with has at most 8,192 bits.
const CIPHER_LIMIT: usize = 1024;

/// HMAC-SHA1.
const HMAC_LEN: usize = 20;

/// A parsed body. It keeps the body alive for as long as it lives itself.
#[derive(Debug, Clone)]
pub struct Envelope {
    body: Bytes,
    fields: Ranges,
    packet_iv: [u8; BLOCK],
}

/// Where the fields are in the body.
#[derive(Debug, Clone, Default)]
struct Ranges {
    encrypted: Range<usize>,
    cipher: Range<usize>,
    metadata: Range<usize>,
    hmac: Range<usize>,
    packet_iv: Range<usize>,
    api_version: u32,
}

impl Ranges {
    fn walk(body: &[u8]) -> Result<Self, FieldError> {
        let mut ranges = Self::default();
        for field in Fields::new(body) {
            let field = field?;
            match field.number {
                1 => ranges.encrypted = field.bytes()?,
                2 => ranges.cipher = field.bytes()?,
                // Has 32 bits; every decoder cuts more off.
                6 => ranges.api_version = field.varint()? as u32,
                8 => ranges.packet_iv = field.bytes()?,
                9 => ranges.metadata = field.bytes()?,
                10 => ranges.hmac = field.bytes()?,
                _ => {}
            }
        }
        Ok(ranges)
    }

    fn is_pad(&self) -> bool {
        self.cipher.is_empty() && self.encrypted.is_empty()
    }
}

impl Envelope {
    /// Parses a body at the cost of one walk over its fields: nothing is decrypted yet. Pads before
    /// or behind the message are passed over.
    ///
    /// Errors: broken protobuf; sizes that can not be, such as an IV that is not of 16 bytes or
    /// ciphertext that is no whole number of blocks. How long a body may be is the caller's rule.
    pub fn parse(body: Bytes) -> Result<Self, WireError> {
        let fields = Ranges::walk(&body).map_err(WireError::malformed("ClientCommunication"))?;
        if fields.is_pad() {
            return Ok(Self {
                body,
                fields,
                packet_iv: [0; BLOCK],
            });
        }
        let packet_iv = body[fields.packet_iv.clone()]
            .try_into()
            .map_err(|_| wrong_size("packet_iv", &fields.packet_iv, "16"))?;
        check_size("full_hmac", &fields.hmac, "20", |len| len == HMAC_LEN)?;
        check_size("encrypted_cipher", &fields.cipher, "1 to 1,024", |len| {
            (1..=CIPHER_LIMIT).contains(&len)
        })?;
        check_size(
            "encrypted_cipher_metadata",
            &fields.metadata,
            "blocks of 16, at most 4,096",
            |len| is_whole_blocks(len) && len <= METADATA_LIMIT,
        )?;
        check_size(
            "encrypted",
            &fields.encrypted,
            "blocks of 16",
            is_whole_blocks,
        )?;
        Ok(Self {
            body,
            fields,
            packet_iv,
        })
    }

    /// Nothing but padding (or nothing at all): an answer that says "nothing".
    pub fn is_pad(&self) -> bool {
        self.fields.is_pad()
    }

    /// The encrypted session. It is the same in every body of a session and is what sessions are
    /// cached by. A slice of the body: copy it to keep it.
    pub fn cipher(&self) -> &[u8] {
        &self.body[self.fields.cipher.clone()]
    }

    /// Fresh for every body: an equal one under an equal [`cipher`](Self::cipher) is a repeat.
    pub fn packet_iv(&self) -> &[u8; BLOCK] {
        &self.packet_iv
    }

    /// What the sender speaks; below [`API_VERSION`] it is an agent of long ago.
    pub fn api_version(&self) -> u32 {
        self.fields.api_version
    }

    pub(crate) fn encrypted(&self) -> &[u8] {
        &self.body[self.fields.encrypted.clone()]
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        &self.body[self.fields.metadata.clone()]
    }

    pub(crate) fn hmac(&self) -> &[u8] {
        &self.body[self.fields.hmac.clone()]
    }

    /// The parts that the HMAC covers, in its order.
    pub(crate) fn authenticated(&self) -> Authenticated<'_> {
        Authenticated {
            encrypted: self.encrypted(),
            cipher: self.cipher(),
            metadata: self.metadata(),
            packet_iv: &self.packet_iv,
            api_version: self.fields.api_version,
        }
    }
}

fn is_whole_blocks(len: usize) -> bool {
    len > 0 && len.is_multiple_of(BLOCK)
}

fn wrong_size(field: &'static str, range: &Range<usize>, expected: &'static str) -> WireError {
    WireError::FieldSize {
        field,
        len: range.len(),
        expected,
    }
}

fn check_size(
    field: &'static str,
    range: &Range<usize>,
    expected: &'static str,
    right: impl Fn(usize) -> bool,
) -> Result<(), WireError> {
    if right(range.len()) {
        Ok(())
    } else {
        Err(wrong_size(field, range, expected))
    }
}

/// What an envelope is made of, before its HMAC.
pub(crate) struct Authenticated<'a> {
    pub(crate) encrypted: &'a [u8],
    pub(crate) cipher: &'a [u8],
    pub(crate) metadata: &'a [u8],
    pub(crate) packet_iv: &'a [u8; BLOCK],
    pub(crate) api_version: u32,
}

impl Authenticated<'_> {
    /// Writes the body.
    pub(crate) fn write(&self, hmac: &[u8]) -> Bytes {
        let parts = [
            self.encrypted,
            self.cipher,
            self.metadata,
            self.packet_iv,
            hmac,
        ];
        let content: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(content + HEAD * (parts.len() + 1));
        put_bytes(&mut out, 1, self.encrypted);
        put_bytes(&mut out, 2, self.cipher);
        put_varint(&mut out, 6, u64::from(self.api_version));
        put_bytes(&mut out, 8, self.packet_iv);
        put_bytes(&mut out, 9, self.metadata);
        put_bytes(&mut out, 10, hmac);
        out.into()
    }
}

/// A pad, to be flushed every 10 s while an answer is held back.
pub fn pad() -> Bytes {
    // Field 11, packed, one number: 0.
    Bytes::from_static(&[0x5a, 0x01, 0x00])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use nublar_schemas::agent::ClientCommunication;
    use prost::Message as _;

    use super::*;

    fn sound() -> ClientCommunication {
        ClientCommunication {
            encrypted: vec![1; 48].into(),
            encrypted_cipher: vec![2; 256].into(),
            encrypted_cipher_metadata: vec![3; 288].into(),
            packet_iv: vec![4; 16].into(),
            full_hmac: vec![5; 20].into(),
            api_version: 4,
            ..Default::default()
        }
    }

    fn parse(communication: &ClientCommunication) -> Result<Envelope, WireError> {
        Envelope::parse(communication.encode_to_vec().into())
    }

    #[test]
    fn pads_alone_are_a_pad_and_pads_around_a_message_are_passed_over() {
        let pads = ClientCommunication {
            padding: vec![0],
            ..Default::default()
        };
        assert_eq!(pad(), pads.encode_to_vec());
        for count in 0..4 {
            let body = pad().repeat(count);
            assert!(Envelope::parse(body.into()).unwrap().is_pad());
        }
        let body = [
            pad().to_vec(),
            pad().to_vec(),
            sound().encode_to_vec(),
            pad().to_vec(),
        ];
        let envelope = Envelope::parse(body.concat().into()).unwrap();
        assert!(!envelope.is_pad());
        assert_eq!(envelope.cipher(), [2; 256]);
        assert_eq!(envelope.packet_iv(), &[4; 16]);
        assert_eq!(envelope.api_version(), 4);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        type Break = fn(&mut ClientCommunication);
        let breaks: [(&str, Break); 9] = [
            ("packet_iv", |c| c.packet_iv = vec![4; 15].into()),
            ("packet_iv", |c| c.packet_iv = Bytes::new()),
            ("full_hmac", |c| c.full_hmac = vec![5; 32].into()),
            ("encrypted_cipher", |c| c.encrypted_cipher = Bytes::new()),
            ("encrypted_cipher", |c| {
                c.encrypted_cipher = vec![2; 1025].into()
            }),
            ("encrypted_cipher_metadata", |c| {
                c.encrypted_cipher_metadata = vec![3; 287].into()
            }),
            ("encrypted_cipher_metadata", |c| {
                c.encrypted_cipher_metadata = vec![3; 4112].into()
            }),
            ("encrypted", |c| c.encrypted = vec![1; 47].into()),
            ("encrypted", |c| c.encrypted = Bytes::new()),
        ];
        assert!(parse(&sound()).is_ok());
        for (expected, change) in breaks {
            let mut communication = sound();
            change(&mut communication);
            match parse(&communication) {
                Err(WireError::FieldSize { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_written_is_what_every_decoder_reads() {
        let sound = sound();
        let envelope = parse(&sound).unwrap();
        let written = envelope.authenticated().write(envelope.hmac());
        assert_eq!(ClientCommunication::decode(written).unwrap(), sound);
    }
}
