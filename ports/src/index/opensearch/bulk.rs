//! Writing: bulks, and what became of each of their documents.

use super::{OpenSearchIndex, document};
use crate::index::{Collection, Document, IndexError, Outcome};
use bytes::Bytes;
use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Bulks are sent in parts of about so many bytes.
const PART: usize = 8 << 20;

/// A larger document (as JSON) is poison, bytes: OpenSearch takes requests of 100 MiB.
const MAX_DOCUMENT: usize = 100_000_000;

/// How often the indices of a bulk may vanish before it is given up.
const VANISHED: usize = 3;

/// How documents are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Create,
    Put,
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<serde_json::Map<String, Value>>,
}

/// What became of one line.
#[derive(Deserialize)]
pub(super) struct BulkItem {
    pub(super) status: u16,
    #[serde(rename = "_index")]
    index: String,
    error: Option<Value>,
}

/// A document on its way: its place among the documents of the call, its index, its lines.
struct Line {
    place: usize,
    index: String,
    bytes: Vec<u8>,
}

impl OpenSearchIndex {
    pub(super) async fn write(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
        write: Write,
    ) -> Result<Vec<Outcome>, IndexError> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; documents.len()];
        let mut lines = Vec::with_capacity(documents.len());
        for (place, document) in documents.into_iter().enumerate() {
            match self.line(collection, org, document, place, write) {
                Ok(line) => lines.push(line),
                Err(poison) => outcomes[place] = Some(Outcome::Poison(poison)),
            }
        }
        for _ in 0..VANISHED {
            let indices: BTreeSet<&str> = lines.iter().map(|line| line.index.as_str()).collect();
            for index in indices {
                self.ensure(index).await?;
            }
            lines = self.send_lines(lines, &mut outcomes).await?;
            if lines.is_empty() {
                break;
            }
        }
        if let Some(line) = lines.first() {
            return Err(IndexError::Unavailable(format!(
                "opensearch index {} vanishes as soon as it is made",
                line.index
            )));
        }
        let missing =
            || IndexError::Unavailable(format!("{} did not answer for every document", self.http));
        outcomes
            .into_iter()
            .map(|outcome| outcome.ok_or_else(missing))
            .collect()
    }

    /// A document as lines of a bulk, or why it is poison.
    fn line(
        &self,
        collection: Collection,
        org: &str,
        document: Document,
        place: usize,
        write: Write,
    ) -> Result<Line, String> {
        if let Some(poison) = document.poison(collection) {
            return Err(poison);
        }
        let index = self.index_name(collection, document.bucket);
        let id = document::key(org, &document.id);
        let action = match write {
            Write::Create => json!({ "create": { "_index": index, "_id": id } }),
            Write::Put => {
                // OpenSearch gives version 1 to what was created; version 0 must replace that.
                let version = i64::try_from(document.version)
                    .unwrap_or(i64::MAX)
                    .saturating_add(1);
                json!({ "index": { "_index": index, "_id": id, "version": version, "version_type": "external_gte" } })
            }
        };
        let mut bytes = action.to_string().into_bytes();
        bytes.push(b'\n');
        let begin = bytes.len();
        serde_json::to_writer(&mut bytes, &document::Stored::new(org, document))
            .map_err(|error| error.to_string())?;
        let size = bytes.len() - begin;
        if size > MAX_DOCUMENT {
            return Err(format!(
                "document of {size} bytes, at most {MAX_DOCUMENT} are taken"
            ));
        }
        bytes.push(b'\n');
        Ok(Line {
            place,
            index,
            bytes,
        })
    }

    /// Sends lines in parts; gives back those whose index has vanished.
    async fn send_lines(
        &self,
        lines: Vec<Line>,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<Vec<Line>, IndexError> {
        let mut again = Vec::new();
        let mut part: Vec<Line> = Vec::new();
        let mut size = 0;
        for line in lines {
            if size + line.bytes.len() > PART && !part.is_empty() {
                again.extend(
                    self.send_part(std::mem::take(&mut part), size, outcomes)
                        .await?,
                );
                size = 0;
            }
            size += line.bytes.len();
            part.push(line);
        }
        if !part.is_empty() {
            again.extend(self.send_part(part, size, outcomes).await?);
        }
        Ok(again)
    }

    async fn send_part(
        &self,
        part: Vec<Line>,
        size: usize,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<Vec<Line>, IndexError> {
        let mut body = Vec::with_capacity(size);
        part.iter()
            .for_each(|line| body.extend_from_slice(&line.bytes));
        let items = self.bulk(body.into(), part.len()).await?;
        let mut again = Vec::new();
        for (line, item) in part.into_iter().zip(items) {
            match item.status {
                200 | 201 => outcomes[line.place] = Some(Outcome::Written),
                409 => outcomes[line.place] = Some(Outcome::Exists),
                404 => {
                    self.forget(&line.index);
                    again.push(line);
                }
                _ => return Err(self.item_failed(item, "write to")),
            }
        }
        Ok(again)
    }

    /// Sends a bulk of so many actions, and returns what became of each.
    pub(super) async fn bulk(
        &self,
        body: Bytes,
        actions: usize,
    ) -> Result<Vec<BulkItem>, IndexError> {
        let answer = self
            .http
            .send_bytes(Method::Post, "/_bulk", &[], Some(body))
            .await?;
        let answer: BulkAnswer = answer.done(&self.http, "bulk")?.json(&self.http)?;
        let odd = |what| IndexError::Unavailable(format!("{} {what}", self.http));
        if answer.items.len() != actions {
            return Err(odd("did not answer for every document"));
        }
        let item = |item: serde_json::Map<String, Value>| {
            let item = item.into_iter().next();
            item.and_then(|(_, item)| serde_json::from_value(item).ok())
                .ok_or_else(|| odd("gave an answer that is none to a bulk"))
        };
        answer.items.into_iter().map(item).collect()
    }

    pub(super) fn item_failed(&self, item: BulkItem, doing: &str) -> IndexError {
        let error = item.error.unwrap_or_default().to_string();
        let what = format!("{doing} index {}", item.index);
        self.http.failure(item.status, error.as_bytes(), &what)
    }
}
