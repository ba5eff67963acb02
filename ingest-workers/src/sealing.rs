//! Sealing the files of one flow: reading them once, bounded in memory, whatever their size.

use crate::Ports;
use crate::lives::Lives;
use crate::persist::persist;
use crate::stored::bucket;
use aws_lc_rs::digest;
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use nublar_core::ids::{FlowId, Life, hex};
use nublar_core::ingest::{
    Arranged, Extent, Found, Piece, Reports, SEALS, Seal, Verdict, arrange, inflate, plain_data,
    week_of,
};
use nublar_ports::index::{Collection, Document, Outcome, Page, Query, Removal};
use nublar_ports::objects::ObjectsError;
use nublar_schemas::agent::{FileBuffer, PathSpec, VeloMessage};
use prost::Message;
use std::collections::BTreeMap;

/// Files that are read side by side.
const FILES: usize = 2;
/// Buffers of a file that are read at once; stock agents put 1 MiB into one.
const BUFFERS: usize = 8;
/// Documents without bodies in a page.
const LISTED: usize = 2_000;
/// Seals that are written at once.
const WRITTEN: usize = 500;

/// A flow that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) life: Life,
    pub(crate) flow: FlowId,
    /// Of its document.
    pub(crate) version: u64,
    /// Where the client's records stand.
    pub(crate) partition: u32,
    /// When the document was made, microseconds since 1970.
    pub(crate) at_us: i64,
}

/// A whole file, hashed.
struct Hashed {
    upload: String,
    content: String,
    place: PathSpec,
    sha256: String,
    size: u64,
    /// The seal that is there already.
    earlier: Option<Seal>,
}

/// Why a file cannot be read although the index and the objects answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreadable(String);

/// Makes what was stored before visible to [`seal`].
pub(crate) async fn refresh(ports: &Ports) {
    for collection in [Collection::Buffers, Collection::Rows] {
        persist("index", || ports.index.refresh(collection)).await;
    }
}

/// Seals every whole file of a flow that is not sealed yet. Parts get no seal.
pub(crate) async fn seal(ports: &Ports, lives: &Lives, ended: &Ended) {
    if lives.has_ended(&ended.life) {
        return;
    }
    let reading = Reading {
        ports,
        lives,
        ended,
    };
    let uploads = reading.uploads().await;
    let hashed: Vec<Hashed> = stream::iter(uploads)
        .map(|(upload, arranged)| {
            let reading = &reading;
            async move {
                match reading.file(&upload, &arranged).await {
                    Ok(hashed) => hashed,
                    Err(error) => {
                        let (client, flow) = (&ended.life.client.client, &ended.flow);
                        tracing::warn!(%client, %flow, upload, %error, "a file cannot be sealed");
                        None
                    }
                }
            }
        })
        .buffer_unordered(FILES)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let is_open = |file: &Hashed| {
        let verdict = file.earlier.as_ref().map(|seal| seal.verdict);
        verdict != Some(Verdict::Verified)
    };
    if !hashed.iter().any(is_open) {
        return;
    }
    let reports = reading.reports().await;
    let seals: Vec<Document> = hashed
        .into_iter()
        .filter_map(|file| reading.sealed(file, &reports))
        .collect();
    for seals in seals.chunks(WRITTEN) {
        reading.write(seals).await;
    }
}

struct Reading<'a> {
    ports: &'a Ports,
    lives: &'a Lives,
    ended: &'a Ended,
}

