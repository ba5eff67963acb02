//! The check of one URL, in the order in which an agent would come to trouble.

use super::connect::{Clients, Url, cause};
use super::finding::{Finding, Report};
use super::known::Known;
use super::way::{Cut, PAUSE, Way};
use crate::certificates::Dates;
use anyhow::{Context, Result};
use nublar_core::url_check::{Facts, ToldBy, pass};
use nublar_wire::Trust;
use reqwest::header::DATE;
use reqwest::tls::TlsInfo;
use reqwest::{Response, StatusCode};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use time::{OffsetDateTime, PrimitiveDateTime};

const MIB: usize = 1 << 20;
/// The smallest body that is tried.
const SMALL: usize = 16 << 10;
/// Clocks may differ by so many seconds.
const SKEW: i64 = 60;

/// Checks a URL and tells what is found as soon as it is.
pub(super) async fn check(
    url: &Url,
    known: &Known,
    idle: Duration,
    report: &mut Report,
) -> Result<()> {
    match url.addresses().await {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            report.tell(Finding::ok("address", addresses.join(", ")))?;
        }
        Err(error) => {
            let change = "the name is unknown on this machine: look at the URL, and at the DNS";
            return report.tell(Finding::bad("address", error.to_string(), change));
        }
    }
    let trust = Trust::new(known.ca.as_bytes())?;
    let Some((clients, answer)) = connect(url, known, &trust, report).await? else {
        return Ok(());
    };
    let (now, remote) = (server_time(&answer), answer.remote_addr());
    if !server_pem(answer, known, &trust, report).await? {
        return Ok(());
    }
    let here = OffsetDateTime::now_utc().unix_timestamp();
    let now = now.unwrap_or(here);
    if (now - here).abs() > SKEW {
        let seen = format!("this machine's is {} s from the server's", here - now);
        let change = "agents go by their own clocks when they look at certificates";
        report.tell(Finding::note("clock", seen, change))?;
    }
    let way = Way {
        clients,
        url,
        pass: pass(&known.nonce, now),
    };
    let facts = match way.facts().await {
        Ok(facts) => facts,
        Err(cut) => return report.tell(no_facts(&cut)),
    };
    report.tell(seen_as(&facts, remote))?;
    if url.is_for_sockets() {
        sockets(&way, &facts, idle, report).await
    } else {
        posts(&way, &facts, idle, report).await
    }
}

/// Fetches `server.pem` as agents do: from whoever shows a certificate that they trust.
async fn connect(
    url: &Url,
    known: &Known,
    trust: &Trust,
    report: &mut Report,
) -> Result<Option<(Clients, Response)>> {
    let pem = url.below("server.pem");
    let clients = Clients::new(url, Some(trust))?;
    let error = match clients.get(&pem).await {
        Ok(answer) => {
            let seen = match until(&answer) {
                Some(until) => format!("of the agents' authority, until {until}"),
                None => "none: plain HTTP".to_owned(),
            };
            report.tell(Finding::ok("certificate", seen))?;
            return Ok(Some((clients, answer)));
        }
        Err(error) => error,
    };
    let public = Clients::new(url, None)?;
    if url.is_encrypted()
        && let Ok(answer) = public.get(&pem).await
    {
        let until = until(&answer).unwrap_or_default();
        let seen = format!("of an authority that this machine trusts, until {until}");
        report.tell(match known.public {
            true => Finding::ok("certificate", seen),
            false => Finding::bad(
                "certificate",
                format!("{seen}; agents do not"),
                "print their configuration with `nublar client-config --public-certificate`, or let the server's own certificate be shown",
            ),
        })?;
        return Ok(Some((public, answer)));
    }
    let (about, change) = match refused_certificate(&error) {
        true => (
            "certificate",
            "show the server's own (tls of the secrets file), or one of an authority that the machines trust, with `nublar client-config --public-certificate`",
        ),
        false if error.is_connect() && !is_closed(&error) => (
            "connection",
            "does a load balancer or a frontend listen there, and does no firewall stand before it?",
        ),
        false => (
            "connection",
            "where TLS is carried: frontend.proxy_protocol = true, and a PROXY header (nginx: proxy_protocol on, HAProxy: send-proxy-v2, Envoy: ProxyProtocolUpstreamTransport), or neither; the frontend's log says which is missing",
        ),
    };
    report.tell(Finding::bad(about, cause(&error), change))?;
    Ok(None)
}

/// When the certificate of a connection ends.
fn until(answer: &Response) -> Option<String> {
    let shown = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
    let until = Dates::of_der(shown).ok()?.until;
    let until = OffsetDateTime::from_unix_timestamp(until).ok()?;
    Some(until.date().to_string())
}

/// The causes of an error, the deepest last; what an IO error holds is one of them.
fn causes<'a>(
    error: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
        let held = error.downcast_ref::<std::io::Error>();
        match held.and_then(std::io::Error::get_ref) {
            Some(held) => Some(held),
            None => error.source(),
        }
    })
}

