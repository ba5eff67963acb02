//! Uploads: which files a flow has, how much of each is there, and their bytes.

use super::answers::{PARTIAL, Shared, TOTAL, streamed, value};
use super::flows::Flow;
use crate::app::App;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::stored::{Found, Upload, Within, by_upload, content, describe};
use aws_lc_rs::digest;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use nublar_ports::index::Collection;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// How many uploads one list shows unless said otherwise.
const USUAL: usize = 1_000;
/// How many bytes a list reads to compute hashes; what is larger has its hash when asked for.
const HASHED: u64 = 64 << 20;
/// How many hashes are remembered.
const REMEMBERED: usize = 100_000;

/// SHA-256 of whole files, by what they are made of.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    state: Mutex<(HashMap<String, String>, VecDeque<String>)>,
}

impl Hashes {
    fn get(&self, key: &str) -> Option<String> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .get(key)
            .cloned()
    }

    fn put(&self, key: String, hash: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *state;
        if known.insert(key.clone(), hash).is_none() {
            order.push_back(key);
        }
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

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

/// `GET .../uploads?start&limit&hash` → `[{"upload_id", "name", "path", ...}]`.
pub(crate) async fn list(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
    Params(asked): Params<Listed>,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    let within = flow.within();
    let found = buffers(&app, &flow).await?;
    let all = by_upload(&found);
    let total = all.len();
    let some: Vec<_> = all
        .into_iter()
        .skip(asked.start)
        .take(asked.limit.unwrap_or(USUAL))
        .collect();
    let mut budget = if asked.hash { u64::MAX } else { HASHED };
    let mut uploads = Vec::new();
    for upload in describe(&app, &within, some).await? {
        let known = app.hashes.get(&hash_key(&within, &upload));
        let hash = if known.is_none() && upload.complete && upload.arranged.end <= budget {
            budget -= upload.arranged.end;
            sha256(&app, &within, &upload).await?
        } else {
            known
        };
        uploads.push(shown(&upload, hash.as_deref()));
    }
    let mut response = Json(Value::Array(uploads)).into_response();
    response
        .headers_mut()
        .insert(TOTAL, value(&total.to_string()));
    Ok(response)
}

async fn buffers(app: &App, flow: &Flow) -> Answer<Vec<Found>> {
    let stored = flow.number("total_uploaded_bytes");
    app.found(Collection::Buffers, &flow.within(), stored).await
}

fn shown(upload: &Upload, sha256: Option<&str>) -> Value {
    json!({
        "upload_id": upload.instance,
        "name": upload.name(),
        "path": upload.path,
        "components": upload.components,
        "accessor": upload.accessor,
        "size": upload.size,
        "stored": upload.arranged.total,
        "expected": upload.expected,
        "complete": upload.complete,
        "percent": upload.percent(),
        "gaps": upload.arranged.gaps,
        "sha256": sha256,
        "sparse": upload.sparse,
        "padded_size": upload.padded_size(),
        "sent_twice": upload.arranged.overlaps,
    })
}

fn hash_key(within: &Within, upload: &Upload) -> String {
    let pieces = &upload.arranged.pieces;
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece.id.as_bytes());
        hasher.update(&piece.skip.to_le_bytes());
    }
    format!("{}/{}/{}", within.client, within.flow, hasher.finalize())
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
    let hash: String = context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
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

/// `GET .../uploads/{upload_id}?pad` → the bytes; `Range` is understood unless `pad`.
pub(crate) async fn download(
    State(app): Shared,
    Path((client, flow, upload)): Path<(String, String, String)>,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    let within = flow.within();
    let found = buffers(&app, &flow).await?;
    let parts = by_upload(&found).remove_entry(&upload);
    let parts = parts.ok_or_else(|| {
        Refusal::missing(format!("flow {} has no upload {upload}", flow.id))
            .hint("upload ids stand in the list of the flow's uploads")
    })?;
    let described = describe(&app, &within, vec![parts]).await?;
    let upload = described
        .first()
        .ok_or_else(|| Refusal::fault("the upload is gone"))?;
    let whole = upload.arranged.end;
    let mut response = if wanted.pad && upload.sparse {
        let mut response = streamed(&app, OCTETS, upload.padded(&app, &within));
        let size = value(&upload.padded_size().to_string());
        response.headers_mut().insert(header::CONTENT_LENGTH, size);
        response
    } else {
        let range = headers
            .get(header::RANGE)
            .and_then(|range| range.to_str().ok());
        let (status, Range { start, end }) = match range.map(|range| read_range(range, whole)) {
            None | Some(Requested::Ignored) => (StatusCode::OK, 0..whole),
            Some(Requested::Part(part)) => (StatusCode::PARTIAL_CONTENT, part),
            Some(Requested::Outside) => return Ok(outside(whole)),
        };
        let bytes = content(Arc::clone(&app), &within, upload, start, end);
        let mut response = streamed(&app, OCTETS, bytes);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, value(&(end - start).to_string()));
        headers.insert(header::ACCEPT_RANGES, value("bytes"));
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {start}-{}/{whole}", end - 1);
            headers.insert(header::CONTENT_RANGE, value(&range));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_DISPOSITION,
        value(&disposition(upload.name())),
    );
    if !upload.complete {
        headers.insert(PARTIAL, value("true"));
    }
    Ok(response)
}

const OCTETS: &str = "application/octet-stream";

fn outside(whole: u64) -> Response {
    let error = format!("the range is outside of the file's {whole} bytes");
    let mut response = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, error).into_response();
    let range = value(&format!("bytes */{whole}"));
    response.headers_mut().insert(header::CONTENT_RANGE, range);
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    /// No range that is understood: the whole is given.
    Ignored,
    Part(Range<u64>),
    Outside,
}

fn read_range(text: &str, whole: u64) -> Requested {
    let Some((from, to)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Requested::Ignored;
    };
    let range = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if to >= from => from..to.saturating_add(1).min(whole),
        (Ok(from), Err(_)) if to.trim().is_empty() => from..whole,
        (Err(_), Ok(last)) if from.trim().is_empty() => whole.saturating_sub(last)..whole,
        _ => return Requested::Ignored,
    };
    if range.start < range.end {
        Requested::Part(range)
    } else {
        Requested::Outside
    }
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
    fn ranges_are_read_as_http_has_them() {
        let part = |range| Requested::Part(range);
        assert_eq!(read_range("bytes=0-9", 100), part(0..10));
        assert_eq!(read_range("bytes=90-", 100), part(90..100));
        assert_eq!(read_range("bytes=-5", 100), part(95..100));
        assert_eq!(read_range("bytes=-500", 100), part(0..100));
        assert_eq!(read_range("bytes=50-1000", 100), part(50..100));
        assert_eq!(read_range("bytes=100-", 100), Requested::Outside);
        assert_eq!(read_range("bytes=0-", 0), Requested::Outside);
        for ignored in ["bytes=5-1", "bytes=0-1,4-5", "rows=1-2", "bytes=x-"] {
            assert_eq!(read_range(ignored, 100), Requested::Ignored, "{ignored}");
        }
    }

    #[test]
    fn no_name_breaks_out_of_its_quotes() {
        assert_eq!(
            disposition("a\"b\r\n../ü.txt"),
            "attachment; filename=\"a_b__..__.txt\"; filename*=UTF-8''a%22b%0D%0A..%2F%C3%BC.txt"
        );
    }
}
