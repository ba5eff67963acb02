//! Compiled requests, read by position when they are first needed and kept by hash.

use bytes::Bytes;
use moka::sync::Cache;
use nublar_core::sealed::{SealError, SealKeys};
use nublar_ports::Log;
use nublar_ports::log::{From, LogError, Position, TailEvent};
use nublar_schemas::codec::{CodecError, Record as _};
use nublar_schemas::records::{Request, RequestRef};
use nublar_schemas::topics::REQUESTS;
use std::sync::Arc;

/// Why a request can not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the reference names no place in the topic")]
    NoPlace,
    #[error("another request stands at that place")]
    WrongHash,
    #[error(transparent)]
    Sealed(#[from] SealError),
}

/// The cache. See the [module](self).
pub(crate) struct Requests {
    log: Arc<dyn Log>,
    /// As they stand in the log: secrets are opened when they are brought.
    kept: Cache<Bytes, Bytes>,
    seal: SealKeys,
}

impl Requests {
    pub(crate) fn new(log: Arc<dyn Log>, bytes: u64, seal: SealKeys) -> Self {
        let weigh = |key: &Bytes, body: &Bytes| (key.len() + body.len()) as u32;
        Self {
            log,
            seal,
            kept: Cache::builder().weigher(weigh).max_capacity(bytes).build(),
        }
    }

    /// The serialized FlowRequest that is meant.
    pub(crate) async fn get(&self, of: &RequestRef) -> Result<Bytes, RequestError> {
        if let Some(body) = self.kept.get(&of.hash) {
            return Ok(self.seal.open(&body)?);
        }
        let request = self.read(of).await?;
        if request.hash != of.hash || *blake3::hash(&request.body).as_bytes() != *of.hash {
            return Err(RequestError::WrongHash);
        }
        self.kept.insert(of.hash.clone(), request.body.clone());
        Ok(self.seal.open(&request.body)?)
    }

    async fn read(&self, of: &RequestRef) -> Result<Request, RequestError> {
        let place = |_| RequestError::NoPlace;
        let partition = u32::try_from(of.partition).map_err(place)?;
        let position = Position {
            generation: u16::try_from(of.log_generation).map_err(place)?,
            offset: u64::try_from(of.offset).map_err(place)?,
        };
        let from = From::Position(position);
        let mut tail = self.log.tail(REQUESTS.name, &[partition], from).await?;
        loop {
            match tail.next().await? {
                TailEvent::Record(record) if record.position == position => {
                    return Ok(Request::decode(&record.value)?);
                }
                TailEvent::Record(_) => return Err(RequestError::NoPlace),
                // It is acknowledged, so it stands there; this reader has not seen it yet.
                TailEvent::CaughtUp { to, .. } if to <= position => {}
                TailEvent::CaughtUp { .. } => return Err(RequestError::NoPlace),
            }
        }
    }
}
