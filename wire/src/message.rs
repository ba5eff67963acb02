//! Walks a list of messages to their boundaries. No payload is decoded and no byte is copied: what
//! goes on from here is each message exactly as the agent sent it.

use std::ops::Range;

use bytes::Bytes;
use nublar_schemas::agent::VeloMessage;
use prost::Message as _;

use crate::error::{FieldError, WireError};
use crate::field::{Field, Fields, Value};

/// What a message carries, told by the number of its payload field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A check-in, field 27.
    ForemanCheckin,
    /// A part of a file, field 28.
    FileBuffer,
    /// A certificate request, field 29.
    Csr,
    /// Rows, field 33.
    VqlResponse,
    /// Log rows, field 34.
    LogMessage,
    /// How a flow stands, field 41.
    FlowStats,
    /// The beginning of an upload, field 44.
    UploadTransaction,
    /// Any other payload, known to the protocol or not.
    Other(u32),
    /// No payload at all.
    Empty,
    /// More than one payload: no agent sends this, and taking it for either would be wrong.
    Several,
}

impl Kind {
    /// The kind of a message whose only payload is field `number`.
    pub fn of(number: u32) -> Self {
        match number {
            27 => Self::ForemanCheckin,
            28 => Self::FileBuffer,
            29 => Self::Csr,
            33 => Self::VqlResponse,
            34 => Self::LogMessage,
            41 => Self::FlowStats,
            44 => Self::UploadTransaction,
            other => Self::Other(other),
        }
    }
}

/// A `VeloMessage` as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The serialized message: a slice of its list, which lives for as long as this does.
    pub bytes: Bytes,
    /// What it carries.
    pub kind: Kind,
    /// The agent let it overtake what was queued.
    pub urgent: bool,
    session: Range<usize>,
    payload: Range<usize>,
}

impl Message {
    /// Reads the boundaries of one serialized `VeloMessage`.
    ///
    /// Errors: broken protobuf, or a session id that is no UTF-8. Of a field that comes twice the
    /// last one counts, as with every decoder; of a payload none does ([`Kind::Several`]).
    pub fn parse(bytes: Bytes) -> Result<Self, WireError> {
        Self::walk(bytes).map_err(WireError::malformed("VeloMessage"))
    }

    fn walk(bytes: Bytes) -> Result<Self, FieldError> {
        let (mut session, mut urgent) = (0..0, false);
        let (mut known, mut unknown) = (None, None);
        let mut several = false;
        for field in Fields::new(&bytes) {
            let field = field?;
            match field.number {
                1 => session = text(&bytes, field)?,
                36 => urgent = field.varint()? != 0,
                25 | 27..=35 | 38 | 39 | 41..=45 => {
                    let number = field.number;
                    several |= known.replace((number, field.bytes()?)).is_some();
                }
                // A payload of an agent that is newer than we are.
                46.. if matches!(field.value, Value::Bytes(_)) => {
                    unknown = Some((field.number, field.bytes()?));
                }
                _ => {}
            }
        }
        let (kind, payload) = match known.or(unknown) {
            _ if several => (Kind::Several, 0..0),
            Some((number, payload)) => (Kind::of(number), payload),
            None => (Kind::Empty, 0..0),
        };
        Ok(Self {
            bytes,
            kind,
            urgent,
            session,
            payload,
        })
    }

    /// The session id: a flow or a well-known name, empty if it has none. Not checked in any way.
    pub fn session_id(&self) -> &str {
        // It was checked to be UTF-8 when it was walked.
        std::str::from_utf8(&self.bytes[self.session.clone()]).unwrap_or_default()
    }

    /// The serialized payload, for the few kinds that are read on the way: check-ins, statistics,
    /// certificate requests. Empty for [`Kind::Several`] and [`Kind::Empty`].
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(self.payload.clone())
    }

    /// Decodes all of it.
    ///
    /// Errors: anything inside the payload that is broken.
    pub fn decode(&self) -> Result<VeloMessage, WireError> {
        VeloMessage::decode(self.bytes.clone()).map_err(WireError::undecodable("VeloMessage"))
    }
}

fn text(bytes: &[u8], field: Field) -> Result<Range<usize>, FieldError> {
    let (at, number) = (field.at, field.number);
    let range = field.bytes()?;
    match std::str::from_utf8(&bytes[range.clone()]) {
        Ok(_) => Ok(range),
        Err(_) => Err(FieldError::Utf8 { at, number }),
    }
}

/// The messages of one serialized `MessageList`, in the order in which they were sent.
///
/// The iterator ends after the first error: what stands behind a broken message has no boundary
/// that could be trusted.
pub fn messages(list: Bytes) -> Messages {
    Messages { list, at: 0 }
}

/// Made by [`messages`].
#[derive(Debug, Clone)]
pub struct Messages {
    list: Bytes,
    at: usize,
}

impl Iterator for Messages {
    type Item = Result<Message, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut fields = Fields::starting_at(&self.list, self.at);
            let field = fields.next()?;
            self.at = fields.position();
            let message = match field {
                Ok(field) if field.number != 1 => continue,
                Ok(field) => field
                    .bytes()
                    .map_err(WireError::malformed("MessageList"))
                    .and_then(|range| Message::parse(self.list.slice(range))),
                Err(error) => Err(WireError::malformed("MessageList")(error)),
            };
            if message.is_err() {
                self.at = self.list.len();
            }
            return Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use nublar_schemas::agent::{
        Cancel, FileBuffer, FlowStats, MessageList, UploadTransaction, VqlResponse,
    };

    use super::*;

    fn message(session: &str, fill: impl FnOnce(&mut VeloMessage)) -> VeloMessage {
        let mut message = VeloMessage {
            session_id: session.into(),
            ..Default::default()
        };
        fill(&mut message);
        message
    }

