//! The server's time, and times that people write.

use crate::refusal::{Answer, Refusal};
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

/// A time as `2026-11-24T10:09:00Z` or in seconds since 1970, as microseconds since 1970.
pub(crate) fn read_time(name: &str, text: &str) -> Answer<i64> {
    // 10,000 years; far below 2^53 microseconds.
    const MOST_SECONDS: f64 = 253_402_300_800.0;
    let seconds = text.parse::<f64>().ok();
    if let Some(seconds) = seconds.filter(|seconds| (0.0..MOST_SECONDS).contains(seconds)) {
        return Ok((seconds * 1e6).round() as i64);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    let us = moment.and_then(|moment| i64::try_from(moment.unix_timestamp_nanos() / 1_000).ok());
    us.filter(|us| *us >= 0).ok_or_else(|| {
        Refusal::bad(format!("{name}={text:?} is no time")).hint(
            "write 2026-11-24T10:09:00Z, or seconds since 1970; in an address a + is written %2B",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        for (text, us) in [
            ("0", 0),
            ("1795514940", 1_795_514_940_000_000),
            ("1795515463.765822", 1_795_515_463_765_822),
            ("2026-11-24T10:09:00Z", 1_795_514_940_000_000),
            ("2026-11-24T12:09:00.25+02:00", 1_795_514_940_250_000),
        ] {
            assert_eq!(read_time("since", text).unwrap(), us, "{text}");
        }
        for text in [
            "",
            "-1",
            "yesterday",
            "nan",
            "1e99",
            "2026-11-24",
            "1969-01-01T00:00:00Z",
        ] {
            let refusal = read_time("since", text).unwrap_err();
            assert!(refusal.error.contains("since="), "{text}: {refusal:?}");
        }
    }
}
