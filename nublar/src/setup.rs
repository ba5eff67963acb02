//! Preparing an installation: topics, index, objects, the request that asks new clients who they
//! are, and the table of what they watch. Safe to repeat.

use crate::config::Config;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use nublar_core::artifact::{Collect, Compiler, Repository, Table, Tools, Wanted};
use nublar_ports::log::{Retention, TopicSpec};
use nublar_ports::{Log, Storage};
use nublar_schemas::agent::VqlEventTable;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{Announce, Header, Request, RequestRef, Scheduling};
use nublar_schemas::topics::{self, Keep, Partitions, REQUESTS, SCHEDULING};
use prost::Message;
use std::collections::BTreeMap;

/// Groups that read a topic: nothing is deleted before they have.
pub(crate) fn groups(topic: &str) -> Vec<String> {
    match topic {
        "results" | "uploads" | "events" | "dead-letters" => vec![topic.to_owned()],
        "state" => vec![topic.to_owned(), "seals".to_owned()],
        "scheduling" => vec![nublar_foreman::GROUP.to_owned()],
        _ => Vec::new(),
    }
}

/// The topics.
pub(crate) fn specs(partitions: u32) -> Vec<TopicSpec> {
    let spec = |topic: &topics::Topic| TopicSpec {
        name: topic.name.to_owned(),
        partitions: match topic.partitions {
            Partitions::PerClients => partitions,
            Partitions::Fixed(n) => n,
        },
        retention: match topic.keep {
            Keep::For(time) => Retention::Age(time),
            Keep::Newest => Retention::Compacted,
        },
        groups: groups(topic.name),
    };
    topics::ALL.iter().map(spec).collect()
}

/// Makes what is missing.
pub(crate) async fn prepare(config: &Config, storage: &Storage) -> Result<()> {
    storage
        .log
        .declare(&specs(config.partitions()))
        .await
        .context("cannot declare the topics")?;
    storage
        .index
        .prepare()
        .await
        .context("cannot prepare the index")?;
    storage
        .objects
        .prepare()
        .await
        .context("cannot prepare the objects")?;
    Ok(())
}

/// The artifact that asks a client who it is; one of this name that people wrote would win.
const INTERROGATION: &str = "Generic.Client.Info";

/// The artifact that has a clone make a key of its own.
const NEW_KEY: &str = "Generic.Client.Rekey";

/// What every client watches.
const WATCHED: [&str; 1] = ["Generic.Client.Stats"];

/// Compiles what foremen hand out by themselves, the interrogation, a clone's new key and the event
/// table, and tells every partition's foreman where they stand. Must be repeated within the retention of `requests`.
pub(crate) async fn announce(log: &dyn Log) -> Result<()> {
    let repository = Repository::builtin();
    let compiler = Compiler {
        repository: &repository,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::new(),
    };
    for (kind, artifact) in [("interrogation", INTERROGATION), ("new_key", NEW_KEY)] {
        let collect = Collect {
            artifacts: vec![Wanted::new(artifact)],
            urgent: true,
            ..Collect::default()
        };
        let compiled = compiler
            .compile(&collect)
            .with_context(|| format!("{artifact} does not compile"))?;
        let announced = Announced {
            kind,
            artifacts: compiled.artifacts,
            queries: compiled.queries,
            spec: compiled.spec.to_string(),
        };
        tell(log, compiled.bytes, announced).await?;
    }

    let table = Table {
        artifacts: WATCHED.map(Wanted::new).into(),
    };
    let compiled = compiler
        .compile_table(&table)
        .context("the event table does not compile")?;
    let queries = compiled.events.len();
    let bytes = VqlEventTable {
        event: compiled.events,
        version: 0,
    };
    let announced = Announced {
        kind: "event_table",
        artifacts: WATCHED.map(str::to_owned).into(),
        queries,
        spec: compiled.spec.to_string(),
    };
    tell(log, bytes.encode_to_vec().into(), announced).await
}

/// What a request is.
struct Announced {
    kind: &'static str,
    artifacts: Vec<String>,
    queries: usize,
    spec: String,
}

/// Puts a request into the log, and its place into every partition of `scheduling`.
async fn tell(log: &dyn Log, body: Bytes, what: Announced) -> Result<()> {
    let hash = blake3::hash(&body);
    let hash = Bytes::copy_from_slice(hash.as_bytes());
    let header = Header {
        at_us: now_us(),
        frontend: "setup".to_owned(),
        ..Header::default()
    };
    let partitions = log.partitions(REQUESTS.name).await?;
    let partition = hash
        .first()
        .map_or(0, |first| u32::from(*first) % partitions);
    let request = Request {
        header: header.clone(),
        hash: hash.clone(),
        body,
    };
    let position = log
        .append(
            REQUESTS.name,
            partition,
            hash.clone(),
            request.encode()?.into(),
        )
        .await?;
    let Ok(offset) = i64::try_from(position.offset) else {
        bail!("offset {} of requests is too large", position.offset)
    };
    let announce = Announce {
        header,
        kind: what.kind.to_owned(),
        request: RequestRef {
            hash,
            log_generation: i64::from(position.generation),
            partition: i32::try_from(partition)?,
            offset,
        },
        artifacts: what.artifacts,
        queries: i32::try_from(what.queries)?,
        spec: what.spec,
    };
    let value = Bytes::from(Scheduling::from(announce).encode()?);
    for partition in 0..log.partitions(SCHEDULING.name).await? {
        log.append(SCHEDULING.name, partition, Bytes::new(), value.clone())
            .await?;
    }
    Ok(())
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
