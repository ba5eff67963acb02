//! What stands in a body that was opened: lists, compressed or not, their messages, and what a
//! worker makes of them.

use crate::captured::CAPTURED;
use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use nublar_core::hidden::HiddenNames;
use nublar_core::ids::ClientKey;
use nublar_core::ingest::plan;
use nublar_fuzz::{Chance, LARGEST, Target, behaviour, fuzz, mutate, mutate_message};
use nublar_schemas::agent::{MessageList, PackedMessageList};
use nublar_schemas::records::{AgentMessage, Header, Messages};
use nublar_wire::{Packed, message_list, messages};
use prost::Message;

/// What one list may inflate to here.
const LIMIT: usize = 1 << 20;

/// The recorded bodies as they are before they are encrypted.
fn seeds() -> Vec<Vec<u8>> {
    let bodies = CAPTURED.bodies.iter().map(|(.., packed)| {
        let lists = packed.lists(LIMIT).map(Result::unwrap);
        let lists: Vec<Bytes> = lists
            .map(|list| {
                let all: Vec<_> = messages(list)
                    .map(|message| message.unwrap().bytes)
                    .collect();
                deflated(&message_list(&all))
            })
            .collect();
        PackedMessageList {
            message_list: lists,
            compression: 1,
            nonce: packed.nonce().to_owned(),
            timestamp: packed.timestamp_us(),
        }
        .encode_to_vec()
    });
    bodies.filter(|body| body.len() <= LARGEST).collect()
}

fn deflated(list: &[u8]) -> Bytes {
    let mut compressor = Compressor::new(CompressionLvl::new(1).unwrap());
    let mut out = vec![0; compressor.zlib_compress_bound(list.len())];
    let length = compressor.zlib_compress(list, &mut out).unwrap();
    out.truncate(length);
    out.into()
}

fn inflated(list: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; LIMIT];
    let length = Decompressor::new().zlib_decompress(list, &mut out).ok()?;
    out.truncate(length);
    Some(out)
}

/// Changes messages inside a list that stays a sound zlib stream; now and then anything.
fn change(chance: &mut Chance, input: &mut Vec<u8>) {
    let packed = PackedMessageList::decode(&input[..]).ok();
    let Some(mut packed) = packed.filter(|packed| !packed.message_list.is_empty()) else {
        return mutate(chance, input, &[]);
    };
    match chance.below(10) {
        0 => return mutate_message(chance, input),
        1 => return mutate(chance, input, &[]),
        _ => {}
    }
    let place = chance.below(packed.message_list.len());
    let list = &mut packed.message_list[place];
    if let Some(mut plain) = inflated(list) {
        mutate_message(chance, &mut plain);
        *list = if chance.below(400) == 0 {
            deflated(&vec![0; LIMIT + 1])
        } else {
            deflated(&plain)
        };
    }
    *input = packed.encode_to_vec();
}

fn check(input: &[u8]) -> u64 {
    let packed = match Packed::parse(Bytes::copy_from_slice(input)) {
        Ok(packed) => packed,
        Err(error) => return behaviour(&["packed", &error.to_string()]),
    };
    let mut behaved = Vec::new();
    for list in packed.lists(LIMIT) {
        let list = match list {
            Ok(list) => list,
            Err(error) => {
                behaved.push(error.to_string());
                continue;
            }
        };
        assert!(list.len() <= LIMIT, "a list of {} bytes", list.len());
        let mut cut = Vec::new();
        for message in messages(list.clone()) {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    behaved.push(error.to_string());
                    break;
                }
            };
            behaved.push(format!("{:?}", message.kind));
            // Another decoder reads the same in it, or nothing.
            if let Ok(decoded) = message.decode() {
                assert_eq!(decoded.session_id, message.session_id());
                assert_eq!(decoded.urgent, message.urgent);
            }
            cut.push(message);
        }
        if let Ok(whole) = MessageList::decode(list) {
            assert_eq!(whole.job.len(), cut.len(), "messages were passed over");
        }
        behaved.extend(stored(cut));
    }
    behaved.dedup();
    behaved.truncate(6);
    behaviour(&behaved.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What a worker makes of these messages: each is stored or refused, or means nothing.
fn stored(cut: Vec<nublar_wire::Message>) -> Vec<String> {
    let header = Header {
        client: CAPTURED.agent.client_id().to_owned(),
        generation: 1,
        at_us: 1_795_515_000_000_000,
        ..Header::default()
    };
    let key = ClientKey::of(&header).unwrap();
    let messages = cut.into_iter().map(|message| AgentMessage {
        session: message.session_id().to_owned(),
        bytes: message.bytes,
        object: None,
    });
    let record = Messages {
        header,
        messages: messages.collect(),
        ..Messages::default()
    };
    let names = HiddenNames::new(["hidden"]);
    let planned = plan(&key, &record, &names);
    assert_eq!(planned, plan(&key, &record, &names), "the same twice");
    assert!(planned.parts.len() + planned.refused.len() <= record.messages.len());
    let refused = planned.refused.iter().map(|refused| refused.reason);
    refused.map(str::to_owned).collect()
}

#[test]
fn lists_are_cut_into_the_messages_that_every_decoder_sees() {
    let ran = fuzz(&Target {
        name: "messages",
        seeds: seeds(),
        change: &change,
        check: &check,
    });
    assert!(ran.behaviours > 50, "{ran:?}");
}
