//! Everything that can be wrong with what a peer sent, or with a key.

use thiserror::Error;

/// Why protobuf fields could not be walked; `at` is the offset of the field in its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FieldError {
    /// The bytes end within the field.
    #[error("field at byte {at} is cut off")]
    Truncated {
        /// Offset of the field.
        at: usize,
    },
    /// A number of more than 64 bits, or a tag of more than 32.
    #[error("field at byte {at} has a number that is too long")]
    Overlong {
        /// Offset of the field.
        at: usize,
    },
    /// Field number 0.
    #[error("field at byte {at} has number 0")]
    Zero {
        /// Offset of the field.
        at: usize,
    },
    /// A wire type that does not exist, is a group, or is not the field's own.
    #[error("field {number} at byte {at} has wire type {wire_type}, which it can not have")]
    WireType {
        /// Offset of the field.
        at: usize,
        /// The field's number.
        number: u32,
        /// The wire type, 0 to 7.
        wire_type: u8,
    },
    /// A text that is no UTF-8.
    #[error("field {number} at byte {at} is no utf-8")]
    Utf8 {
        /// Offset of the field.
        at: usize,
        /// The field's number.
        number: u32,
    },
}

/// What is wrong with a body, a session, a certificate request, a frame or a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The protobuf of a message is broken.
    #[error("{message}: {source}")]
    Malformed {
        /// The protobuf message's name.
        message: &'static str,
        /// Where and how.
        source: FieldError,
    },
    /// A message inside the encryption could not be decoded.
    #[error("{message} can not be decoded: {reason}")]
    Undecodable {
        /// The protobuf message's name.
        message: &'static str,
        /// The decoder's words.
        reason: String,
    },
    /// A field of the envelope has an impossible size.
    #[error("envelope: {field} of {len} bytes, expected {expected}")]
    FieldSize {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// A body of pads alone was treated like a message.
    #[error("envelope: only padding, no message inside")]
    OnlyPadding,
    /// None of our keys opens the session: it was made for another server, or for a key that is
    /// no longer valid. The agent must fetch server.pem again.
    #[error("session: encrypted to a key that is not ours; the agent must rekey")]
    NotForUs,
    /// A cipher other than `aes_128_cbc` with a full HMAC.
    #[error("session: {what} is not supported")]
    Unsupported {
        /// The offending property.
        what: String,
    },
    /// A session key, IV or HMAC key is not of 16 bytes.
    #[error("session: {field} of {len} bytes, expected 16")]
    KeySize {
        /// The property's name.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The HMAC does not match: damaged, forged, or of another session.
    #[error("envelope: hmac does not match")]
    BadHmac,
    /// The decrypted bytes do not end in PKCS#7 padding.
    #[error("{what} does not decrypt: bad padding")]
    BadPadding {
        /// What was decrypted.
        what: &'static str,
    },
    /// The session was not signed by the key it was checked against.
    #[error("session: not signed by the key of {source_name}")]
    BadSignature {
        /// Who the sender claims to be.
        source_name: String,
    },
    /// The sender claims an id that is not that of the key.
    #[error("session: sender calls itself {source_name}, its key is that of {key_id}")]
    WrongSource {
        /// Who the sender claims to be.
        source_name: String,
        /// The id that belongs to the key.
        key_id: String,
    },
    /// A list inflates to more than the limit; nothing beyond the limit was inflated.
    #[error("message list {index} inflates beyond {limit} bytes")]
    ListTooLarge {
        /// Which list of the body, from 0.
        index: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A list is no zlib stream.
    #[error("message list {index} is no zlib stream")]
    BadZlib {
        /// Which list of the body, from 0.
        index: usize,
    },
    /// A certificate request that is not accepted.
    #[error("certificate request: {reason}")]
    BadCsr {
        /// Why.
        reason: String,
    },
    /// A key or certificate that can not be read.
    #[error("{what}: {reason}")]
    BadKey {
        /// Which one.
        what: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// A WebSocket frame that is not the expected JSON.
    #[error("frame: {reason}")]
    BadFrame {
        /// Why.
        reason: String,
    },
    /// The crypto library refused an operation that can not fail with sound input.
    #[error("crypto library refused to {what}")]
    Crypto {
        /// The operation.
        what: &'static str,
    },
}

impl WireError {
    pub(crate) fn malformed(message: &'static str) -> impl Fn(FieldError) -> Self {
        move |source| Self::Malformed { message, source }
    }

    pub(crate) fn undecodable(message: &'static str) -> impl Fn(prost::DecodeError) -> Self {
        move |error| Self::Undecodable {
            message,
            reason: error.to_string(),
        }
    }
}
