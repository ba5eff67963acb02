//! Puts agents' keys into the registry, as their enrolment would have.

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use nublar_core::ids::ClientKey;
use nublar_core::partition;
use nublar_ports::Log;
use nublar_ports::log::{From, TailEvent};
use nublar_schemas::records::{ClientKey as KeyRecord, Header, Registry};
use nublar_schemas::topics::REGISTRY;
use nublar_wire::AgentPublicKey;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

/// The generation of a client that was never deleted.
const GENERATION: i64 = 1;
/// Appends that are on their way at once.
const AT_ONCE: usize = 1_000;
/// How long the log may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) new: usize,
    pub(super) known: usize,
    /// Deleted here, or known under another key: those stay as they are.
    pub(super) kept: Vec<String>,
}

#[derive(Default)]
struct Known {
    key: Option<Bytes>,
    life: i64,
}

/// Appends the keys of the clients that the registry does not know.
///
/// Errors: the log does not answer, or not in time.
pub(super) async fn append(
    log: &dyn Log,
    keys: &[(ClientKey, AgentPublicKey)],
    at_us: i64,
) -> Result<Taken> {
    let partitions = log.partitions(REGISTRY.name).await?;
    let known = read(log, partitions).await?;
    let mut taken = Taken::default();
    let mut appends = FuturesUnordered::new();
    for (client, key) in keys {
        let public_key = spki(key)?;
        match known.get(client) {
            Some(known) if known.life > GENERATION => {
                taken
                    .kept
                    .push(format!("{}: was deleted here", client.client));
                continue;
            }
            Some(Known { key: Some(key), .. }) if *key == public_key => {
                taken.known += 1;
                continue;
            }
            Some(Known { key: Some(_), .. }) => {
                let line = format!("{}: is registered with another key", client.client);
                taken.kept.push(line);
                continue;
            }
            _ => {}
        }
        let record = KeyRecord {
            header: Header {
                org: client.org.to_string(),
                client: client.client.to_string(),
                generation: GENERATION,
                at_us,
                frontend: "import".to_owned(),
                trace: String::new(),
            },
            public_key,
        };
        let name = record.name();
        let partition = partition::of_client(client, partitions);
        let value = Registry::from(record).encode()?.into();
        appends.push(log.append(REGISTRY.name, partition, name.into(), value));
        taken.new += 1;
        while appends.len() >= AT_ONCE {
            acknowledged(&mut appends).await?;
        }
    }
    while !appends.is_empty() {
        acknowledged(&mut appends).await?;
    }
    Ok(taken)
}

async fn acknowledged<T, E, F>(appends: &mut FuturesUnordered<F>) -> Result<()>
where
    F: Future<Output = std::result::Result<T, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let done = timeout(PATIENCE, appends.next())
        .await
        .context("the log does not acknowledge: run the import again once it does")?;
    if let Some(done) = done {
        done.context("cannot append to the registry")?;
    }
    Ok(())
}

/// Everything that stands in the registry now.
async fn read(log: &dyn Log, partitions: u32) -> Result<HashMap<ClientKey, Known>> {
    let all: Vec<u32> = (0..partitions).collect();
    let mut tail = log.tail(REGISTRY.name, &all, From::Earliest).await?;
    let mut known: HashMap<ClientKey, Known> = HashMap::new();
    let mut left = partitions;
    while left > 0 {
        let event = timeout(PATIENCE, tail.next())
            .await
            .context("the log does not answer: run the import again once it does")??;
        let record = match event {
            TailEvent::CaughtUp { .. } => {
                left -= 1;
                continue;
            }
            TailEvent::Record(record) => record,
        };
        let record = Registry::decode(&record.value)
            .map_err(|error| anyhow!("a record of the registry cannot be read: {error}"))?;
        let client = ClientKey::of(record.header())?;
        let entry = known.entry(client).or_default();
        match record {
            Registry::ClientKey(key) => entry.key = Some(key.public_key),
            Registry::ClientLife(life) => entry.life = entry.life.max(life.header.generation),
        }
    }
    Ok(known)
}

/// The key as SubjectPublicKeyInfo in DER.
fn spki(key: &AgentPublicKey) -> Result<Bytes> {
    let refused = |_| anyhow!("the crypto library can not write the key");
    let key =
        aws_lc_rs::rsa::PublicKey::from_der(&key.to_der()).map_err(|error| anyhow!("{error}"))?;
    let der: PublicKeyX509Der<'_> = key.as_der().map_err(refused)?;
    Ok(Bytes::copy_from_slice(der.as_ref()))
}