fn refused_certificate(error: &reqwest::Error) -> bool {
    let tls = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether a connection was made, and ended without a word.
fn is_closed(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    let mut causes = causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|error| {
        matches!(
            error.kind(),
            ConnectionReset | ConnectionAborted | UnexpectedEof
        )
    })
}

/// The server's clock by the head of an answer, seconds since 1970.
fn server_time(answer: &Response) -> Option<i64> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = answer.headers().get(DATE)?.to_str().ok()?;
    let date = PrimitiveDateTime::parse(date, format).ok()?;
    Some(date.assume_utc().unix_timestamp())
}

/// Whether what was served is what agents encrypt to.
async fn server_pem(
    answer: Response,
    known: &Known,
    trust: &Trust,
    report: &mut Report,
) -> Result<bool> {
    let about = "server.pem";
    let status = answer.status();
    let finding = match status {
        StatusCode::OK => {
            let pem = answer.bytes().await.context("server.pem is cut off")?;
            match trust.check_server(&pem, &known.name) {
                Err(error) => Finding::bad(
                    about,
                    error.to_string(),
                    "agents refuse it: another server answers there, or one with other secrets",
                ),
                Ok(key) if !known.keys.is_empty() && !known.keys.contains(&key) => Finding::bad(
                    about,
                    "of the agents' authority, but with another key than this installation's",
                    "give every frontend the same secrets file",
                ),
                Ok(_) => {
                    let whose = match known.keys.is_empty() {
                        true => "of the agents' authority",
                        false => "of this installation",
                    };
                    report.tell(Finding::ok(about, whose))?;
                    return Ok(true);
                }
            }
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Finding::bad(
                about,
                status.to_string(),
                "the load balancer reaches no frontend: look at its addresses of them, and at `healthz` there",
            )
        }
        StatusCode::NOT_FOUND => Finding::bad(
            about,
            status.to_string(),
            "nobody serves it under this path: it must be frontend.base_path, and the load balancer must pass it on as it is",
        ),
        _ => Finding::bad(
            about,
            status.to_string(),
            "what answers there is no frontend, and agents follow no redirection",
        ),
    };
    report.tell(finding)?;
    Ok(false)
}

fn no_facts(cut: &Cut) -> Finding {
    let about = "frontend";
    let change = match cut.status {
        Some(StatusCode::FORBIDDEN) => {
            "the frontend does not know this nonce: are its secrets those of this installation, or of this agent's configuration?"
        }
        Some(StatusCode::NOT_FOUND) => {
            "nothing more can be tried: let the load balancer pass check-url/ on, and upgrade frontends that do not know it"
        }
        Some(StatusCode::TOO_MANY_REQUESTS) => "others are checking: try again",
        _ => "let the load balancer pass check-url/ on",
    };
    Finding::bad(about, cut.how.clone(), change)
}

/// By which address the server knows this machine.
fn seen_as(facts: &Facts, remote: Option<SocketAddr>) -> Finding {
    let about = "seen as";
    let Facts {
        address,
        connection,
        ..
    } = facts;
    match facts.told_by {
        ToldBy::Forwarded => Finding::ok(
            about,
            format!("{address}, by X-Forwarded-For of {connection}"),
        ),
        ToldBy::ProxyHeader => Finding::ok(
            about,
            format!("{address}, by a PROXY header of {connection}"),
        ),
        ToldBy::ForwardedIgnored => Finding::bad(
            about,
            format!(
                "{address}, as all agents are: {connection} sends X-Forwarded-For and is not believed"
            ),
            format!("trusted_proxies = [\"{connection}\"] in [frontend]"),
        ),
        ToldBy::Connection
            if own_address(remote).is_some_and(|own| own.to_string() == *address) =>
        {
            Finding::ok(about, format!("{address}, directly"))
        }
        ToldBy::Connection => Finding::note(
            about,
            format!("{address}, which is not this machine's"),
            "if it is the load balancer's, let it tell (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for, HAProxy: option forwardfor, Envoy: use_remote_address: true; where it carries TLS a PROXY header), and list it in frontend.trusted_proxies",
        ),
    }
}