impl Reading<'_> {
    fn query(&self, source: Option<&str>, limit: usize) -> Query {
        Query {
            client: Some(self.ended.life.name()),
            flow: Some(self.ended.flow.to_string()),
            source: source.map(str::to_owned),
            bucket: Some(bucket(week_of(&self.ended.flow))),
            limit,
            ..Query::default()
        }
    }

    async fn page(&self, collection: Collection, query: &Query) -> Page {
        let (index, org) = (&self.ports.index, self.ended.life.client.org.as_str());
        persist("index", || index.query(collection, org, query)).await
    }

    /// The buffers of each upload, arranged.
    async fn uploads(&self) -> BTreeMap<String, Arranged> {
        let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        let mut query = Query {
            without_bodies: true,
            ..self.query(None, LISTED)
        };
        loop {
            let page = self.page(Collection::Buffers, &query).await;
            for document in page.documents {
                if document.source.is_empty() || document.source == SEALS {
                    continue;
                }
                let parts = found.entry(document.source).or_default();
                parts.push(Found {
                    id: document.id,
                    source: String::new(),
                    order: document.order,
                    size: document.size,
                });
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        let arranged = found
            .into_iter()
            .map(|(upload, parts)| (upload, arrange(&parts)));
        arranged.collect()
    }

    /// A file's hash, none of one of which a part is missing.
    async fn file(&self, upload: &str, arranged: &Arranged) -> Result<Option<Hashed>, Unreadable> {
        let mut query = self.query(Some(upload), BUFFERS);
        let mut page = self.page(Collection::Buffers, &query).await;
        let Some(first) = page.documents.first() else {
            return Ok(None);
        };
        let first = buffer(&first.body)?;
        let last = if page.next.is_none() {
            page.documents.last().map(|last| last.body.clone())
        } else {
            let last = Query {
                descending: true,
                ..self.query(Some(upload), 1)
            };
            let page = self.page(Collection::Buffers, &last).await;
            page.documents.first().map(|last| last.body.clone())
        };
        let last = last.map_or_else(|| Ok(first.clone()), |last| buffer(&last))?;
        if !Extent::of(&first, &last, arranged).complete {
            return Ok(None);
        }
        let content = arranged.content().to_string();
        let earlier = self.earlier(upload).await;
        let earlier = earlier.filter(|seal| seal.content == content);
        let place = first.pathspec.unwrap_or_default();
        let hashed = |sha256| Hashed {
            upload: upload.to_owned(),
            place,
            sha256,
            size: arranged.end,
            content,
            earlier: earlier.clone(),
        };
        if let Some(seal) = &earlier {
            return Ok(Some(hashed(seal.sha256.clone())));
        }
        let mut context = digest::Context::new(&digest::SHA256);
        let mut left = arranged.pieces.as_slice();
        loop {
            let mut wanted = Vec::new();
            for document in page.documents {
                if let Some((piece, rest)) = left.split_first()
                    && piece.id == document.id
                {
                    left = rest;
                    wanted.push(self.bytes(piece, document.body));
                }
            }
            for bytes in try_join_all(wanted).await? {
                context.update(&bytes);
            }
            let Some(piece) = left.first() else {
                break;
            };
            query.after = page.next;
            if query.after.is_none() {
                return Err(Unreadable(format!("buffer {} is gone", piece.id)));
            }
            page = self.page(Collection::Buffers, &query).await;
        }
        Ok(Some(hashed(hex(context.finish().as_ref()))))
    }

    async fn earlier(&self, upload: &str) -> Option<Seal> {
        let Ended { life, flow, .. } = self.ended;
        let id = Seal::id(&life.client, flow, upload).to_string();
        let (index, bucket) = (&self.ports.index, bucket(week_of(flow)));
        let org = life.client.org.as_str();
        let found = persist("index", || {
            index.get(Collection::Buffers, org, Some(bucket), &id)
        })
        .await?;
        serde_json::from_slice(&found.body).ok()
    }

    /// The bytes of a piece of a buffer.
    async fn bytes(&self, piece: &Piece, body: Bytes) -> Result<Bytes, Unreadable> {
        let mut buffer = buffer(&body)?;
        let data = if buffer.reference.is_empty() {
            std::mem::take(&mut buffer.data)
        } else {
            let object = &buffer.reference;
            let read = persist("objects", || async {
                match self.ports.objects.get(object, None).await {
                    Err(ObjectsError::NotFound(_)) => Ok(None),
                    read => read.map(Some),
                }
            });
            let read = read.await;
            read.ok_or_else(|| Unreadable(format!("object {object} is gone")))?
        };
        let data = plain_data(&buffer, data).map_err(|error| Unreadable(error.to_string()))?;
        let bounds = usize::try_from(piece.skip)
            .ok()
            .zip(usize::try_from(piece.skip.saturating_add(piece.take)).ok())
            .filter(|(_, to)| *to <= data.len());
        let (from, to) = bounds
            .ok_or_else(|| Unreadable(format!("buffer {} holds less than it says", piece.id)))?;
        Ok(data.slice(from..to))
    }

    /// What the flow's rows report.
    async fn reports(&self) -> Reports {
        let mut reports = Reports::default();
        let mut query = self.query(None, BUFFERS);
        loop {
            let page = self.page(Collection::Rows, &query).await;
            for document in page.documents {
                let rows = rows(&document.body);
                String::from_utf8_lossy(&rows)
                    .lines()
                    .for_each(|row| reports.read(row));
            }
            query.after = page.next;
            if query.after.is_none() {
                return reports;
            }
        }
    }

    /// The seal's document, none if it is there.
    fn sealed(&self, file: Hashed, reports: &Reports) -> Option<Document> {
        let Ended {
            life,
            flow,
            version,
            ..
        } = self.ended;
        let PathSpec {
            path, components, ..
        } = &file.place;
        let (verdict, reported) = reports.judge(path, components, &file.sha256);
        let seal = Seal {
            upload_id: file.upload,
            content: file.content,
            sha256: file.sha256,
            size: file.size,
            reported,
            verdict,
        };
        if file.earlier.as_ref() == Some(&seal) {
            return None;
        }
        if verdict == Verdict::Differs {
            let client = &life.client.client;
            tracing::warn!(%client, %flow, path, "a file is not what the agent says it is");
        }
        Some(Document {
            id: Seal::id(&life.client, flow, &seal.upload_id).to_string(),
            bucket: Some(bucket(week_of(flow))),
            client: life.name(),
            flow: flow.to_string(),
            source: SEALS.to_owned(),
            order: 0,
            text: String::new(),
            hashes: Vec::new(),
            version: *version,
            size: 0,
            body: serde_json::to_vec(&seal).ok()?.into(),
        })
    }

    async fn write(&self, seals: &[Document]) {
        let (index, org) = (&self.ports.index, self.ended.life.client.org.as_str());
        let outcomes = persist("index", || {
            index.put(Collection::Buffers, org, seals.to_vec())
        });
        for outcome in outcomes.await {
            if let Outcome::Poison(text) = outcome {
                tracing::error!(flow = %self.ended.flow, text, "the index takes no seal");
            }
        }
        // Who removes what a deleted client left may have come by before these were written.
        let Ended {
            life, partition, ..
        } = self.ended;
        self.lives.current(*partition).await;
        if self.lives.has_ended(life) {
            let removals: Vec<Removal> = seals.iter().map(Removal::of).collect();
            persist("index", || {
                index.remove(Collection::Buffers, org, removals.clone())
            })
            .await;
        }
    }
}

fn buffer(body: &Bytes) -> Result<FileBuffer, Unreadable> {
    FileBuffer::decode(body.clone())
        .map_err(|error| Unreadable(format!("a stored buffer cannot be read: {error}")))
}

/// The rows of a stored message, lines of JSON; none of one that cannot be read.
fn rows(body: &Bytes) -> Vec<u8> {
    let response = VeloMessage::decode(body.clone())
        .ok()
        .and_then(|message| message.vql_response);
    let Some(response) = response else {
        return Vec::new();
    };
    if response.compressed_json_response.is_empty() {
        return response.jsonl_response.into_bytes();
    }
    let size = usize::try_from(response.uncompressed_size).unwrap_or(usize::MAX);
    inflate(&response.compressed_json_response, size).unwrap_or_default()
}
