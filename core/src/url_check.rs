//! What `nublar check-url` and a frontend agree on: below which path the way of agents' requests is
//! tried out, who may do so, and what is answered.

use serde::{Deserialize, Serialize};

/// The paths of the check, below the base path.
pub const PATH: &str = "check-url/";
/// How long a pass is good before and after its time, seconds.
const GOOD: i64 = 900;
/// What passes are derived for.
const KEY: &str = "nublar 2026 check of a url: pass";

/// What lets one in: a proof that one knows an organisation's nonce, which is good for some minutes around
/// `at`, the server's time in seconds since 1970. Goes as a bearer token.
#[must_use]
pub fn pass(nonce: &str, at: i64) -> String {
    format!("{at}.{}", mac(nonce, at).to_hex())
}

fn mac(nonce: &str, at: i64) -> blake3::Hash {
    let key = blake3::derive_key(KEY, nonce.as_bytes());
    blake3::keyed_hash(&key, &at.to_le_bytes())
}

/// Whether a pass is of one of these nonces, and good at `now`.
#[must_use]
pub fn is_good<'a>(pass: &str, nonces: impl IntoIterator<Item = &'a str>, now: i64) -> bool {
    let read = || {
        let (at, mac) = pass.split_once('.')?;
        Some((at.parse::<i64>().ok()?, blake3::Hash::from_hex(mac).ok()?))
    };
    let Some((at, shown)) = read() else {
        return false;
    };
    // Hashes are compared in constant time.
    now.abs_diff(at) <= GOOD.unsigned_abs()
        && nonces.into_iter().any(|nonce| mac(nonce, at) == shown)
}

/// How a frontend knows from whom a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldBy {
    /// Nobody speaks for anybody else.
    Connection,
    /// `X-Forwarded-For` of a trusted proxy.
    Forwarded,
    /// There is an `X-Forwarded-For`, but who sends it is not trusted.
    ForwardedIgnored,
    /// A PROXY header.
    ProxyHeader,
}

/// The answer to `GET facts`: what a frontend sees of a request, and what it needs of its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The frontend's name.
    pub frontend: String,
    /// What it would record as the agent's address.
    pub address: String,
    /// Where the connection comes from.
    pub connection: String,
    /// How it knows the address.
    pub told_by: ToldBy,
    /// The version of HTTP that reaches it.
    pub version: String,
    /// The longest body that it takes, bytes.
    pub body_limit: usize,
    /// A held answer is silent for so long at most, seconds.
    pub pad_every_s: f64,
    /// A WebSocket is silent for so long at most, seconds.
    pub ping_every_s: f64,
    /// An answer is held for so long at most, seconds.
    pub max_poll_s: f64,
}

/// `POST answer` and the WebSocket `socket`: how to answer, as the query of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Milliseconds before anything is said; before the head, for `answer`.
    pub silent_ms: u64,
    /// Lines of an `answer`.
    pub lines: u64,
    /// Milliseconds between two of them.
    pub every_ms: u64,
}

impl Held {
    /// The longest silence that may be asked for, milliseconds.
    pub const LONGEST_MS: u64 = 120_000;
    /// The most lines, and the longest time between two of them in milliseconds.
    pub const LINES: u64 = 20;
    const EVERY_MS: u64 = 2_000;

    /// The query.
    #[must_use]
    pub fn query(&self) -> String {
        let Self {
            silent_ms,
            lines,
            every_ms,
        } = self;
        format!("silent_ms={silent_ms}&lines={lines}&every_ms={every_ms}")
    }

    /// Reads a query. What is too much is cut to what is allowed, what is missing is nothing.
    #[must_use]
    pub fn read(query: &str) -> Self {
        let number = |name: &str| {
            let parts = query.split('&').filter_map(|part| part.split_once('='));
            let mut values = parts.filter(|(key, _)| *key == name);
            values
                .next()
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(0)
        };
        Self {
            silent_ms: u64::min(number("silent_ms"), Self::LONGEST_MS),
            lines: u64::min(number("lines"), Self::LINES),
            every_ms: u64::min(number("every_ms"), Self::EVERY_MS),
        }
    }
}

/// The answer to `POST body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Bytes that came.
    pub bytes: usize,
    /// Milliseconds from the head to the last of them.
    pub over_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_514_940;

    #[test]
    fn a_pass_is_good_for_its_nonce_and_some_minutes() {
        let one = pass("one", NOW);
        assert!(is_good(&one, ["other", "one"], NOW));
        assert!(is_good(&one, ["one"], NOW + 900) && is_good(&one, ["one"], NOW - 900));
        assert!(!is_good(&one, ["one"], NOW + 901) && !is_good(&one, ["one"], NOW - 901));
        assert!(!is_good(&one, ["other"], NOW) && !is_good(&one, [], NOW));
        let later = one.replace(&NOW.to_string(), &(NOW + 1).to_string());
        let cut = &one[..one.len() - 1];
        for wrong in [
            later.as_str(),
            cut,
            "",
            ".",
            "x.y",
            &format!("{NOW}."),
            "-9223372036854775808.00",
        ] {
            assert!(!is_good(wrong, ["one"], NOW), "{wrong}");
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let asked = Held {
            silent_ms: 30_000,
            lines: 4,
            every_ms: 500,
        };
        assert_eq!(Held::read(&asked.query()), asked);
        let most = Held::read("silent_ms=99999999&lines=99999&every_ms=60000&x=1");
        assert_eq!(
            (most.silent_ms, most.lines, most.every_ms),
            (120_000, 20, 2_000)
        );
        for odd in ["", "silent_ms", "silent_ms=-1&lines=&every_ms=a", "&&=&="] {
            assert_eq!(Held::read(odd), Held::read("silent_ms=0"), "{odd}");
        }
    }
}
