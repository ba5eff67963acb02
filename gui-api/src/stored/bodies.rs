//! Listing the documents of a flow, and reading the bodies of some of them in their order.

use super::Upload;
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use bytes::Bytes;
use futures::Stream;
use nublar_core::ids::{ClientKey, FlowId, Life};
use nublar_core::ingest::{Found, Piece, Seal, week_of};
use nublar_ports::index::{Bucket, Collection, Cursor, Document, Query};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many documents without bodies are listed at once.
const LISTED: usize = 2_000;
/// How many bodies are read at once; each may have some MiB.
const READ: usize = 8;

/// Where a flow's documents are, or those of the files that a client's events brought.
#[derive(Debug, Clone)]
pub(crate) struct Within {
    pub(crate) client: String,
    /// Empty of events.
    pub(crate) flow: String,
    key: ClientKey,
    flow_id: Option<FlowId>,
    bucket: Bucket,
}

impl Within {
    pub(crate) fn flow(life: &Life, flow: &FlowId) -> Self {
        Self {
            client: life.name(),
            flow: flow.to_string(),
            key: life.client.clone(),
            flow_id: Some(flow.clone()),
            bucket: week_of(flow).map_or(Bucket::Undated, Bucket::Week),
        }
    }

    /// The files of client events: they have no time.
    pub(crate) fn events(life: &Life) -> Self {
        Self {
            client: life.name(),
            flow: String::new(),
            key: life.client.clone(),
            flow_id: None,
            bucket: Bucket::Undated,
        }
    }

    pub(crate) fn query(&self, source: Option<&str>) -> Query {
        Query {
            client: Some(self.client.clone()),
            flow: Some(self.flow.clone()),
            source: source.map(str::to_owned),
            bucket: Some(self.bucket),
            ..Query::default()
        }
    }
}

impl App {
    /// All documents of a flow in a collection, by (order, id). When they hold less than the
    /// foreman knows to be stored, the index is asked to show what it has, once.
    pub(crate) async fn found(
        &self,
        collection: Collection,
        within: &Within,
        stored: u64,
    ) -> Answer<Vec<Found>> {
        let found = self.listed(collection, within, None).await?;
        if found.iter().map(|part| part.size).sum::<u64>() >= stored {
            return Ok(found);
        }
        self.step(self.index.refresh(collection)).await?;
        self.listed(collection, within, None).await
    }

    /// The documents of a flow, or of one source of it, that the index shows.
    pub(crate) async fn listed(
        &self,
        collection: Collection,
        within: &Within,
        source: Option<&str>,
    ) -> Answer<Vec<Found>> {
        let mut found = Vec::new();
        let query = Query {
            without_bodies: true,
            limit: LISTED,
            ..within.query(source)
        };
        let mut after = None;
        loop {
            let query = Query {
                after,
                ..query.clone()
            };
            let page = self.step(self.index.query(collection, "", &query)).await?;
            found.extend(page.documents.into_iter().map(|document| Found {
                id: document.id,
                source: document.source,
                order: document.order,
                size: document.size,
            }));
            after = page.next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// A document of a flow by its id.
    pub(crate) async fn stored(
        &self,
        collection: Collection,
        within: &Within,
        id: &str,
    ) -> Answer<Option<Document>> {
        let read = self.index.get(collection, "", Some(within.bucket), id);
        self.step(read).await
    }

    /// What is known of a whole file since its flow has ended; of what it is made of now.
    pub(crate) async fn seal(&self, within: &Within, upload: &Upload) -> Answer<Option<Seal>> {
        let Some(flow) = &within.flow_id else {
            return Ok(None);
        };
        let id = Seal::id(&within.key, flow, &upload.instance).to_string();
        let seal = self.stored(Collection::Buffers, within, &id).await?;
        let seal = seal.and_then(|seal| serde_json::from_slice::<Seal>(&seal.body).ok());
        let content = upload.arranged.content().to_string();
        Ok(seal.filter(|seal| seal.content == content))
    }
}

struct Reading {
    app: Arc<App>,
    collection: Collection,
    query: Query,
    left: VecDeque<Piece>,
    after: Option<Cursor>,
    over: bool,
    ready: VecDeque<(Piece, Bytes)>,
}

/// The bodies of these pieces of one source, in their order (by order and id).
pub(crate) fn bodies(
    app: Arc<App>,
    collection: Collection,
    within: &Within,
    source: Option<&str>,
    pieces: Vec<Piece>,
) -> impl Stream<Item = Answer<(Piece, Bytes)>> + Send + use<> {
    let orders = pieces
        .first()
        .zip(pieces.last())
        .map(|(first, last)| (first.order, last.order));
    let order = orders
        .filter(|(_, last)| *last < i64::MAX)
        .map(|(first, last)| (first, last + 1));
    let query = Query {
        order,
        limit: READ,
        ..within.query(source)
    };
    let reading = Reading {
        app,
        collection,
        query,
        left: pieces.into(),
        after: None,
        over: false,
        ready: VecDeque::new(),
    };
    futures::stream::try_unfold(reading, |mut reading| async move {
        let next = reading.next().await?;
        Ok(next.map(|next| (next, reading)))
    })
}

impl Reading {
    async fn next(&mut self) -> Answer<Option<(Piece, Bytes)>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            let Some(wanted) = self.left.front() else {
                return Ok(None);
            };
            if self.over {
                return Err(Refusal::fault(format!("document {} is gone", wanted.id)));
            }
            let query = Query {
                after: self.after.take(),
                ..self.query.clone()
            };
            let read = self.app.index.query(self.collection, "", &query);
            let page = self.app.step(read).await?;
            for document in page.documents {
                if self
                    .left
                    .front()
                    .is_some_and(|piece| piece.id == document.id)
                    && let Some(piece) = self.left.pop_front()
                {
                    self.ready.push_back((piece, document.body));
                }
            }
            self.over = page.next.is_none();
            self.after = page.next;
        }
    }
}
