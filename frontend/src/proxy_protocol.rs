//! The PROXY protocol, versions 1 and 2: what a load balancer writes before everything else to say
//! for whom it connects.

use crate::networks::Networks;
use crate::peer::Peer;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

const TEXT: &[u8] = b"PROXY ";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included.
const TEXT_LIMIT: usize = 107;
/// Of version 2: what stands before the addresses, and how much may come after that.
const BINARY_HEAD: usize = 16;
const BINARY_LIMIT: usize = 4096;
/// No header of either version is shorter.
const SHORTEST: usize = 15;

/// How long a beginning that may still become a header is left alone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a connection is closed before it has said anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error(
        "a PROXY header from a peer that is not trusted: if it is a load balancer, list it in frontend.trusted_proxies"
    )]
    Unlisted,
    #[error("a PROXY header is not expected: set frontend.proxy_protocol = true to take it")]
    Unexpected,
    #[error("no PROXY header, though frontend.proxy_protocol is on: let the load balancer send it")]
    Missing,
    #[error("a PROXY header that can not be read: {0}")]
    Broken(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is known of a header by its first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// It has at least so many bytes more.
    Missing(usize),
    /// It is whole, and speaks for this address; for the sender itself if there is none.
    Whole(Option<IpAddr>),
}

/// Finds out for whom a new connection speaks. Nothing behind a header is read.
///
/// A trusted peer must send a header if headers are `expected`; nobody else may.
pub(crate) async fn receive(
    stream: &mut TcpStream,
    peer: Peer,
    trusted: &Networks,
    expected: bool,
) -> Result<Peer, ProxyError> {
    let listed = trusted.contain(peer.address());
    if listed && expected {
        return Ok(match read(stream).await? {
            Some(address) => peer.speaks_for(address),
            None => peer,
        });
    }
    if !begins_with_header(stream).await? {
        return Ok(peer);
    }
    Err(if listed {
        ProxyError::Unexpected
    } else {
        ProxyError::Unlisted
    })
}

/// Looks at how the connection begins, and leaves it where it is.
async fn begins_with_header(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; BINARY.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        let first = &first[..length];
        let is = |mark: &[u8]| first.starts_with(mark);
        let may_be = |mark: &[u8]| !first.is_empty() && mark.starts_with(first);
        if is(TEXT) || is(BINARY) {
            return Ok(true);
        }
        if !may_be(TEXT) && !may_be(BINARY) {
            return Ok(false);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Reads a header, and not a byte more.
async fn read(stream: &mut TcpStream) -> Result<Option<IpAddr>, ProxyError> {
    let mut header = Vec::with_capacity(TEXT_LIMIT);
    loop {
        match parse(&header)? {
            Header::Whole(address) => return Ok(address),
            Header::Missing(bytes) => {
                let begin = header.len();
                header.resize(begin + bytes, 0);
                stream.read_exact(&mut header[begin..]).await?;
            }
        }
    }
}

fn parse(header: &[u8]) -> Result<Header, ProxyError> {
    if header.len() < SHORTEST {
        return Ok(Header::Missing(SHORTEST - header.len()));
    }
    if header.starts_with(TEXT) {
        parse_text(header)
    } else if header.starts_with(BINARY) {
        parse_binary(header)
    } else {
        Err(ProxyError::Missing)
    }
}

/// `PROXY TCP4 source destination port port`, with a line end; or `PROXY UNKNOWN` and anything.
fn parse_text(header: &[u8]) -> Result<Header, ProxyError> {
    let Some(line) = header.strip_suffix(b"\r\n") else {
        if header.len() >= TEXT_LIMIT {
            return Err(ProxyError::Broken("the line does not end"));
        }
        return Ok(Header::Missing(if header.ends_with(b"\r") { 1 } else { 2 }));
    };
    let broken = Err(ProxyError::Broken(
        "expected PROXY, TCP4 or TCP6, two addresses and two ports",
    ));
    let Ok(line) = std::str::from_utf8(line) else {
        return broken;
    };
    let words: Vec<_> = line.split(' ').collect();
    let source: Option<IpAddr> = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return Ok(Header::Whole(None)),
        ["PROXY", "TCP4", source, _, _, _] => source.parse::<Ipv4Addr>().ok().map(Into::into),
        ["PROXY", "TCP6", source, _, _, _] => source.parse::<Ipv6Addr>().ok().map(Into::into),
        _ => None,
    };
    match source {
        Some(source) => Ok(Header::Whole(Some(source))),
        None => broken,
    }
}

/// A mark, version and command, family and protocol, the length of the rest; addresses and ports;
/// then whatever the sender adds.
fn parse_binary(header: &[u8]) -> Result<Header, ProxyError> {
    let Some((head, rest)) = header.split_at_checked(BINARY_HEAD) else {
        return Ok(Header::Missing(BINARY_HEAD - header.len()));
    };
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > BINARY_LIMIT {
        return Err(ProxyError::Broken("it is too long"));
    }
    if rest.len() < length {
        return Ok(Header::Missing(length - rest.len()));
    }
    match head[12] {
        // The load balancer's own, for example to see whether we live.
        0x20 => return Ok(Header::Whole(None)),
        0x21 => {}
        _ => return Err(ProxyError::Broken("neither version 2 nor a known command")),
    }
    let short = ProxyError::Broken("it is shorter than its addresses");
    let source = match head[13] >> 4 {
        1 => rest
            .first_chunk::<4>()
            .filter(|_| length >= 12)
            .map(|bytes| IpAddr::from(*bytes)),
        2 => rest
            .first_chunk::<16>()
            .filter(|_| length >= 36)
            .map(|bytes| IpAddr::from(*bytes)),
        _ => return Ok(Header::Whole(None)),
    };
    source
        .map(|source| Header::Whole(Some(source)))
        .ok_or(short)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Gives the parser what it asks for; says what it found and what it left.
    fn feed(bytes: &[u8]) -> Result<(Option<IpAddr>, usize), String> {
        let mut given = 0;
        loop {
            match parse(&bytes[..given]).map_err(|error| error.to_string())? {
                Header::Whole(address) => return Ok((address, bytes.len() - given)),
                Header::Missing(0) => panic!("asks for nothing"),
                Header::Missing(more) if given + more > bytes.len() => return Err("ends".into()),
                Header::Missing(more) => given += more,
            }
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, rest].concat()
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn both_versions_and_families_are_read_and_nothing_behind_them() {
        let v4 = [203, 0, 113, 9, 10, 0, 0, 1, 1, 2, 0, 80];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        let noted = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for (header, is) in [
            (
                b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n".to_vec(),
                address("203.0.113.9"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(),
                address("2001:db8::9"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4), address("203.0.113.9")),
            (binary(0x21, 0x21, &v6), address("2001:db8::9")),
            (binary(0x21, 0x11, &noted), address("203.0.113.9")),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            for behind in ["", "P", "\r\n", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"] {
                let bytes = [&header, behind.as_bytes()].concat();
                assert_eq!(feed(&bytes).unwrap(), (is, behind.len()), "{header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_in_bounds() {
        let long = [TEXT, &[b'1'; 200]].concat();
        for wrong in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 203.0.113.9 ::1 1 2\r\n".to_vec(),
            b"PROXY  TCP4 203.0.113.9 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 \xff\xff\xff\xff x 1 2\r\n".to_vec(),
            long,
            binary(0x21, 0x11, &[203, 0, 113, 9]),
            binary(0x31, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 5000]),
        ] {
            let error = feed(&wrong).unwrap_err();
            assert!(error.contains("PROXY header"), "{error}");
        }
    }
}
