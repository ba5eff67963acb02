//! Talking to the server's API.

use super::target::Place;
use anyhow::{Context, Result, anyhow};
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// A server that does not even take the connection in this time does not run.
const CONNECT: Duration = Duration::from_secs(10);
/// The server says something at least every 15 seconds, whatever it waits for.
const SILENCE: Duration = Duration::from_secs(90);

/// A server's API.
pub(super) struct Rest {
    client: Client,
    place: Place,
}

/// The server said no.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    text: String,
    /// The whole answer.
    pub(super) body: Value,
}

/// A part of a path, whatever it holds.
pub(super) fn escaped(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn client(url: &str, silence: Option<Duration>) -> Result<Client> {
    let mut builder = Client::builder().connect_timeout(CONNECT);
    if let Some(silence) = silence {
        builder = builder.read_timeout(silence);
    }
    if ["127.0.0.1", "[::1]", "localhost"]
        .iter()
        .any(|host| url.contains(host))
    {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// Begins to download what anybody may.
pub(super) async fn download(url: &str) -> Result<Response> {
    let response = client(url, Some(SILENCE))?.get(url).send().await;
    let response = response.and_then(Response::error_for_status);
    response.map_err(|error| anyhow!("cannot fetch {url} ({})", cause(&error.without_url())))
}

/// What is at the bottom of an error.
fn cause<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

impl Rest {
    pub(super) fn new(place: Place) -> Result<Self> {
        // Another part of the process may have chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self::within(place, Some(SILENCE))
    }

    /// The same for a request that takes as long as it does, such as sending a large file.
    pub(super) fn unhurried(&self) -> Result<Self> {
        Self::within(self.place.clone(), None)
    }

    fn within(place: Place, silence: Option<Duration>) -> Result<Self> {
        Ok(Self {
            client: client(&place.url, silence)?,
            place,
        })
    }

    /// A request for a path below `/api/v1`.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1{path}", self.place.url);
        self.client
            .request(method, url)
            .bearer_auth(&self.place.token)
    }

    /// Sends a request; an answer that says no is an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unanswered(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let said = |name: &str| body.get(name).and_then(Value::as_str);
        let mut text =
            said("error").map_or_else(|| format!("the server answered {status}"), str::to_owned);
        if status == StatusCode::UNAUTHORIZED {
            text = format!("the server at {} does not take this token", self.place.url);
        }
        if let Some(what_to_do) = said("what_to_do") {
            let _ = write!(text, "; {what_to_do}");
        }
        Err(Refused { status, text, body }.into())
    }

    /// Whether a request may be repeated: it never arrived, or its answer got lost.
    pub(super) fn is_lost(error: &anyhow::Error) -> bool {
        error.downcast_ref::<Refused>().is_none()
    }

    fn unanswered(&self, error: &reqwest::Error) -> anyhow::Error {
        let cause = cause(error);
        let Place {
            url, unanswered, ..
        } = &self.place;
        anyhow!("the server at {url} does not answer ({cause}); {unanswered}")
    }

    /// `GET` of JSON.
    pub(super) async fn json(&self, path: &str) -> Result<Value> {
        let request = self
            .request(Method::GET, path)
            .header(ACCEPT, "application/json");
        read(self.send(request).await?).await
    }

    /// `GET` of anything.
    pub(super) async fn stream(&self, path: &str) -> Result<Response> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Every item of a list that comes in pages, or so many.
    pub(super) async fn pages(
        &self,
        path: &str,
        query: &str,
        items: &str,
        limit: Option<usize>,
        mut each: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        const PAGE: usize = 500;
        let mut left = limit.unwrap_or(usize::MAX);
        let mut after = String::new();
        while left > 0 {
            let size = left.min(PAGE);
            let page = self
                .json(&format!("{path}?limit={size}{query}{after}"))
                .await?;
            let listed = page
                .get(items)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            left = left.saturating_sub(listed.len());
            listed.into_iter().try_for_each(&mut each)?;
            match page.get("next").and_then(Value::as_str) {
                Some(next) => after = format!("&after={}", escaped(next)),
                None => break,
            }
        }
        Ok(())
    }
}

/// An answer that is JSON.
pub(super) async fn read(response: Response) -> Result<Value> {
    let bytes = response.bytes().await.context("the answer was cut off")?;
    serde_json::from_slice(&bytes).context("the answer is no JSON: is this a Nublar server?")
}

/// What a head says under a name.
pub(super) fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
