//! Prints what the parts of the protocol cost: `cargo run --release -p nublar-wire --example figures`.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nublar_schemas::agent::{MessageList, VeloMessage, VqlRequest, VqlResponse};
use nublar_wire::{
    AgentKey, AgentSession, Compression, Envelope, OutboundSession, Plaintext, SERVER_NAME,
    ServerKey, ServerKeys, message_list, messages,
};
use prost::Message as _;

const LIMIT: usize = 16 << 20;
const MESSAGES: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let server = ServerKey::generate()?;
    let keys = ServerKeys::from(server.clone());
    let agent = AgentKey::generate()?;
    let session = AgentSession::new(&agent, server.public_key())?;

    let list = thousand_rows()?;
    let plain = Plaintext::new(
        std::slice::from_ref(&list),
        Compression::Zlib,
        "nonce",
        1_700_000_000_000_000,
    );
    let body = session.seal(&plain)?;
    println!(
        "a post of 1,000 rows in {MESSAGES} messages: list {} bytes, body {} bytes",
        list.len(),
        body.len()
    );

    let envelope = Envelope::parse(body.clone())?;
    let unverified = envelope.unwrap_session(&keys)?;
    let verified = unverified.verify(agent.public_key())?;
    let outbound = OutboundSession::new(&server, agent.public_key(), SERVER_NAME)?;
    let task = [Bytes::from(vec![b'q'; 4096])];

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
    measure("parse the envelope", || Envelope::parse(body.clone()));
    measure("open it (hmac, aes)", || verified.open(&envelope));
    let packed = verified.open(&envelope)?;
    measure("inflate its list", || {
        packed.lists(LIMIT).collect::<Result<Vec<_>, _>>()
    });
    let walk = measure("walk its messages", || {
        messages(list.clone())
            .map(|message| message.map(|m| m.urgent))
            .collect::<Result<Vec<_>, _>>()
    });
    let decode = measure("decode its messages instead", || {
        MessageList::decode(list.clone())
    });
    measure("all of it: parse, open, inflate, walk", || {
        let envelope = Envelope::parse(body.clone())?;
        let packed = verified.open(&envelope)?;
        let mut count = 0;
        for list in packed.lists(LIMIT) {
            for message in messages(list?) {
                count += message?.bytes.len();
            }
        }
        Ok::<_, nublar_wire::WireError>(count)
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

/// Rows of about a kilobyte, as an agent sends them without compression of its own.
fn thousand_rows() -> Result<Bytes, Box<dyn Error>> {
    let mut out = Vec::new();
    for part in 0..MESSAGES {
        let first = part * 1000 / MESSAGES;
        let last = (part + 1) * 1000 / MESSAGES;
        let rows: Vec<_> = (first..last).map(row).collect();
        let response = VqlResponse {
            jsonl_response: rows.concat(),
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
        let message = VeloMessage {
            session_id: "F.DC2M4H5TA9T34".into(),
            vql_response: Some(response),
            ..Default::default()
        };
        out.push(message.encode_to_vec().into());
    }
    Ok(message_list(&out))
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
