//! HTTP or WebSockets as an agent speaks them, over a network that loses, repeats and delays when
//! told so.

use crate::chance::Chance;
use crate::error::SimError;
use crate::faults::{Coins, Fault, Faults};
use crate::sockets::Sockets;
use bytes::{Bytes, BytesMut};
use nublar_wire::Trust;
use reqwest::header;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// An answer whose body was read.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Where a 301 points.
    pub location: String,
    /// The body.
    pub body: Bytes,
}

/// An answer that did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// Nothing came.
    NoAnswer(String),
    /// It came in part.
    Cut(String),
}

/// The connections of one agent, or of several that share them.
#[derive(Debug)]
pub struct Transport {
    client: reqwest::Client,
    sockets: Option<Sockets>,
    faults: Faults,
    coins: Coins,
    posts: AtomicU64,
    chance: Mutex<Chance>,
}

impl Transport {
    /// Connections to whoever has a certificate of the CA. `http2`: taken when it is offered. What
    /// happens to them, the seed determines.
    pub fn new(trust: &Trust, http2: bool, faults: Faults, seed: u64) -> Result<Self, SimError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(trust.client_config(http2)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(20))
            // No answer may be silent for longer; a held poll is padded every ten seconds.
            .read_timeout(Duration::from_secs(300))
            .user_agent("Velociraptor")
            .build()?;
        Ok(Self {
            client,
            sockets: None,
            faults,
            coins: Coins::new(seed),
            posts: AtomicU64::new(0),
            chance: Mutex::new(Chance::new(seed)),
        })
    }

    /// The same, but what is posted goes over WebSockets. The network cannot repeat it there; what it
    /// loses costs the socket.
    pub fn over_websockets(mut self, trust: &Trust) -> Result<Self, SimError> {
        self.sockets = Some(Sockets::new(trust)?);
        Ok(self)
    }

    /// Fetches a document.
    pub async fn get(&self, url: &str) -> Result<Reply, Broken> {
        let response = self.client.get(url).send().await;
        read(response.map_err(no_answer)?).await
    }

    /// Posts a body.
    pub async fn post(&self, url: &str, body: Bytes, urgent: bool) -> Result<Reply, Broken> {
        let number = self.posts.fetch_add(1, Ordering::Relaxed) + 1;
        let hits = |fault, every| self.coins.hit(fault, every, number);
        self.delay().await;
        if hits(Fault::Drop, self.faults.drop_every) {
            self.end(url).await;
            return Err(Broken::NoAnswer("the post was lost on purpose".to_owned()));
        }
        let reply = if let Some(sockets) = &self.sockets {
            sockets.exchange(url, &body).await
        } else if hits(Fault::Repeat, self.faults.repeat_every) {
            // Whoever repeats takes the answer that comes first.
            let (first, second) = (
                self.send(url, body.clone(), urgent),
                self.send(url, body, urgent),
            );
            tokio::pin!(first, second);
            match futures::future::select(first, second).await {
                futures::future::Either::Left((reply, _))
                | futures::future::Either::Right((reply, _)) => reply,
            }
        } else {
            self.send(url, body, urgent).await
        };
        let mut reply = reply?;
        self.delay().await;
        if hits(Fault::Lose, self.faults.lose_every) {
            self.end(url).await;
            return Err(Broken::NoAnswer(
                "the answer was lost on purpose".to_owned(),
            ));
        }
        if hits(Fault::Cut, self.faults.cut_every) && !reply.body.is_empty() {
            self.end(url).await;
            reply.body.truncate(reply.body.len() / 2);
            return Err(Broken::Cut("the answer was cut on purpose".to_owned()));
        }
        Ok(reply)
    }

    /// A message of a socket is lost with the socket.
    async fn end(&self, url: &str) {
        if let Some(sockets) = &self.sockets {
            sockets.end(url).await;
        }
    }

    async fn send(&self, url: &str, body: Bytes, urgent: bool) -> Result<Reply, Broken> {
        let mut request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/binary")
            .body(body);
        if urgent {
            request = request.header("X-Priority", "urgent");
        }
        read(request.send().await.map_err(no_answer)?).await
    }

    async fn delay(&self) {
        if self.faults.delay_ms == 0 {
            return;
        }
        let part = self
            .chance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unit();
        tokio::time::sleep(Duration::from_millis(self.faults.delay_ms).mul_f64(part)).await;
    }
}

fn no_answer(error: reqwest::Error) -> Broken {
    Broken::NoAnswer(chain(&error))
}

/// An error with its causes, which alone say what it is.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn read(mut response: reqwest::Response) -> Result<Reply, Broken> {
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION);
    let location = location
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => {
                return Ok(Reply {
                    status,
                    location,
                    body: body.freeze(),
                });
            }
            Err(error) => return Err(Broken::Cut(chain(&error))),
        }
    }
}
