//! What a foreman put out, read back from its topics and held against a fold of the test's own.

use bytes::Bytes;
use nublar_core::fold::{Fold, FoldConfig, Output, version};
use nublar_core::mac::{MacKey, MacKeys};
use nublar_core::partition::of_key;
use nublar_ports::index::{Collection, Query};
use nublar_ports::log::{From, Record, TailEvent};
use nublar_ports::{Index, Log, Storage};
use nublar_schemas::codec::Record as _;
use nublar_schemas::records::{Document, Notifications, Registry, Scheduling, Tasks};
use nublar_schemas::topics::{NOTIFICATIONS, REGISTRY, SCHEDULING, SETTINGS, STATE, TASKS};
use nublar_tests::Secrets;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

/// All records of a topic, each partition's in their order.
pub(crate) async fn records(log: &dyn Log, topic: &str) -> Vec<Record> {
    let partitions: Vec<u32> = (0..log.partitions(topic).await.unwrap()).collect();
    let mut tail = log.tail(topic, &partitions, From::Earliest).await.unwrap();
    let (mut records, mut open) = (Vec::new(), partitions.len());
    while open > 0 {
        match tail.next().await.unwrap() {
            TailEvent::Record(record) => records.push(record),
            TailEvent::CaughtUp { .. } => open -= 1,
        }
    }
    records
}

/// The keys with which an installation signs ids.
pub(crate) fn mac_keys(secrets: &Secrets) -> MacKeys {
    let mut keys = secrets.id_keys.iter().map(|key| MacKey {
        from_us: key.from_us,
        secret: hex::decode(&key.secret).unwrap().try_into().unwrap(),
    });
    MacKeys::new(keys.next().unwrap(), keys)
}

/// A record as its topic shows it: topic, partition, key and value.
type Shown = (&'static str, u32, Bytes, Bytes);

fn shown(output: &Output, partition: u32, news_partitions: u32) -> Shown {
    match output {
        Output::Task(task) => {
            let key = task.header().client.clone().into();
            (TASKS.name, partition, key, task.encode().unwrap().into())
        }
        Output::State(document) => {
            let key = format!("{}/{}", document.kind, document.id).into();
            let value = document.encode().unwrap().into();
            (STATE.name, partition, key, value)
        }
        Output::Notify(news) => {
            let header = news.header();
            let partition = of_key(&header.org, &header.client, news_partitions);
            let key = header.client.clone().into();
            let value = news.encode().unwrap().into();
            (NOTIFICATIONS.name, partition, key, value)
        }
        Output::Life(life) => {
            let value = Registry::from(life.clone()).encode().unwrap().into();
            (REGISTRY.name, partition, life.name().into(), value)
        }
        Output::Setting(setting) => {
            let key = format!("{}/{}/{}", setting.kind, setting.header.org, setting.id);
            let value = setting.encode().unwrap().into();
            (SETTINGS.name, 0, key.into(), value)
        }
    }
}

/// What was found in the topics.
#[derive(Debug)]
pub(crate) struct Decisions {
    /// Records that stand there.
    pub(crate) records: usize,
    /// Those of them that repeat another, byte for byte.
    pub(crate) repeats: usize,
}

/// Every output of every cause stands in its topic, and nothing else does: a repeat is one byte
/// for byte. Nobody may be working while this is looked at.
pub(crate) async fn assert_decided_once(storage: &Storage, config: FoldConfig) -> Decisions {
    let log = storage.log.as_ref();
    let news_partitions = log.partitions(NOTIFICATIONS.name).await.unwrap();
    let config = Arc::new(config);
    let mut folds: BTreeMap<u32, Fold> = BTreeMap::new();
    let mut due: BTreeSet<Shown> = BTreeSet::new();
    for record in records(log, SCHEDULING.name).await {
        let fold = folds
            .entry(record.partition)
            .or_insert_with(|| Fold::new(config.clone()));
        let version = version(record.position.generation, record.position.offset);
        let outputs = fold.apply(version, &Scheduling::decode(&record.value).unwrap());
        let outputs = outputs.iter();
        due.extend(outputs.map(|output| shown(output, record.partition, news_partitions)));
    }

    let mut found: BTreeMap<Shown, usize> = BTreeMap::new();
    for topic in [TASKS, STATE, NOTIFICATIONS, SETTINGS] {
        for record in records(log, topic.name).await {
            let place = (topic.name, record.partition, record.key, record.value);
            *found.entry(place).or_default() += 1;
        }
    }
    let missing: Vec<_> = due.iter().filter(|due| !found.contains_key(*due)).collect();
    let foreign: Vec<_> = found.keys().filter(|found| !due.contains(*found)).collect();
    assert!(missing.is_empty(), "never put out: {}", listed(&missing));
    assert!(
        foreign.is_empty(),
        "decided otherwise: {}",
        listed(&foreign)
    );
    assert_keys_name_one(found.keys());
    let records = found.values().sum();
    Decisions {
        records,
        repeats: records - found.len(),
    }
}

fn listed(shown: &[&Shown]) -> String {
    let first: Vec<_> = shown.iter().take(3).map(|shown| decoded(shown)).collect();
    format!("{} records, the first of them {first:#?}", shown.len())
}

fn decoded((topic, partition, key, value): &Shown) -> String {
    let value: Box<dyn Debug> = match *topic {
        "tasks" => Box::new(Tasks::decode(value)),
        "state" => Box::new(Document::decode(value)),
        "notifications" => Box::new(Notifications::decode(value)),
        _ => Box::new(value.clone()),
    };
    format!("{topic}/{partition} {key:?}: {value:?}")
}

/// No key stands for two things: an attempt is granted to one poll, a document of one version and
/// news of one id have one body.
fn assert_keys_name_one<'a>(shown: impl Iterator<Item = &'a Shown>) {
    let mut seen: BTreeMap<(&str, String), String> = BTreeMap::new();
    for (topic, _, _, value) in shown {
        let (key, what) = match *topic {
            "tasks" => match Tasks::decode(value).unwrap() {
                Tasks::Grant(grant) => (
                    format!("{}/{}", grant.flow_id, grant.attempt),
                    format!("{}/{}", grant.frontend, grant.poll),
                ),
                _ => continue,
            },
            "state" => {
                let document = Document::decode(value).unwrap();
                let key = format!("{}/{}/{}", document.kind, document.id, document.version);
                (key, document.body)
            }
            "notifications" => match Notifications::decode(value).unwrap() {
                Notifications::Notification(news) => (hex::encode(&news.id), news.body),
                _ => continue,
            },
            _ => continue,
        };
        let earlier = seen.insert((topic, key.clone()), what.clone());
        if let Some(earlier) = earlier {
            assert_eq!(earlier, what, "{topic}: {key} is two things");
        }
    }
}

