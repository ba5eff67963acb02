//! Protobuf fields one after the other, without decoding what is in them; and writing them.

use std::ops::Range;

use bytes::BufMut;

use crate::error::FieldError;

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2: where its bytes are.
    Bytes(Range<usize>),
    /// Wire types 1 and 5, which no field that is looked at has.
    Fixed,
    /// Wire type 3 up to its end: long out of use, and passed over as every decoder does.
    Group,
}

/// One field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// Where it begins.
    pub(crate) at: usize,
    /// 1 to 2^29 - 1.
    pub(crate) number: u32,
    pub(crate) value: Value,
}

impl Field {
    /// Where the bytes of a length-delimited field are.
    pub(crate) fn bytes(self) -> Result<Range<usize>, FieldError> {
        match self.value {
            Value::Bytes(range) => Ok(range),
            Value::Varint(_) => Err(self.wrong_type(0)),
            Value::Fixed => Err(self.wrong_type(1)),
            Value::Group => Err(self.wrong_type(3)),
        }
    }

    /// The value of a number, bool or enum.
    pub(crate) fn varint(self) -> Result<u64, FieldError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Bytes(_) => Err(self.wrong_type(2)),
            Value::Fixed => Err(self.wrong_type(1)),
            Value::Group => Err(self.wrong_type(3)),
        }
    }

    fn wrong_type(&self, wire_type: u8) -> FieldError {
        FieldError::WireType {
            at: self.at,
            number: self.number,
            wire_type,
        }
    }
}

/// Groups within groups, at most; as many as other decoders follow.
const DEEPEST: usize = 100;

/// Walks the fields of one message. Ends after the first error.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self::starting_at(bytes, 0)
    }

    /// Begins at a field's offset: `bytes` beyond their end count as their end.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next field begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn varint(&mut self, start: usize) -> Result<u64, FieldError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(FieldError::Truncated { at: start });
            };
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(FieldError::Overlong { at: start });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FieldError::Overlong { at: start })
    }

    fn skip(&mut self, start: usize, length: u64) -> Result<Range<usize>, FieldError> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let range = self.at..self.at + length;
                self.at += length;
                Ok(range)
            }
            _ => Err(FieldError::Truncated { at: start }),
        }
    }

    /// A field's number and wire type.
    fn tag(&mut self) -> Result<(u32, u8), FieldError> {
        let at = self.at;
        let tag = self.varint(at)?;
        let tag = u32::try_from(tag).map_err(|_| FieldError::Overlong { at })?;
        match tag >> 3 {
            0 => Err(FieldError::Zero { at }),
            number => Ok((number, (tag & 7) as u8)),
        }
    }

    fn field(&mut self) -> Result<Field, FieldError> {
        let at = self.at;
        let (number, wire_type) = self.tag()?;
        let value = match wire_type {
            3 => self.group(at, number)?,
            _ => self.value(at, number, wire_type)?,
        };
        Ok(Field { at, number, value })
    }

    fn value(&mut self, at: usize, number: u32, wire_type: u8) -> Result<Value, FieldError> {
        match wire_type {
            0 => self.varint(at).map(Value::Varint),
            1 => self.skip(at, 8).map(|_| Value::Fixed),
            2 => {
                let length = self.varint(at)?;
                self.skip(at, length).map(Value::Bytes)
            }
            5 => self.skip(at, 4).map(|_| Value::Fixed),
            _ => Err(FieldError::WireType {
                at,
                number,
                wire_type,
            }),
        }
    }

    /// Passes over a group that was just opened, to where it is closed again.
    fn group(&mut self, start: usize, number: u32) -> Result<Value, FieldError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            if self.at >= self.bytes.len() {
                return Err(FieldError::Truncated { at: start });
            }
            let at = self.at;
            match self.tag()? {
                (number, 3) if open.len() < DEEPEST => open.push(number),
                (number, 4) if number == innermost => {
                    open.pop();
                }
                (number, wire_type) => {
                    self.value(at, number, wire_type)?;
                }
            }
        }
        Ok(Value::Group)
    }
}

