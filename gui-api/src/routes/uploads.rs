//! Uploads: which files a flow has, or a client's events brought, how much of each is there, and their
//! bytes.

use super::answers::{PARTIAL, Shared, TOTAL, streamed, value};
use super::flows::Flow;
use super::ranged::{bodiless, head, requested};
use super::resume::{announced, is_of};
use crate::app::App;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::stored::{LOOKED_AT, Upload, Within, by_upload, content, describe, find};
use aws_lc_rs::digest;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use nublar_core::ids::{ContentId, Session, hex};
use nublar_core::ingest::Seal;
use nublar_ports::index::Collection;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// How many uploads one list shows unless said otherwise.
const USUAL: usize = 1_000;
/// How many bytes a list reads to compute hashes; what is larger has its hash when asked for.
const HASHED: u64 = 64 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    #[serde(default)]
    start: usize,
    limit: Option<usize>,
    /// Compute every hash, however long it takes.
    #[serde(default)]
    hash: bool,
}

/// Whose files are asked for.
struct Of {
    within: Within,
    /// Bytes that are known to be stored.
    stored: u64,
    /// Whether all came that will come of itself.
    ended: bool,
}

impl Of {
    /// Of a flow, or of the client's events by the name that agents send them under.
    async fn path(app: &App, client: &str, flow: &str) -> Answer<Self> {
        if flow.parse() == Ok(Session::Monitoring) {
            let key = app.client(client)?;
            app.known(&key).await?;
            return Ok(Self {
                within: Within::events(&app.registry.life(&key)),
                // Nobody counts them: an index that shows none is asked once for what it has.
                stored: 1,
                ended: false,
            });
        }
        let flow = app.flow(client, flow).await?;
        Ok(Self {
            within: flow.within(),
            stored: flow.uploaded_bytes(),
            ended: Flow::has_ended(&flow.body),
        })
    }
}

/// `GET .../uploads?start&limit&hash` → `[{"upload_id", "name", "path", ...}]`; of the flow
/// `F.Monitoring` those that the client's events brought.
pub(crate) async fn list(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
    Params(asked): Params<Listed>,
) -> Answer<Response> {
    let Of {
        within,
        stored,
        ended,
    } = Of::path(&app, &client, &flow).await?;
    let found = app.found(Collection::Buffers, &within, stored).await?;
    let all = by_upload(&found);
    let total = all.len();
    let ids: HashSet<String> = all.iter().map(|parts| parts.instance.clone()).collect();
    let some: Vec<_> = all
        .into_iter()
        .skip(asked.start)
        .take(asked.limit.unwrap_or(USUAL))
        .collect();
    let described = describe(&app, &within, some).await?;
    let announced = if ended && described.iter().any(|one| !one.complete) {
        announced(&app, &within).await?
    } else {
        Vec::new()
    };
    let seals: Vec<_> = described
        .iter()
        .map(|upload| app.seal(&within, upload))
        .collect();
    let seals: Vec<Option<Seal>> = stream::iter(seals)
        .buffered(LOOKED_AT)
        .try_collect()
        .await?;
    let mut budget = if asked.hash { u64::MAX } else { HASHED };
    let hashes: Vec<_> = described
        .iter()
        .zip(&seals)
        .map(|(upload, seal)| {
            let wanted = seal.is_none() && affords(&app, &within, upload, &mut budget);
            let (app, within) = (&app, &within);
            async move {
                match seal {
                    Some(seal) => Ok(Some(seal.sha256.clone())),
                    None if wanted => sha256(app, within, upload).await,
                    None => Ok(None),
                }
            }
        })
        .collect();
    let hashes: Vec<Option<String>> = stream::iter(hashes)
        .buffered(LOOKED_AT)
        .try_collect()
        .await?;
    let mut uploads = Vec::new();
    for ((upload, seal), hash) in described.iter().zip(seals).zip(hashes) {
        let mut shown = shown(upload, hash.as_deref(), seal.as_ref());
        // A sparse read that failed half-way starts over as a plain one.
        if upload.sparse && !upload.complete && ids.contains(&upload.twin) {
            shown["replaced_by"] = json!(upload.twin);
        }
        let may_go_on = !upload.complete && announced.iter().any(|one| is_of(one, upload));
        shown["resumable"] = json!(may_go_on);
        uploads.push(shown);
    }
    let mut response = Json(Value::Array(uploads)).into_response();
    response
        .headers_mut()
        .insert(TOTAL, value(&total.to_string()));
    Ok(response)
}

/// Whether a file that is not sealed yet can be hashed, as far as the budget of bytes goes.
fn affords(app: &App, within: &Within, upload: &Upload, budget: &mut u64) -> bool {
    if !upload.complete || app.hashes.get(&hash_key(within, upload)).is_some() {
        return upload.complete;
    }
    let left = budget.checked_sub(upload.arranged.end);
    *budget = left.unwrap_or(*budget);
    left.is_some()
}

