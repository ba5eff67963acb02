//! Documents as OpenSearch keeps them.

use super::super::{Bucket, Collection, Document};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest `_id` that OpenSearch takes, bytes.
const MAX_KEY: usize = 512;

/// Values up to this length are indexed as they are, longer ones by their hash, bytes.
const MAX_VALUE: usize = 256;

/// Bodies are kept in pieces of at most so many bytes: OpenSearch limits the length of a string.
/// A multiple of 3, so that no piece of Base64 is padded but the last.
const PIECE: usize = 12 << 20;

/// The longest indexed word, bytes. Lucene takes 32,766.
const MAX_WORD: usize = 32_000;

/// A document's `_id`: unique for org and id.
pub(super) fn key(org: &str, id: &str) -> String {
    let plain = org.len() + 1 + id.len() <= MAX_KEY && !org.contains('/') && !org.is_empty();
    match plain {
        true => format!("{org}/{id}"),
        // Cannot be taken for a plain one: no org is empty there.
        false => format!("/{}", hash(&[org, id])),
    }
}

/// What a field is found by: equal for equal values only, and short enough for a term.
pub(super) fn exact(value: &str) -> String {
    match value.len() <= MAX_VALUE && !value.starts_with('#') {
        true => value.to_owned(),
        false => format!("#{}", hash(&[value])),
    }
}

/// A word as it is indexed.
pub(super) fn word(word: &str) -> &str {
    let mut end = word.len().min(MAX_WORD);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    &word[..end]
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// A document's `_source`.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    org: String,
    id: String,
    client: String,
    flow: String,
    source: String,
    order: i64,
    /// The text, cut at every space: joined again it is the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<String>,
    /// Hexadecimal, separated by spaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hashes: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    /// The values whose fields hold only their hash or their beginning.
    #[serde(default, skip_serializing_if = "Whole::is_empty")]
    whole: Whole,
    /// The body when it is text, which compresses better than Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// Any other body, in pieces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    body_base64: Vec<String>,
}

