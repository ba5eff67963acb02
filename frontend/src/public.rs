//! Files for agents under `public/`: the tools that artifacts need, whole or a part of them.
//!
//! A file is asked for by its SHA-256 and nothing else, so its name tells nothing and cannot be
//! guessed. In the objects it is a list of pieces (`nublar_core::tools`); pieces are kept in memory for
//! the others who want the file at the same time.

use crate::body::AnswerBody;
use crate::front::Front;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use http::{HeaderMap, Method, Response, StatusCode};
use moka::sync::Cache;
use nublar_core::tools::{Manifest, Piece};
use nublar_ports::Objects;
use nublar_ports::objects::ObjectsError;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes of files that are kept in memory.
const KEPT: u64 = 64 << 20;
/// Reads of objects that are under way at once; others wait for theirs.
const READS: usize = 8;
/// How long a read may take, its wait included.
const READ: Duration = Duration::from_secs(30);

/// What is read of the objects for agents. See the [module](self).
pub(crate) struct Public {
    objects: Arc<dyn Objects>,
    kept: Cache<String, Bytes>,
    reads: Semaphore,
}

impl Public {
    pub(crate) fn new(objects: Arc<dyn Objects>) -> Self {
        let weigh = |key: &String, body: &Bytes| (key.len() + body.len()) as u32;
        Self {
            objects,
            kept: Cache::builder().weigher(weigh).max_capacity(KEPT).build(),
            reads: Semaphore::new(READS),
        }
    }

    async fn read(&self, key: &str) -> Result<Bytes, ObjectsError> {
        if let Some(bytes) = self.kept.get(key) {
            return Ok(bytes);
        }
        let late = || ObjectsError::Unavailable("no answer in time".to_owned());
        let read = async {
            let _turn = self.reads.acquire().await.map_err(|_| late())?;
            // Somebody else may have read it meanwhile.
            if let Some(bytes) = self.kept.get(key) {
                return Ok(bytes);
            }
            let bytes = self.objects.get(key, None).await?;
            self.kept.insert(key.to_owned(), bytes.clone());
            Ok(bytes)
        };
        timeout(READ, read).await.map_err(|_| late())?
    }
}

/// Answers `GET` and `HEAD` of `public/{name}`.
pub(crate) async fn serve(
    front: &Arc<Front>,
    method: &Method,
    name: &str,
    headers: &HeaderMap,
) -> Response<AnswerBody> {
    let Some(key) = Manifest::key(name) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let manifest = match front.public.read(&key).await {
        Ok(bytes) => Manifest::read(&bytes),
        Err(ObjectsError::NotFound(_)) => return plain(StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::warn!(name, %error, "a file for agents can not be read");
            return plain(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            tracing::error!(name, %error, "a file for agents has no list of its pieces");
            return plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let tag = format!("\"{name}\"");
    let said = |header| {
        headers
            .get(header)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let same = |tags: &str| {
        tags.split(',')
            .any(|one| one.trim() == tag || one.trim() == "*")
    };
    if said(IF_NONE_MATCH).is_some_and(same) {
        return tagged(plain(StatusCode::NOT_MODIFIED), &tag);
    }
    let size = manifest.size;
    let range = said(RANGE).filter(|_| said(IF_RANGE).is_none_or(|of| of == tag));
    let (status, range) = match range.map(|range| part(range, size)) {
        None | Some(Part::Whole) => (StatusCode::OK, 0..size),
        Some(Part::Of(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Part::Nothing) => {
            let mut response = tagged(plain(StatusCode::RANGE_NOT_SATISFIABLE), &tag);
            insert(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            return response;
        }
    };
    let length = range.end - range.start;
    let body = if method == Method::HEAD || length == 0 {
        AnswerBody::Full(None)
    } else {
        stream(front, manifest.pieces(&range))
    };
    let mut response = tagged(Response::new(body), &tag);
    *response.status_mut() = status;
    insert(&mut response, CONTENT_TYPE, "application/octet-stream");
    // An answer that ends before this is cut off, and nobody takes it for the whole.
    insert(&mut response, CONTENT_LENGTH, &length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let of = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        insert(&mut response, CONTENT_RANGE, &of);
    }
    response
}

fn plain(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Full(None));
    *response.status_mut() = status;
    response
}

fn tagged(mut response: Response<AnswerBody>, tag: &str) -> Response<AnswerBody> {
    insert(&mut response, ETAG, tag);
    insert(&mut response, ACCEPT_RANGES, "bytes");
    response
}

fn insert(response: &mut Response<AnswerBody>, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The pieces one after another; the next is read when the connection has taken the last.
fn stream(front: &Arc<Front>, pieces: VecDeque<Piece>) -> AnswerBody {
    let start = (Arc::clone(front), pieces);
    let stream = futures::stream::unfold(start, |(front, mut pieces)| async move {
        let piece = pieces.pop_front()?;
        match front.public.read(&piece.key).await {
            Ok(bytes) if piece.range.end <= bytes.len() => {
                Some((bytes.slice(piece.range), (front, pieces)))
            }
            Ok(_) => {
                tracing::error!(key = piece.key, "a piece of a file for agents is too short");
                None
            }
            Err(error) => {
                tracing::warn!(key = piece.key, %error, "a file for agents is cut off");
                None
            }
        }
    });
    AnswerBody::Padded(Box::pin(stream))
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Of(Range<u64>),
    /// It is of no unit or shape that is known: such a header counts for nothing.
    Whole,
    /// It begins behind the end.
    Nothing,
}

fn part(range: &str, size: u64) -> Part {
    let Some((first, last)) = range
        .trim()
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), "") if first < size => Part::Of(first..size),
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last < first => Part::Whole,
            Ok(last) if first < size => Part::Of(first..size.min(last.saturating_add(1))),
            Err(_) if !last.is_empty() => Part::Whole,
            _ => Part::Nothing,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(0) => Part::Nothing,
            Ok(length) if size > 0 => Part::Of(size.saturating_sub(length)..size),
            Ok(_) => Part::Nothing,
            Err(_) => Part::Whole,
        },
        (Err(_), _) => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (range, expected) in [
            ("bytes=0-9", Part::Of(0..10)),
            ("bytes=5-", Part::Of(5..100)),
            ("bytes=-5", Part::Of(95..100)),
            ("bytes=-500", Part::Of(0..100)),
            ("bytes=90-500", Part::Of(90..100)),
            ("bytes=99-99", Part::Of(99..100)),
            ("bytes=100-", Part::Nothing),
            ("bytes=100-200", Part::Nothing),
            ("bytes=-0", Part::Nothing),
            ("bytes=9-5", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=x-y", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=0-18446744073709551615", Part::Of(0..100)),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Nothing);
        assert_eq!(part("bytes=-1", 0), Part::Nothing);
    }
}