/// The address of this machine from which it reaches another.
fn own_address(remote: Option<SocketAddr>) -> Option<IpAddr> {
    let remote = remote?;
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What agents need over HTTP.
async fn posts(way: &Way<'_>, facts: &Facts, idle: Duration, report: &mut Report) -> Result<()> {
    let probes = async {
        let lines = way.passes_lines().await;
        (lines, way.passes_body(facts.body_limit, PAUSE).await)
    };
    let (silence, (lines, body)) = tokio::join!(way.passes_silence(idle), probes);
    let held_back = matches!(lines, Ok(false));
    report.tell(match lines {
        Ok(true) => Finding::ok("answers", "pass as they are sent"),
        Ok(false) => Finding::note(
            "answers",
            "are held back until they are whole",
            "nginx: proxy_buffering off; agents can live without, but polls are silent until their end",
        ),
        Err(cut) => Finding::bad(
            "answers",
            format!("cut after {}: {}", seconds(cut.after), cut.how),
            "answers take seconds to be whole",
        ),
    })?;
    let needed = if held_back {
        facts.max_poll_s
    } else {
        facts.pad_every_s
    };
    let remedy = "nginx: proxy_read_timeout, HAProxy: timeout server and timeout client, Envoy: stream_idle_timeout, and timeout: 0s of the route";
    report.tell(silent(idle, silence, needed, "polls", remedy))?;
    let finding = match body {
        Ok(read) if read.over_ms >= PAUSE.as_millis() as u64 / 2 => {
            Finding::ok("bodies", format!("of {} pass", size(facts.body_limit)))
        }
        Ok(_) => Finding::note(
            "bodies",
            format!(
                "of {} pass, gathered before they are passed on",
                size(facts.body_limit)
            ),
            "nginx: proxy_request_buffering off; it costs time and a copy on its disk",
        ),
        Err(cut) => {
            let largest = largest_body(way, facts.body_limit).await;
            let passes = match largest {
                Some(bytes) => format!("{} pass", size(bytes)),
                None => format!("nor do {} pass", size(SMALL)),
            };
            let seen = format!("of {} fail ({}); {passes}", size(facts.body_limit), cut.how);
            let most = facts.body_limit / MIB + 1;
            let change = match cut.status {
                Some(StatusCode::PAYLOAD_TOO_LARGE) => {
                    format!("nginx: client_max_body_size {most}m")
                }
                _ => format!("let bodies of up to {most} MiB pass"),
            };
            Finding::bad("bodies", seen, change)
        }
    };
    report.tell(finding)
}

/// What agents need over WebSockets.
async fn sockets(way: &Way<'_>, facts: &Facts, idle: Duration, report: &mut Report) -> Result<()> {
    let open = async |silent| match way.socket(silent).await {
        Ok(socket) => Ok(socket.passes_silence().await),
        Err(cut) => Err(cut),
    };
    let silence = match open(Duration::ZERO).await {
        Ok(Ok(())) => {
            report.tell(Finding::ok("websocket", "opens and answers"))?;
            open(idle).await
        }
        Ok(Err(cut)) => Err(cut),
        Err(cut) => Err(cut),
    };
    match silence {
        Ok(silence) => {
            let remedy = "nginx: proxy_read_timeout and proxy_send_timeout, HAProxy: timeout tunnel, Envoy: stream_idle_timeout";
            report.tell(silent(idle, silence, facts.ping_every_s, "WebSockets", remedy))
        }
        Err(cut) => report.tell(Finding::bad(
            "websocket",
            format!("none: {}", cut.how),
            "nginx: proxy_http_version 1.1, proxy_set_header Upgrade $http_upgrade, and Connection to go with it; Envoy: upgrade_type: websocket",
        )),
    }
}

/// What becomes of `what` that are silent for at most `needed` seconds.
fn silent(
    tried: Duration,
    came: Result<(), Cut>,
    needed: f64,
    what: &str,
    remedy: &str,
) -> Finding {
    let about = "idle limit";
    // Nothing is punctual to the second.
    let enough = needed * 1.1 + 1.0;
    match came {
        Ok(()) if tried.as_secs_f64() < enough => Finding::note(
            about,
            format!("none within {}", seconds(tried)),
            format!(
                "{what} are silent for up to {needed} s; --idle {} tries that",
                enough.ceil()
            ),
        ),
        Ok(()) => Finding::ok(about, format!("none within {}", seconds(tried))),
        Err(cut) if cut.after.as_secs_f64() >= enough => Finding::ok(
            about,
            format!(
                "{} ({}); {what} are silent for {needed} s at most",
                seconds(cut.after),
                cut.how
            ),
        ),
        Err(cut) if cut.status == Some(StatusCode::TOO_MANY_REQUESTS) => {
            Finding::note(about, "not tried: others are checking", "try again")
        }
        Err(cut) => Finding::bad(
            about,
            format!(
                "{} ({}), and {what} are silent for up to {needed} s",
                seconds(cut.after),
                cut.how
            ),
            format!("{remedy}: more than {} s", enough.ceil()),
        ),
    }
}

/// About how large a body may be, bytes.
async fn largest_body(way: &Way<'_>, too_large: usize) -> Option<usize> {
    let sizes = std::iter::successors(Some(too_large.next_power_of_two() / 2), |size| {
        Some(size / 2)
    });
    for bytes in sizes.take_while(|bytes| *bytes >= SMALL) {
        if way.passes_body(bytes, Duration::ZERO).await.is_ok() {
            return Some(bytes);
        }
    }
    None
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn size(bytes: usize) -> String {
    match bytes {
        MIB.. => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes >> 10),
    }
}
