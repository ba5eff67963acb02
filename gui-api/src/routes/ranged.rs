//! Parts of an answer that never changes under its name: `Range`, `If-Range`, `If-None-Match`.

use super::answers::value;
use crate::refusal::Refusal;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::ops::Range;

/// What somebody who fetches wants of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requested {
    Whole,
    Part(Range<u64>),
    Outside,
    /// He has it already.
    Known,
}

/// Reads what is asked of a whole of this tag, with its quotes, and so many bytes.
pub(super) fn requested(headers: &HeaderMap, tag: &str, whole: u64) -> Requested {
    let said = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if said(header::IF_NONE_MATCH).is_some_and(|known| matches(known, tag)) {
        return Requested::Known;
    }
    // A part fits only what the other parts are of.
    let fits = said(header::IF_RANGE).is_none_or(|known| known.trim() == tag);
    match said(header::RANGE).filter(|_| fits) {
        Some(range) => read_range(range, whole),
        None => Requested::Whole,
    }
}

fn matches(known: &str, tag: &str) -> bool {
    let mut known = known.split(',').map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The head of an answer, and which bytes its body has; none when the head is all.
pub(super) fn head(
    requested: Requested,
    tag: &str,
    whole: u64,
) -> (StatusCode, HeaderMap, Option<Range<u64>>) {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, value(tag));
    headers.insert(header::ACCEPT_RANGES, value("bytes"));
    let (status, range) = match requested {
        Requested::Known => return (StatusCode::NOT_MODIFIED, headers, None),
        Requested::Outside => {
            let range = format!("bytes */{whole}");
            headers.insert(header::CONTENT_RANGE, value(&range));
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers, None);
        }
        Requested::Whole => (StatusCode::OK, 0..whole),
        Requested::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
    };
    let length = range.end.saturating_sub(range.start);
    headers.insert(header::CONTENT_LENGTH, value(&length.to_string()));
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{whole}", range.start, range.end - 1);
        headers.insert(header::CONTENT_RANGE, value(&part));
    }
    (status, headers, Some(range))
}

/// An answer without a body of the whole.
pub(super) fn bodiless(status: StatusCode, headers: HeaderMap, whole: u64) -> Response {
    let mut response = if status == StatusCode::RANGE_NOT_SATISFIABLE {
        let error = format!("the range is outside of the file's {whole} bytes");
        Refusal::new(status, error).into_response()
    } else {
        status.into_response()
    };
    response.headers_mut().extend(headers);
    response
}

/// One range; of several, or of what is none, the whole is given.
fn read_range(text: &str, whole: u64) -> Requested {
    let Some((from, to)) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Requested::Whole;
    };
    let range = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if to >= from => from..to.saturating_add(1).min(whole),
        (Ok(from), Err(_)) if to.trim().is_empty() => from..whole,
        (Err(_), Ok(last)) if from.trim().is_empty() => whole.saturating_sub(last)..whole,
        _ => return Requested::Whole,
    };
    if range.start < range.end {
        Requested::Part(range)
    } else {
        Requested::Outside
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        assert_eq!(read_range("bytes=-0", 100), Requested::Outside);
        assert_eq!(read_range("bytes=0-", 0), Requested::Outside);
        for ignored in ["bytes=5-1", "bytes=0-1,4-5", "rows=1-2", "bytes=x-"] {
            assert_eq!(read_range(ignored, 100), Requested::Whole, "{ignored}");
        }
    }

    #[test]
    fn a_part_is_given_only_of_what_is_meant() {
        let asked = |given: &[(HeaderName, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(name.clone(), value.parse().unwrap());
            }
            requested(&headers, "\"a\"", 100)
        };
        let range = (header::RANGE, "bytes=0-9");
        assert_eq!(asked(&[]), Requested::Whole);
        assert_eq!(asked(std::slice::from_ref(&range)), Requested::Part(0..10));
        for (known, given) in [
            ("\"a\"", Requested::Part(0..10)),
            ("\"b\"", Requested::Whole),
        ] {
            assert_eq!(asked(&[range.clone(), (header::IF_RANGE, known)]), given);
        }
        for (known, given) in [
            ("\"a\"", Requested::Known),
            ("\"b\", W/\"a\"", Requested::Known),
            ("*", Requested::Known),
            ("\"b\"", Requested::Part(0..10)),
        ] {
            let asked = asked(&[range.clone(), (header::IF_NONE_MATCH, known)]);
            assert_eq!(asked, given, "{known}");
        }
    }
}