    fn sample() -> MessageList {
        let job = vec![
            message("F.A", |m| {
                m.vql_response = Some(VqlResponse {
                    total_rows: 3,
                    ..Default::default()
                });
            }),
            message("F.B", |m| {
                m.file_buffer = Some(FileBuffer {
                    eof: true,
                    ..Default::default()
                });
                m.request_id = 5;
            }),
            message("F.C", |m| {
                m.flow_stats = Some(FlowStats {
                    flow_complete: true,
                    ..Default::default()
                });
                m.urgent = true;
            }),
            message("F.D", |m| m.ping = Some(Cancel::default())),
            message("F.E", |m| {
                m.upload_transaction = Some(UploadTransaction::default())
            }),
            message("", |_| {}),
        ];
        MessageList { job }
    }

    #[test]
    fn every_message_is_cut_out_as_it_was() {
        let list = sample();
        let walked: Vec<_> = messages(list.encode_to_vec().into())
            .collect::<Result<_, _>>()
            .unwrap();
        let seen: Vec<_> = walked
            .iter()
            .map(|m| (m.session_id(), m.kind, m.urgent))
            .collect();
        assert_eq!(
            seen,
            [
                ("F.A", Kind::VqlResponse, false),
                ("F.B", Kind::FileBuffer, false),
                ("F.C", Kind::FlowStats, true),
                ("F.D", Kind::Other(39), false),
                ("F.E", Kind::UploadTransaction, false),
                ("", Kind::Empty, false),
            ]
        );
        for (walked, sent) in walked.iter().zip(&list.job) {
            assert_eq!(walked.bytes, sent.encode_to_vec());
            assert_eq!(&walked.decode().unwrap(), sent);
        }
        let stats = FlowStats::decode(walked[2].payload()).unwrap();
        assert_eq!(Some(stats), list.job[2].flow_stats);
        assert_eq!(walked[5].payload(), Bytes::new());
    }

    #[test]
    fn a_list_cut_anywhere_gives_whole_messages_and_then_an_error() {
        let list = sample();
        let bytes = Bytes::from(list.encode_to_vec());
        let mut boundaries = vec![0];
        for job in &list.job {
            let one = MessageList {
                job: vec![job.clone()],
            };
            boundaries.push(boundaries[boundaries.len() - 1] + one.encoded_len());
        }
        for length in 0..=bytes.len() {
            let walked: Vec<_> = messages(bytes.slice(..length)).collect();
            let whole = boundaries.iter().filter(|&&end| end <= length).count() - 1;
            let cut = !boundaries.contains(&length);
            assert_eq!(walked.len(), whole + usize::from(cut), "at {length}");
            assert!(walked.iter().take(whole).all(Result::is_ok), "at {length}");
            assert_eq!(
                walked.last().is_some_and(Result::is_err),
                cut,
                "at {length}"
            );
        }
    }

    #[test]
    fn what_is_unknown_in_a_list_hides_no_message() {
        let list = sample();
        let mut bytes = vec![0x73, 0x08, 0x05, 0x74]; // the group 14 { 1: 5 }
        crate::field::put_bytes(&mut bytes, 27, b"unknown");
        list.encode(&mut bytes).unwrap();
        bytes.extend([0x73, 0x74]);
        let walked: Result<Vec<_>, _> = messages(bytes.clone().into()).collect();
        assert_eq!(walked.unwrap().len(), list.job.len());
        assert_eq!(MessageList::decode(&bytes[..]).unwrap(), list);
    }

    #[test]
    fn two_payloads_are_several_even_of_one_kind() {
        let mut twice = message("F.A", |m| m.ping = Some(Cancel::default())).encode_to_vec();
        assert_eq!(
            Message::parse(twice.clone().into()).unwrap().kind,
            Kind::Other(39)
        );
        crate::field::put_bytes(&mut twice, 39, b"");
        assert_eq!(Message::parse(twice.into()).unwrap().kind, Kind::Several);
        let both = message("F.A", |m| {
            m.ping = Some(Cancel::default());
            m.file_buffer = Some(FileBuffer::default());
        });
        let both = Message::parse(both.encode_to_vec().into()).unwrap();
        assert_eq!((both.kind, both.payload().len()), (Kind::Several, 0));
    }

    #[test]
    fn a_payload_of_a_later_protocol_has_a_number() {
        let mut bytes = message("F.A", |_| {}).encode_to_vec();
        crate::field::put_varint(&mut bytes, 47, 9);
        assert_eq!(
            Message::parse(bytes.clone().into()).unwrap().kind,
            Kind::Empty
        );
        crate::field::put_bytes(&mut bytes, 46, b"new");
        assert_eq!(Message::parse(bytes.into()).unwrap().kind, Kind::Other(46));
    }

    #[test]
    fn a_session_id_must_be_text_and_the_last_one_counts() {
        let mut bytes = Vec::new();
        crate::field::put_bytes(&mut bytes, 1, b"F.first");
        crate::field::put_bytes(&mut bytes, 1, "F.später".as_bytes());
        let parsed = Message::parse(bytes.clone().into()).unwrap();
        assert_eq!(parsed.session_id(), "F.später");
        assert_eq!(parsed.session_id(), parsed.decode().unwrap().session_id);
        crate::field::put_bytes(&mut bytes, 1, &[b'F', 0xff]);
        let at = bytes.len() - 4;
        assert_eq!(
            Message::parse(bytes.into()),
            Err(WireError::Malformed {
                message: "VeloMessage",
                source: FieldError::Utf8 { at, number: 1 }
            })
        );
    }
}