#[derive(Serialize, Deserialize, Default)]
struct Whole {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    org: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Whole {
    fn is_empty(&self) -> bool {
        let Self {
            org,
            client,
            flow,
            source,
            text,
        } = self;
        [org, client, flow, source, text]
            .iter()
            .all(|value| value.is_none())
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A body as text, where that is short: as JSON no longer than twice the bytes.
fn as_text(body: &[u8]) -> Option<&str> {
    let escaped = |byte: &u8| *byte < b' ' && !matches!(byte, b'\n' | b'\r' | b'\t');
    let short = body.len() <= PIECE && !body.iter().any(escaped);
    short.then(|| std::str::from_utf8(body).ok()).flatten()
}

impl Stored {
    pub(super) fn new(org: &str, document: Document) -> Self {
        let indexed = |value: String| match exact(&value) {
            same if same == value => (value, None),
            short => (short, Some(value)),
        };
        let (org, whole_org) = indexed(org.to_owned());
        let (client, whole_client) = indexed(document.client);
        let (flow, whole_flow) = indexed(document.flow);
        let (source, whole_source) = indexed(document.source);
        let words: Vec<String> = match document.text.is_empty() {
            true => Vec::new(),
            false => document
                .text
                .split(' ')
                .map(|each| word(each).to_owned())
                .collect(),
        };
        let cut = document.text.split(' ').any(|each| each.len() > MAX_WORD);
        let (body, body_base64) = match as_text(&document.body) {
            Some(text) => (Some(text.to_owned()), Vec::new()),
            None => (
                None,
                document
                    .body
                    .chunks(PIECE)
                    .map(|piece| STANDARD.encode(piece))
                    .collect(),
            ),
        };
        Self {
            org,
            id: document.id,
            client,
            flow,
            source,
            order: document.order,
            words,
            hashes: document
                .hashes
                .iter()
                .map(|hash| format!("{hash:x}"))
                .collect::<Vec<_>>()
                .join(" "),
            version: document.version,
            size: document.size,
            whole: Whole {
                org: whole_org,
                client: whole_client,
                flow: whole_flow,
                source: whole_source,
                text: cut.then_some(document.text),
            },
            body,
            body_base64,
        }
    }
}

/// The document, none when it is of another org or was not written by this adapter. Its body is
/// empty when it was not asked for.
pub(super) fn document_of(stored: Stored, org: &str, bucket: Option<Bucket>) -> Option<Document> {
    if stored.whole.org.as_ref().unwrap_or(&stored.org) != org {
        return None;
    }
    let hashes: Result<Vec<u64>, _> = stored
        .hashes
        .split_whitespace()
        .map(|hash| u64::from_str_radix(hash, 16))
        .collect();
    let body = match stored.body {
        Some(text) => Bytes::from(text),
        None => {
            let pieces: Result<Vec<Vec<u8>>, _> = stored
                .body_base64
                .iter()
                .map(|piece| STANDARD.decode(piece))
                .collect();
            Bytes::from(pieces.ok()?.concat())
        }
    };
    Some(Document {
        id: stored.id,
        bucket,
        client: stored.whole.client.unwrap_or(stored.client),
        flow: stored.whole.flow.unwrap_or(stored.flow),
        source: stored.whole.source.unwrap_or(stored.source),
        order: stored.order,
        text: stored.whole.text.unwrap_or_else(|| stored.words.join(" ")),
        hashes: hashes.ok()?,
        version: stored.version,
        size: stored.size,
        body,
    })
}

/// The bucket that an index of a collection keeps; none when it is not one of its indices.
#[allow(
    clippy::option_option,
    reason = "an index without bucket is not the same as no index"
)]
pub(super) fn collection_of_index(
    prefix: &str,
    collection: Collection,
    index: &str,
) -> Option<Option<Bucket>> {
    let rest = index
        .strip_prefix(prefix)?
        .strip_prefix(collection.name())?;
    match (collection.weekly(), rest) {
        (false, "") => Some(None),
        (true, "-undated") => Some(Some(Bucket::Undated)),
        (true, week) => Some(Some(Bucket::Week(week.strip_prefix("-w")?.parse().ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn document(source: &str, text: &str, body: &'static [u8]) -> Document {
        Document {
            id: "i".to_owned(),
            bucket: None,
            client: String::new(),
            flow: String::new(),
            source: source.to_owned(),
            order: -1,
            text: text.to_owned(),
            hashes: vec![0, u64::MAX],
            version: 7,
            size: 3,
            body: Bytes::from_static(body),
        }
    }

    fn through_json(org: &str, document: Document) -> Document {
        let json = serde_json::to_vec(&Stored::new(org, document)).unwrap();
        document_of(serde_json::from_slice(&json).unwrap(), org, None).unwrap()
    }

    #[test]
    fn documents_come_back_as_they_were() {
        let long = "ü".repeat(20_000);
        for source in ["", "a/b c", "#x", &long] {
            for text in ["", " ", "a", "a  b ", &format!("x {long}")] {
                for body in [b"{}".as_slice(), b"", b"\xff\x00", b"\0"] {
                    let document = document(source, text, body);
                    assert_eq!(through_json("root", document.clone()), document);
                    assert_eq!(through_json(&long, document.clone()), document);
                }
            }
        }
    }

    #[test]
    fn a_large_body_is_cut_into_pieces() {
        let body: Bytes = (0..=255)
            .cycle()
            .take(2 * PIECE + 1)
            .collect::<Vec<u8>>()
            .into();
        let stored = Stored::new(
            "root",
            Document {
                body: body.clone(),
                ..document("", "", b"")
            },
        );
        assert_eq!(stored.body_base64.len(), 3);
        assert!(document_of(stored, "root", None).unwrap().body == body);
    }

    #[test]
    fn another_org_gets_nothing() {
        let stored = Stored::new("a", document("", "", b""));
        assert_eq!(document_of(stored, "b", None), None);
    }

    #[test]
    fn keys_and_terms_are_short_and_unlike() {
        let (long, longer) = ("x".repeat(512), "x".repeat(513));
        let keys = [
            key("a/b", "c"),
            key("a", "b/c"),
            key("", "a/c"),
            key("a", &long),
            key("a", &longer),
            key("", ""),
        ];
        let terms = [
            exact(&long),
            exact(&longer),
            exact(&format!("#{}", hash(&[&long]))),
            exact("x"),
        ];
        for list in [keys.as_slice(), &terms] {
            assert!(list.iter().all(|each| each.len() <= MAX_KEY));
            assert_eq!(
                list.iter().collect::<std::collections::HashSet<_>>().len(),
                list.len()
            );
        }
    }

    #[test]
    fn buckets_are_read_from_names() {
        let of = |collection, index| collection_of_index("p-", collection, index);
        assert_eq!(
            of(Collection::Rows, "p-rows-w2900"),
            Some(Some(Bucket::Week(2900)))
        );
        assert_eq!(
            of(Collection::Rows, "p-rows-undated"),
            Some(Some(Bucket::Undated))
        );
        assert_eq!(of(Collection::Flows, "p-flows"), Some(None));
        assert_eq!(of(Collection::Flows, "p-flows-w1"), None);
        assert_eq!(of(Collection::Rows, "p-rows"), None);
    }
}