fn shown(upload: &Upload, sha256: Option<&str>, seal: Option<&Seal>) -> Value {
    json!({
        "upload_id": upload.instance,
        "name": upload.name(),
        "path": upload.path,
        "components": upload.components,
        "accessor": upload.accessor,
        "modified_us": upload.modified_us,
        "size": upload.size,
        "stored": upload.arranged.total,
        "expected": upload.expected,
        "complete": upload.complete,
        "percent": upload.percent(),
        "gaps": upload.arranged.gaps,
        "sha256": sha256,
        "reported_sha256": seal.and_then(|seal| seal.reported.as_deref()),
        "verdict": seal.map(|seal| seal.verdict),
        "sparse": upload.sparse,
        "padded_size": upload.padded_size(),
        "sent_twice": upload.arranged.overlaps,
    })
}

fn hash_key(within: &Within, upload: &Upload) -> String {
    let content = upload.arranged.content();
    format!("{}/{}/{content}", within.client, within.flow)
}

/// SHA-256 of a complete file as it is stored; none of one of which a part is missing.
pub(crate) async fn sha256(
    app: &Arc<App>,
    within: &Within,
    upload: &Upload,
) -> Answer<Option<String>> {
    if !upload.complete {
        return Ok(None);
    }
    let key = hash_key(within, upload);
    if let Some(known) = app.hashes.get(&key) {
        return Ok(Some(known));
    }
    let bytes = content(Arc::clone(app), within, upload, 0, upload.arranged.end);
    let mut bytes = std::pin::pin!(bytes);
    let mut context = digest::Context::new(&digest::SHA256);
    while let Some(bytes) = bytes.try_next().await? {
        context.update(&bytes);
    }
    let hash = hex(context.finish().as_ref());
    app.hashes.put(key, hash.clone());
    Ok(Some(hash))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Holes of a sparse file as zeros.
    #[serde(default)]
    pad: bool,
}

/// `GET .../uploads/{upload_id}?pad` → the bytes, or the part that `Range` says; no more is read.
/// `ETag` names these bytes.
pub(crate) async fn download(
    State(app): Shared,
    Path((client, flow, upload)): Path<(String, String, String)>,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Answer<Response> {
    let (within, upload) = one(&app, &client, &flow, &upload).await?;
    let padded = wanted.pad && upload.sparse;
    let (whole, tag) = if padded {
        (upload.padded_size(), tag(&upload, "padded"))
    } else {
        (upload.arranged.end, tag(&upload, "stored"))
    };
    let requested = requested(&headers, &tag, whole);
    let (status, head, range) = head(requested, &tag, whole);
    let Some(Range { start, end }) = range else {
        return Ok(bodiless(status, head, whole));
    };
    let bytes = if padded {
        upload.padded(&app, &within, start, end)
    } else {
        content(Arc::clone(&app), &within, &upload, start, end).boxed()
    };
    let mut response = streamed(&app, OCTETS, bytes);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(head);
    let name = disposition(upload.name());
    headers.insert(header::CONTENT_DISPOSITION, value(&name));
    if !upload.complete {
        headers.insert(PARTIAL, value("true"));
    }
    Ok(response)
}

/// `GET .../uploads/{upload_id}/ranges` → `{"size", "ranges": [[offset, stored, length], ...]}`:
/// which bytes of the original stand where among the stored ones; the rest of it is holes.
pub(crate) async fn ranges(
    State(app): Shared,
    Path((client, flow, upload)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    let (_, upload) = one(&app, &client, &flow, &upload).await?;
    let (size, ranges) = (upload.padded_size(), upload.ranges());
    Ok(Json(json!({ "size": size, "ranges": ranges })))
}

async fn one(app: &Arc<App>, client: &str, flow: &str, upload: &str) -> Answer<(Within, Upload)> {
    let Of { within, .. } = Of::path(app, client, flow).await?;
    let found = find(app, &within, upload).await?;
    let found = found.ok_or_else(|| {
        Refusal::missing(format!("flow {flow} has no upload {upload}"))
            .hint("upload ids stand in the list of the flow's uploads")
    })?;
    Ok((within, found))
}

const OCTETS: &str = "application/octet-stream";

/// Names the bytes of one view of a file, as they are now.
fn tag(upload: &Upload, view: &str) -> String {
    let content = upload.arranged.content();
    let mut parts: Vec<&[u8]> = vec![b"tag", view.as_bytes(), content.as_bytes()];
    let ranges: Vec<[u8; 24]> = upload.ranges().into_iter().map(bytes_of).collect();
    parts.extend(ranges.iter().map(<[u8; 24]>::as_slice));
    format!("\"{}\"", ContentId::of(&parts))
}

fn bytes_of((offset, stored, length): (u64, u64, u64)) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (place, number) in bytes.chunks_exact_mut(8).zip([offset, stored, length]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// A file name for whoever saves the answer: agents' names are data and may hold anything.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .take(200)
        .collect();
    let mut exact = String::new();
    for byte in name.bytes().take(1_000) {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            exact.push(char::from(byte));
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_breaks_out_of_its_quotes() {
        assert_eq!(
            disposition("a\"b\r\n../ü.txt"),
            "attachment; filename=\"a_b__..__.txt\"; filename*=UTF-8''a%22b%0D%0A..%2F%C3%BC.txt"
        );
    }
}
