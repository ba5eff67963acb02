//! Who speaks: where a connection comes from, and for whom it speaks if a proxy is in between.

use crate::networks::Networks;
use http::HeaderMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other side of a connection, or of one request on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where the connection comes from.
    connection: SocketAddr,
    /// Whom it speaks for, as far as that is believed.
    address: IpAddr,
}

impl Peer {
    /// One who speaks for himself.
    pub(crate) fn new(connection: SocketAddr) -> Self {
        let address = connection.ip().to_canonical();
        Self {
            connection: SocketAddr::new(address, connection.port()),
            address,
        }
    }

    /// The same connection, which speaks for somebody else.
    pub(crate) fn speaks_for(self, address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            ..self
        }
    }

    /// Whom it speaks for.
    pub(crate) fn address(self) -> IpAddr {
        self.address
    }

    /// Where the connection comes from.
    pub(crate) fn connection(self) -> SocketAddr {
        self.connection
    }

    /// Who speaks for another, if somebody does.
    pub(crate) fn via(self) -> Option<IpAddr> {
        let from = self.connection.ip();
        (self.address != from).then_some(from)
    }

    /// Who sends a request on this connection: `X-Forwarded-For` is read from its end, as long as
    /// those who wrote it are trusted. Also says whether there was such a header of somebody who
    /// is not.
    pub(crate) fn of_request(self, headers: &HeaderMap, trusted: &Networks) -> (Self, bool) {
        let mut lines = headers.get_all(FORWARDED_FOR).iter().rev().peekable();
        if lines.peek().is_none() {
            return (self, false);
        }
        if !trusted.contain(self.address) {
            return (self, true);
        }
        let mut address = self.address;
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for hop in hops {
            // Whoever wrote what is no address knows no more than that somebody was there.
            let Some(before) = read(hop.trim()) else {
                break;
            };
            address = before;
            if !trusted.contain(address) {
                break;
            }
        }
        (self.speaks_for(address), false)
    }
}

/// An address, perhaps with a port.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let with_port = text.parse::<SocketAddr>().ok()?;
    Some(with_port.ip().to_canonical())
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via() {
            Some(_) => write!(f, "{} by {}", self.address, self.connection),
            None => self.connection.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn peer(address: &str) -> Peer {
        Peer::new(address.parse().unwrap())
    }

    fn forwarded(from: &str, lines: &[&str]) -> (String, bool) {
        let trusted = Networks::parse(&["10.0.0.0/8", "fd00::/8"]).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let (peer, ignored) = peer(from).of_request(&headers, &trusted);
        (peer.address().to_string(), ignored)
    }

    #[test]
    fn a_header_is_believed_as_far_as_those_who_wrote_it() {
        for (from, lines, is) in [
            ("10.0.0.1:5", vec!["203.0.113.9"], "203.0.113.9"),
            ("[fd00::1]:5", vec!["2001:db8::9"], "2001:db8::9"),
            // The agent's own invention stands before what the proxy has added.
            ("10.0.0.1:5", vec!["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:5", vec!["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
            // Two proxies of ours.
            (
                "10.0.0.1:5",
                vec!["1.2.3.4,203.0.113.9,10.9.9.9"],
                "203.0.113.9",
            ),
            ("10.0.0.1:5", vec!["10.1.1.1,10.9.9.9"], "10.1.1.1"),
            ("10.0.0.1:5", vec!["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1:5", vec!["[2001:db8::9]:4711"], "2001:db8::9"),
            ("10.0.0.1:5", vec!["[2001:db8::9]"], "2001:db8::9"),
            ("10.0.0.1:5", vec!["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1:5", vec!["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1:5", vec!["unknown, 10.9.9.9"], "10.9.9.9"),
            ("10.0.0.1:5", vec![""], "10.0.0.1"),
            ("10.0.0.1:5", vec![], "10.0.0.1"),
        ] {
            assert_eq!(
                forwarded(from, &lines),
                (is.to_owned(), false),
                "{from} {lines:?}"
            );
        }
    }

    #[test]
    fn a_header_of_somebody_else_changes_nothing() {
        let own = "203.0.113.1".to_owned();
        assert_eq!(
            forwarded("203.0.113.1:5", &["10.0.0.1"]),
            (own.clone(), true)
        );
        assert_eq!(forwarded("203.0.113.1:5", &[]), (own, false));
    }

    #[test]
    fn a_peer_is_shown_with_its_proxy() {
        let direct = peer("[::ffff:10.0.0.1]:5");
        assert_eq!(direct.to_string(), "10.0.0.1:5");
        let behind = direct.speaks_for("2001:db8::9".parse().unwrap());
        assert_eq!(behind.to_string(), "2001:db8::9 by 10.0.0.1:5");
    }
}