impl Iterator for Fields<'_> {
    type Item = Result<Field, FieldError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// The bytes that [`put_bytes`] writes before the content: at most this many.
pub(crate) const HEAD: usize = 12;

/// Writes a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.put_slice(content);
}

/// Writes a number; 0 is left out, as everyone does.
pub(crate) fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        prost::encoding::encode_key(number, prost::encoding::WireType::Varint, out);
        prost::encoding::encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn walk(bytes: &[u8]) -> Result<Vec<(u32, Value)>, FieldError> {
        Fields::new(bytes)
            .map(|field| field.map(|field| (field.number, field.value)))
            .collect()
    }

    #[test]
    fn fields_of_every_type_are_walked() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: 150
            0x12, 0x02, b'h', b'i', // 2: "hi"
            0x19, 1, 2, 3, 4, 5, 6, 7, 8, // 3: fixed64
            0x25, 1, 2, 3, 4, // 4: fixed32
            0xe8, 0x02, 0x00, // 45: 0
        ];
        let fields = walk(&bytes).unwrap();
        assert_eq!(
            fields,
            [
                (1, Value::Varint(150)),
                (2, Value::Bytes(5..7)),
                (3, Value::Fixed),
                (4, Value::Fixed),
                (45, Value::Varint(0)),
            ]
        );
        let whole = [0, 3, 7, 16, 21, bytes.len()];
        for length in 0..=bytes.len() {
            assert_eq!(
                walk(&bytes[..length]).is_ok(),
                whole.contains(&length),
                "at {length}"
            );
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        assert_eq!(walk(&[0x02, 0x00]), Err(FieldError::Zero { at: 0 }));
        // The end of a group that was not opened, and types that there are not.
        for tag in [0x0c, 0x0e, 0x0f] {
            let error = walk(&[0x08, 0, tag, 0]).unwrap_err();
            assert!(
                matches!(
                    error,
                    FieldError::WireType {
                        at: 2,
                        number: 1,
                        ..
                    }
                ),
                "{error}"
            );
        }
        let longest = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(walk(&longest).unwrap(), [(1, Value::Varint(u64::MAX))]);
        let longer = [&[0x08][..], &[0xff; 9], &[0x02]].concat();
        assert_eq!(walk(&longer), Err(FieldError::Overlong { at: 0 }));
        let tag = [0x80, 0x80, 0x80, 0x80, 0x10, 0x00];
        assert_eq!(walk(&tag), Err(FieldError::Overlong { at: 0 }));
        let length = [&[0x12][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(walk(&length), Err(FieldError::Truncated { at: 0 }));
    }

    #[test]
    fn groups_are_passed_over() {
        let bytes = [
            0x08, 0x01, // 1: 1
            0x73, 0x08, 0x02, 0x1b, 0x1c, 0x0a, 0x01, 0x74, 0x74, // 14 { 1: 2, 3 {}, 1: "t" }
            0x10, 0x03, // 2: 3
        ];
        let fields = [
            (1, Value::Varint(1)),
            (14, Value::Group),
            (2, Value::Varint(3)),
        ];
        assert_eq!(walk(&bytes).unwrap(), fields);
        for length in 3..11 {
            let error = walk(&bytes[..length]).unwrap_err();
            assert!(matches!(error, FieldError::Truncated { .. }), "{error}");
        }
        // Closed by another number, or never.
        assert!(walk(&[0x0b, 0x14]).is_err());
        assert!(walk(&[&[0x0b; DEEPEST][..], &[0x0c; DEEPEST]].concat()).is_ok());
        assert!(walk(&[0x0b; 5_000_000]).is_err());
    }

    #[test]
    fn what_is_written_is_walked() {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, b"");
        put_varint(&mut out, 2, 0);
        put_varint(&mut out, 6, 1 << 40);
        put_bytes(&mut out, 11, &[7; 300]);
        assert_eq!(
            walk(&out).unwrap(),
            [
                (1, Value::Bytes(2..2)),
                (6, Value::Varint(1 << 40)),
                (11, Value::Bytes(12..312))
            ]
        );
    }
}
