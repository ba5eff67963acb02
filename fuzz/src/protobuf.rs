//! Changes to protobuf that leave the rest of it whole: lengths are written anew.

use crate::{Chance, mutate};

/// How deep fields are looked into.
const DEPTH: usize = 6;

enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

struct Field {
    tag: u64,
    value: Value,
}

/// Changes one field of a serialized message, or of a message within it; bytes that are no message
/// are changed as such.
pub fn mutate_message(chance: &mut Chance, input: &mut Vec<u8>) {
    change(chance, input, DEPTH);
}

fn change(chance: &mut Chance, input: &mut Vec<u8>, depth: usize) {
    let Some(mut fields) = read(input).filter(|fields| !fields.is_empty()) else {
        return mutate(chance, input, &[]);
    };
    let place = chance.below(fields.len());
    match chance.below(12) {
        0 => {
            fields.remove(place);
        }
        1 => {
            let copy = write(&fields[place..=place]);
            let times = 1 + chance.length(64);
            let mut out = write(&fields);
            for _ in 0..times {
                out.extend_from_slice(&copy);
            }
            *input = out;
            return;
        }
        2 => {
            let other = chance.below(fields.len());
            fields.swap(place, other);
        }
        3 => fields[place].tag = (1 + chance.length(64) as u64) << 3 | (fields[place].tag & 7),
        4 => {
            *input = write(&fields);
            return mutate(chance, input, &[]);
        }
        _ => match &mut fields[place].value {
            Value::Varint(number) => {
                *number = match chance.below(5) {
                    0 => 0,
                    1 => u64::MAX >> chance.below(64),
                    2 => number.wrapping_add(1),
                    3 => number.wrapping_sub(1),
                    _ => chance.number(),
                }
            }
            Value::Fixed(bytes) => {
                let place = chance.below(bytes.len());
                bytes[place] = chance.number() as u8;
            }
            Value::Bytes(bytes) if depth > 0 && chance.below(4) > 0 => {
                change(chance, bytes, depth - 1);
            }
            Value::Bytes(bytes) => mutate(chance, bytes, &[]),
        },
    }
    *input = write(&fields);
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = input.split_first()?;
        *input = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn read(mut input: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let take = |input: &mut &[u8], length: usize| {
        let (taken, rest) = input.split_at_checked(length)?;
        *input = rest;
        Some(taken.to_vec())
    };
    while !input.is_empty() {
        let tag = varint(&mut input)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut input)?),
            1 => Value::Fixed(take(&mut input, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut input)?).ok()?;
                Value::Bytes(take(&mut input, length)?)
            }
            5 => Value::Fixed(take(&mut input, 4)?),
            _ => return None,
        };
        if tag >> 3 == 0 {
            return None;
        }
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        put(&mut out, field.tag);
        match &field.value {
            Value::Varint(number) => put(&mut out, *number),
            Value::Fixed(bytes) => out.extend_from_slice(bytes),
            Value::Bytes(bytes) => {
                put(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let bytes = [
            8, 0x96, 1, 0x12, 3, b'a', b'b', b'c', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        assert_eq!(write(&read(&bytes).unwrap()), bytes);
        assert!(read(b"\x0a\x05abc").is_none());
        assert!(read(b"abc").is_none());
    }

    #[test]
    fn fields_within_fields_are_changed_and_all_stays_protobuf() {
        let inner = [0x0a, 2, b'h', b'i', 0x10, 7];
        let mut whole = vec![0x0a, 6];
        whole.extend_from_slice(&inner);
        let mut chance = Chance::new(3);
        let mut readable = 0;
        for _ in 0..500 {
            let mut input = whole.clone();
            mutate_message(&mut chance, &mut input);
            readable += usize::from(read(&input).is_some());
        }
        assert!(readable > 400, "{readable}");
    }
}
