//! The index on OpenSearch.
//!
//! - A collection is the index `<prefix><collection>`, a bucket of a weekly one
//!   `<prefix><collection>-w<week>` or `<prefix><collection>-undated`: plain indices, made
//!   explicitly before the first document goes in, with a fixed mapping. There is a template for
//!   all of them too, so that one that is made behind our back has the same.
//! - Orgs share the indices. An org is part of a document's `_id` and of every query, both set in
//!   one place ([`document::key`] and [`request::scoped`]).
//! - Words of a text are found by their first 32,000 bytes.

mod document;
mod http;
mod request;

use self::document::{collection_of_index, document_of};
use self::http::{Http, reason};
use super::limits::check_bucket;
use super::{Bucket, Collection, Document, Index, IndexError, Outcome, Page, Query};
use async_trait::async_trait;
use bytes::Bytes;
use opensearch::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bulks are sent in parts of about so many bytes.
const PART: usize = 8 << 20;

/// A larger document (as JSON) is poison, bytes: OpenSearch takes requests of 100 MiB.
const MAX_DOCUMENT: usize = 100_000_000;

/// Documents asked for at once, with and without bodies; longer pages are put together.
const CHUNK: usize = 100;
const CHUNK_WITHOUT_BODIES: usize = 1_000;

/// How often the indices of a bulk may vanish before it is given up.
const VANISHED: usize = 3;

/// How to reach OpenSearch and what to make there.
#[derive(Clone, PartialEq, Eq)]
pub struct OpenSearchConfig {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// User, none when OpenSearch asks for none.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Certificates (PEM) that the server's certificate may be signed by, beside those that the
    /// operating system trusts.
    pub ca: Option<String>,
    /// What the names of the indices begin with: `[a-z0-9._-]*`. Installations that share a
    /// cluster need different ones.
    pub prefix: String,
    /// Primary shards of a new index.
    pub shards: u16,
    /// Replicas of each shard of a new index.
    pub replicas: u16,
    /// How soon documents are seen by queries without a refresh.
    pub refresh_interval: Duration,
}

impl Default for OpenSearchConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9200".to_owned(),
            user: None,
            password: None,
            ca: None,
            prefix: "nublar-".to_owned(),
            shards: 1,
            replicas: 1,
            refresh_interval: Duration::from_secs(5),
        }
    }
}

/// The password is left out.
impl fmt::Debug for OpenSearchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSearchConfig")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("ca", &self.ca.is_some())
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("replicas", &self.replicas)
            .field("refresh_interval", &self.refresh_interval)
            .finish()
    }
}

/// The index on OpenSearch.
pub struct OpenSearchIndex {
    config: OpenSearchConfig,
    http: Http,
    /// Indices that are there and have our mapping.
    known: Mutex<HashSet<String>>,
}

/// How documents are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Create,
    Put,
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct BulkItem {
    status: u16,
    #[serde(rename = "_index")]
    index: String,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_source")]
    source: Option<document::Stored>,
}

#[derive(Deserialize)]
struct SearchAnswer {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Found>,
}

#[derive(Deserialize)]
struct CountAnswer {
    count: u64,
    #[serde(rename = "_shards")]
    shards: Shards,
}

#[derive(Deserialize)]
struct Shards {
    failed: u32,
}

/// A document on its way: its place among the documents of the call, its index, its lines.
struct Line {
    place: usize,
    index: String,
    bytes: Vec<u8>,
}

