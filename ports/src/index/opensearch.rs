//! The index on OpenSearch.
//!
//! - A collection is the index `<prefix><collection>`, a bucket of a weekly one
//!   `<prefix><collection>-w<week>` or `<prefix><collection>-undated`: plain indices, made
//!   explicitly before the first document goes in, with a fixed mapping. There is a template for
//!   all of them too, so that one that is made behind our back has the same.
//! - Orgs share the indices. An org is part of a document's `_id` and of every query, both set in
//!   one place ([`document::key`] and [`request::scoped`]).
//! - Words of a text are found by their first 32,000 bytes.

mod bulk;
mod config;
mod document;
mod http;
mod indices;
mod remove;
mod request;

pub use self::config::OpenSearchConfig;

use self::bulk::Write;
use self::document::{collection_of_index, document_of};
use self::http::Http;
use super::limits::check_bucket;
use super::{Bucket, Collection, Document, Index, IndexError, Outcome, Page, Query, Removal};
use async_trait::async_trait;
use opensearch::http::Method;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Mutex;

/// Seconds of a weekly bucket.
const WEEK_SECONDS: u64 = 604_800;

/// Documents asked for at once, with and without bodies; longer pages are put together.
const CHUNK: usize = 100;
const CHUNK_WITHOUT_BODIES: usize = 1_000;

/// The index on OpenSearch.
pub struct OpenSearchIndex {
    config: OpenSearchConfig,
    http: Http,
    /// Indices that are there and have our mapping.
    known: Mutex<HashSet<String>>,
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
        // This week's too, now: making one takes longer than a new client's name may.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let week = now.map_or(0, |since| since.as_secs() / WEEK_SECONDS);
        let week = Bucket::Week(u32::try_from(week).unwrap_or(u32::MAX));
        for collection in Collection::ALL.into_iter().filter(|of| of.weekly()) {
            self.ensure(&self.index_name(collection, Some(week)))
                .await?;
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

    async fn remove(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError> {
        self.remove_all(collection, org, removals).await
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
        let chunk = if query.without_bodies {
            CHUNK_WITHOUT_BODIES
        } else {
            CHUNK
        };
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