/// The documents that the newest versions in `state` are, are those that the index holds. Gives
/// their number.
pub(crate) async fn assert_index_is_state(storage: &Storage) -> usize {
    let mut newest: BTreeMap<(Collection, String), (i64, Bytes)> = BTreeMap::new();
    for record in records(storage.log.as_ref(), STATE.name).await {
        let document = Document::decode(&record.value).unwrap();
        let collection = match document.kind.as_str() {
            "flow" => Collection::Flows,
            "client" => Collection::Clients,
            other => panic!("a document of kind {other}"),
        };
        let entry = newest.entry((collection, document.id)).or_default();
        if document.version > entry.0 {
            *entry = (document.version, document.body.into());
        }
    }
    let mut held = BTreeMap::new();
    for collection in [Collection::Flows, Collection::Clients] {
        for (id, body) in documents(storage.index.as_ref(), collection).await {
            held.insert((collection, id), body);
        }
    }
    let newest: BTreeMap<_, _> = newest
        .into_iter()
        .map(|(place, (_, body))| (place, body))
        .collect();
    let differ: Vec<_> = newest
        .iter()
        .filter(|(place, body)| held.get(*place) != Some(*body))
        .map(|(place, body)| (place, body, held.get(place)))
        .collect();
    assert!(
        differ.is_empty(),
        "{} differ: {:#?}",
        differ.len(),
        differ[0]
    );
    assert_eq!(newest.len(), held.len(), "documents that nobody made");
    newest.len()
}

async fn documents(index: &dyn Index, collection: Collection) -> Vec<(String, Bytes)> {
    index.refresh(collection).await.unwrap();
    let mut query = Query {
        limit: 500,
        ..Query::default()
    };
    let mut all = Vec::new();
    loop {
        let page = index.query(collection, "", &query).await.unwrap();
        let documents = page.documents.into_iter();
        all.extend(documents.map(|document| (document.id, document.body)));
        query.after = page.next;
        if query.after.is_none() {
            return all;
        }
    }
}

/// The flows whose completion was announced, with the body of every record that did.
pub(crate) async fn completions(log: &dyn Log) -> BTreeMap<String, Vec<String>> {
    let mut completions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records(log, NOTIFICATIONS.name).await {
        if let Ok(Notifications::Notification(news)) = Notifications::decode(&record.value)
            && news.kind == "flow_completion"
        {
            completions.entry(news.subject).or_default().push(news.body);
        }
    }
    completions
}

/// The flows of which a document in `state` says that they have ended, with each that does.
pub(crate) async fn ever_ended(log: &dyn Log) -> BTreeMap<String, Vec<String>> {
    let mut ended: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records(log, STATE.name).await {
        let document = Document::decode(&record.value).unwrap();
        if document.kind == "flow" {
            let body: serde_json::Value = serde_json::from_str(&document.body).unwrap();
            if body["state"] == "FINISHED" || body["state"] == "ERROR" {
                let flow = body["flow_id"].as_str().unwrap().to_owned();
                ended.entry(flow).or_default().push(document.body);
            }
        }
    }
    ended
}