impl OpenSearchIndex {
    /// Prepares the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`IndexError::Refused`] when the address, the certificates or the prefix are wrong.
    pub fn new(config: OpenSearchConfig) -> Result<Self, IndexError> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if !config.prefix.bytes().all(plain) || config.prefix.starts_with(['.', '_', '-']) {
            return Err(IndexError::Refused(format!(
                "opensearch index prefix {:?} must begin with a letter or digit and be of a-z, 0-9, '.', '_' and '-'",
                config.prefix
            )));
        }
        let http = Http::new(&config)?;
        Ok(Self {
            config,
            http,
            known: Mutex::default(),
        })
    }

    fn index_name(&self, collection: Collection, bucket: Option<Bucket>) -> String {
        let (prefix, name) = (&self.config.prefix, collection.name());
        match bucket {
            None => format!("{prefix}{name}"),
            Some(Bucket::Week(week)) => format!("{prefix}{name}-w{week}"),
            Some(Bucket::Undated) => format!("{prefix}{name}-undated"),
        }
    }

    /// The indices of a collection, as they are named in a path.
    fn index_names(&self, collection: Collection) -> String {
        let (prefix, name) = (&self.config.prefix, collection.name());
        match collection.weekly() {
            true => format!("{prefix}{name}-w*,{prefix}{name}-undated"),
            false => format!("{prefix}{name}"),
        }
    }

    /// Makes an index, or makes sure that the one that exists has our mapping.
    async fn ensure(&self, index: &str) -> Result<(), IndexError> {
        if self.known().contains(index) {
            return Ok(());
        }
        let body =
            json!({ "settings": request::settings(&self.config), "mappings": request::mappings() });
        let answer = self
            .http
            .send(Method::Put, &format!("/{index}"), &[], Some(&body))
            .await?;
        if answer.status == 400
            && reason(&answer.body).contains("resource_already_exists_exception")
        {
            let mappings = request::mappings();
            let answer = self
                .http
                .send(
                    Method::Put,
                    &format!("/{index}/_mapping"),
                    &[],
                    Some(&mappings),
                )
                .await?;
            answer.done(&self.http, &format!("keep the mapping of index {index}"))?;
        } else {
            answer.done(&self.http, &format!("make index {index}"))?;
        }
        self.known().insert(index.to_owned());
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(
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
            Write::Put if i64::try_from(document.version).is_err() => {
                return Err(format!(
                    "version {} is larger than opensearch can count",
                    document.version
                ));
            }
            Write::Put => {
                json!({ "index": { "_index": index, "_id": id, "version": document.version, "version_type": "external_gte" } })
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
        let answer = self
            .http
            .send_bytes(Method::Post, "/_bulk", &[], Some(Bytes::from(body)))
            .await?;
        let answer: BulkAnswer = answer.done(&self.http, "bulk")?.json(&self.http)?;
        if answer.items.len() != part.len() {
            return Err(IndexError::Unavailable(format!(
                "{} did not answer for every document",
                self.http
            )));
        }
        let mut again = Vec::new();
        for (line, item) in part.into_iter().zip(answer.items) {
            let item = item
                .into_iter()
                .next()
                .map(|(_, item)| serde_json::from_value::<BulkItem>(item));
            let Some(Ok(item)) = item else {
                return Err(IndexError::Unavailable(format!(
                    "{} gave an answer that is none to a bulk",
                    self.http
                )));
            };
            match item.status {
                200 | 201 => outcomes[line.place] = Some(Outcome::Written),
                409 => outcomes[line.place] = Some(Outcome::Exists),
                404 => {
                    self.known().remove(&line.index);
                    again.push(line);
                }
                status => {
                    let error = item.error.unwrap_or_default().to_string();
                    return Err(self.http.failure(
                        status,
                        error.as_bytes(),
                        &format!("write to index {}", item.index),
                    ));
                }
            }
        }
        Ok(again)
    }

    /// The indices that a query looks at, none when it cannot match anything.
    fn searched(&self, collection: Collection, query: &Query) -> Option<String> {
        match (collection.weekly(), query.bucket) {
            (_, None) => Some(self.index_names(collection)),
            (true, bucket) => Some(self.index_name(collection, bucket)),
            (false, Some(_)) => None,
        }
    }

    fn found(
        &self,
        collection: Collection,
        org: &str,
        found: Found,
    ) -> Result<Document, IndexError> {
        let index = found.index;
        let foreign = || {
            IndexError::Refused(format!(
                "opensearch index {index} holds a document that is not ours, remove it"
            ))
        };
        let bucket =
            collection_of_index(&self.config.prefix, collection, &index).ok_or_else(foreign)?;
        let document = found
            .source
            .and_then(|source| document_of(source, org, bucket));
        document.ok_or_else(foreign)
    }
}

/// Missing indices are as good as empty ones.
const LENIENT: (&str, &str) = ("ignore_unavailable", "true");

#[async_trait]
impl Index for OpenSearchIndex {
    async fn prepare(&self) -> Result<(), IndexError> {
        let patterns: Vec<String> = Collection::ALL
            .iter()
            .flat_map(|collection| {
                self.index_names(*collection)
                    .split(',')
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        let name = format!("{}documents", self.config.prefix);
        let body = json!({
            "index_patterns": patterns,
            "priority": 200,
            "template": { "settings": request::settings(&self.config), "mappings": request::mappings() },
        });
        let answer = self
            .http
            .send(
                Method::Put,
                &format!("/_index_template/{name}"),
                &[],
                Some(&body),
            )
            .await?;
        answer.done(&self.http, &format!("keep index template {name}"))?;
        for collection in Collection::ALL
            .into_iter()
            .filter(|collection| !collection.weekly())
        {
            self.ensure(&self.index_name(collection, None)).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        self.write(collection, org, documents, Write::Create).await
    }

    async fn put(
        &self,
        collection: Collection,
        org: &str,
        documents: Vec<Document>,
    ) -> Result<Vec<Outcome>, IndexError> {
        self.write(collection, org, documents, Write::Put).await
    }

    async fn get(
        &self,
        collection: Collection,
        org: &str,
        bucket: Option<Bucket>,
        id: &str,
    ) -> Result<Option<Document>, IndexError> {
        check_bucket(collection, bucket)?;
        let index = self.index_name(collection, bucket);
        let path = format!("/{index}/_doc/{}", http::encoded(&document::key(org, id)));
        let answer = self
            .http
            .send(Method::Get, &path, &[("realtime", "true")], None)
            .await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let found: Found = answer
            .done(&self.http, &format!("get from index {index}"))?
            .json(&self.http)?;
        self.found(collection, org, found).map(Some)
    }

    async fn query(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<Page, IndexError> {
        let Some(indices) = self.searched(collection, query) else {
            return Ok(Page::cut(Vec::new(), query.limit));
        };
        let mut documents: Vec<Document> = Vec::new();
        let mut after = query
            .after
            .as_ref()
            .map(|cursor| (cursor.order, cursor.id.clone()));
        let chunk = if query.without_bodies { CHUNK_WITHOUT_BODIES } else { CHUNK };
        // One more than the limit tells whether there is a next page.
        while documents.len() <= query.limit {
            let size = (query.limit.saturating_add(1) - documents.len()).min(chunk);
            let body = request::search(org, query, after.as_ref(), size);
            let parameters = [LENIENT, ("allow_partial_search_results", "false")];
            let answer = self
                .http
                .send(
                    Method::Post,
                    &format!("/{indices}/_search"),
                    &parameters,
                    Some(&body),
                )
                .await?;
            let answer: SearchAnswer = answer
                .done(&self.http, &format!("search index {indices}"))?
                .json(&self.http)?;
            let last = answer.hits.hits.len() < size;
            for found in answer.hits.hits {
                documents.push(self.found(collection, org, found)?);
            }
            if last {
                break;
            }
            after = documents
                .last()
                .map(|document| (document.order, document.id.clone()));
        }
        Ok(Page::cut(documents, query.limit))
    }

    async fn count(
        &self,
        collection: Collection,
        org: &str,
        query: &Query,
    ) -> Result<u64, IndexError> {
        let Some(indices) = self.searched(collection, query) else {
            return Ok(0);
        };
        let body = json!({ "query": request::scoped(org, query) });
        let answer = self
            .http
            .send(
                Method::Post,
                &format!("/{indices}/_count"),
                &[LENIENT],
                Some(&body),
            )
            .await?;
        let answer: CountAnswer = answer
            .done(&self.http, &format!("count in index {indices}"))?
            .json(&self.http)?;
        match answer.shards.failed {
            0 => Ok(answer.count),
            failed => Err(IndexError::Unavailable(format!(
                "{failed} shards of opensearch index {indices} did not answer"
            ))),
        }
    }

    async fn refresh(&self, collection: Collection) -> Result<(), IndexError> {
        let indices = self.index_names(collection);
        let answer = self
            .http
            .send(
                Method::Post,
                &format!("/{indices}/_refresh"),
                &[LENIENT],
                None,
            )
            .await?;
        answer
            .done(&self.http, &format!("refresh index {indices}"))
            .map(|_| ())
    }
}
