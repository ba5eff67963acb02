//! Prints what the parts of the protocol cost: `cargo run --release -p nublar-wire --example figures`.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor};
use nublar_schemas::agent::{MessageList, VeloMessage, VqlRequest, VqlResponse};
use nublar_wire::{
    AgentKey, AgentSession, Compression, Envelope, OutboundSession, Plaintext, SERVER_NAME,
    ServerKey, ServerKeys, Session, WireError, message_list, messages,
};
use prost::Message as _;

const LIMIT: usize = 16 << 20;
const MESSAGES: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let server = ServerKey::generate()?;
    let keys = ServerKeys::from(server.clone());
    let agent = AgentKey::generate()?;
    let session = AgentSession::new(&agent, server.public_key())?;
    let outbound = OutboundSession::new(&server, agent.public_key(), SERVER_NAME)?;
    let task = [Bytes::from(vec![b'q'; 4096])];

    let envelope = Envelope::parse(small_body(&session, &task)?)?;
    let unverified = envelope.unwrap_session(&keys)?;
    let verified = unverified.verify(agent.public_key())?;
    measure("unwrap a session (rsa decryption)", || {
        envelope.unwrap_session(&keys)
    });
    measure("verify a session (rsa verification)", || {
        unverified.verify(agent.public_key())
    });
    measure("make an outbound session (rsa signature)", || {
        OutboundSession::new(&server, agent.public_key(), SERVER_NAME)
    });
    measure("seal an answer of 4 KiB", || {
        outbound.seal(&task, "nonce", 1)
    });

    for compressed in [false, true] {
        let list = thousand_rows(compressed)?;
        let lists = std::slice::from_ref(&list);
        let body = session.seal(&Plaintext::new(lists, Compression::Zlib, "nonce", 1))?;
        println!(
            "\n1,000 rows of 1 KB in {MESSAGES} messages, {}: list {} bytes, body {} bytes",
            if compressed {
                "compressed by the agent"
            } else {
                "as text"
            },
            list.len(),
            body.len()
        );
        receive(&verified, list, body)?;
    }
    Ok(())
}

/// A small body of an agent.
fn small_body(session: &AgentSession, messages: &[Bytes]) -> Result<Bytes, WireError> {
    session.seal(&Plaintext::new(
        &[message_list(messages)],
        Compression::Zlib,
        "nonce",
        1,
    ))
}

/// What one body costs a frontend that knows its session.
fn receive(session: &Session, list: Bytes, body: Bytes) -> Result<(), WireError> {
    let envelope = Envelope::parse(body.clone())?;
    let packed = session.open(&envelope)?;
    measure("parse the envelope", || Envelope::parse(body.clone()));
    measure("open it (hmac, aes)", || session.open(&envelope));
    measure("inflate its list", || {
        packed.lists(LIMIT).collect::<Result<Vec<_>, _>>()
    });
    let walk = measure("walk its messages", || {
        messages(list.clone())
            .map(|m| m.map(|m| m.urgent))
            .collect::<Result<Vec<_>, _>>()
    });
    let decode = measure("(decode them all instead)", || {
        MessageList::decode(list.clone())
    });
    measure("all of it: parse, open, inflate, walk", || {
        let envelope = Envelope::parse(body.clone())?;
        let mut bytes = 0;
        for list in session.open(&envelope)?.lists(LIMIT) {
            for message in messages(list?) {
                bytes += message?.bytes.len();
            }
        }
        Ok::<_, WireError>(bytes)
    });
    println!(
        "walking costs 1/{:.0} of decoding",
        decode.as_secs_f64() / walk.as_secs_f64()
    );
    Ok(())
}

/// The best of many rounds, which is what the work costs when nothing disturbs it.
fn measure<T, E>(what: &str, mut work: impl FnMut() -> Result<T, E>) -> Duration {
    let mut best = Duration::MAX;
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end {
        let start = Instant::now();
        let result = black_box(work());
        best = best.min(start.elapsed());
        assert!(result.is_ok(), "{what}");
    }
    println!("{:>10.2} us  {what}", best.as_secs_f64() * 1e6);
    best
}

/// Rows of a kilobyte, as an agent sends them with or without compression of its own.
fn thousand_rows(compressed: bool) -> Result<Bytes, Box<dyn Error>> {
    let mut out = Vec::new();
    for part in 0..MESSAGES {
        let first = part * 1000 / MESSAGES;
        let last = (part + 1) * 1000 / MESSAGES;
        let rows: Vec<_> = (first..last).map(row).collect();
        let mut response = VqlResponse {
            query: Some(VqlRequest {
                name: "Custom.Rows/Numbers".into(),
                ..Default::default()
            }),
            columns: ["n", "name", "hash", "text"].map(String::from).to_vec(),
            total_rows: last - first,
            query_start_row: first,
            timestamp: 1_700_000_000_000_000 + part,
            part,
            ..Default::default()
        };
        if compressed {
            response.uncompressed_size = rows.concat().len() as u64;
            response.compressed_json_response = deflate(rows.concat().as_bytes())?;
        } else {
            response.jsonl_response = rows.concat();
        }
        let message = VeloMessage {
            session_id: "F.DC2M4H5TA9T34".into(),
            vql_response: Some(response),
            ..Default::default()
        };
        out.push(message.encode_to_vec().into());
    }
    Ok(message_list(&out))
}

fn deflate(bytes: &[u8]) -> Result<Bytes, Box<dyn Error>> {
    let mut compressor = Compressor::new(CompressionLvl::default());
    let mut out = vec![0; compressor.zlib_compress_bound(bytes.len())];
    let len = compressor.zlib_compress(bytes, &mut out)?;
    out.truncate(len);
    Ok(out.into())
}

fn row(n: u64) -> String {
    // Half of it is noise that compresses badly, half of it text that compresses well.
    let noise: String = (0..16)
        .map(|i| {
            format!(
                "{:016x}",
                (n * 16 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        })
        .collect();
    let text = "C:\\Windows\\System32\\drivers\\etc ".repeat(22);
    format!("{{\"n\":{n},\"name\":\"row-{n}\",\"hash\":\"{noise}\",\"text\":\"{text}\"}}\n")
}
