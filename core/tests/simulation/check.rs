//! What must hold at the end of every seed.

use crate::world::{Violation, World};
use nublar_core::hidden::HiddenNames;
use nublar_core::ids::{ClientKey, FlowId, Life};
use nublar_core::ingest::{Collection, message_id, plan};
use nublar_schemas::agent::VeloMessage;
use nublar_schemas::records::Notifications;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;

fn document(world: &World, flow: &str) -> Option<Value> {
    let (agent, _) = world.truth.flows.get(flow)?;
    let client = &world.agents[*agent].key.client;
    let document = world.index.documents.get(&format!("{client}/{flow}"))?;
    serde_json::from_str(&document.body).ok()
}

pub fn state(world: &World, flow: &str) -> Option<String> {
    Some(document(world, flow)?["state"].as_str()?.to_owned())
}

/// The flows of clients that are not deleted.
pub fn of_the_living(world: &World) -> Vec<String> {
    let lives = |of: &(usize, i64)| world.generation(&world.agents[of.0].key) == of.1;
    let flows = world.truth.flows.iter().filter(|(_, of)| lives(of));
    flows.map(|(flow, _)| flow.clone()).collect()
}

/// How many flows finished, or what is wrong.
pub fn at_the_end(world: &World) -> Result<usize, Violation> {
    committed_is_stored(world)?;
    announced_once(world)?;
    deleted_stays_deleted(world)?;
    index_is_the_topics(world)?;
    let mut finished = 0;
    for flow in &of_the_living(world) {
        let document = document(world, flow).ok_or_else(|| format!("{flow} has no document"))?;
        match document["state"].as_str() {
            Some("FINISHED") => {
                finished += 1;
                whole(world, flow, &document)?;
            }
            Some("ERROR") => {
                if document["reason"].as_str().is_none_or(str::is_empty) {
                    return Err(format!("{flow} is an error without a reason"));
                }
            }
            other => {
                return Err(format!(
                    "{flow} is stuck in {other:?}: {}",
                    document["status"]
                ));
            }
        }
        if document["ran_twice"] == true {
            return Err(format!("{flow} ran twice"));
        }
        let cancelled = document["reason"] == "cancelled";
        if cancelled && !world.truth.cancelled.contains(flow) {
            return Err(format!("{flow} is cancelled and nobody asked for it"));
        }
    }
    projection_is_the_topic(world)?;
    Ok(finished)
}

/// Everything that an agent was told is safe is stored, once.
fn committed_is_stored(world: &World) -> Result<(), Violation> {
    for agent in &world.agents {
        for (generation, sent) in &agent.committed {
            let message = VeloMessage::decode(sent.bytes.clone()).unwrap();
            if message.vql_response.is_none() && message.file_buffer.is_none() {
                continue;
            }
            let now = world.generation(&agent.key);
            if *generation != now {
                continue;
            }
            let id = message_id(&agent.key, now, &sent.session, &sent.bytes).to_string();
            if !world.index.parts.contains_key(&id) {
                return Err(format!(
                    "a message of {} was answered 200 and is not stored",
                    sent.session
                ));
            }
        }
    }
    Ok(())
}

/// FINISHED means stored: exactly what the agent reports.
fn whole(world: &World, flow: &str, document: &Value) -> Result<(), Violation> {
    let sum = |of: Collection| {
        let parts = world
            .index
            .parts
            .values()
            .map(|(_, part)| part)
            .filter(|part| part.flow.as_ref().is_some_and(|id| id.as_str() == flow));
        parts
            .filter(|part| part.collection == of)
            .map(|part| part.size)
            .sum::<u64>()
    };
    let (rows, bytes) = (sum(Collection::Rows), sum(Collection::Buffers));
    let reported = (
        document["reported"]["rows"].as_u64().unwrap(),
        document["reported"]["bytes"].as_u64().unwrap(),
    );
    if (rows, bytes) != reported {
        return Err(format!(
            "{flow} is finished with {rows} rows, {bytes} bytes stored of {reported:?}"
        ));
    }
    if document["total_collected_rows"].as_u64() != Some(rows) {
        return Err(format!(
            "{flow} shows {} of {rows} rows",
            document["total_collected_rows"]
        ));
    }
    Ok(())
}

/// Exactly one completion per flow, by its id, and never for what was not stored.
fn announced_once(world: &World) -> Result<(), Violation> {
    let mut completions: BTreeMap<&str, Vec<&nublar_schemas::records::Notification>> =
        BTreeMap::new();
    for news in &world.log.news {
        if let Notifications::Notification(news) = news
            && news.kind == "flow_completion"
        {
            completions.entry(&news.subject).or_default().push(news);
        }
    }
    let living = of_the_living(world);
    for flow in world.truth.flows.keys() {
        let Some(told) = completions.get(flow.as_str()) else {
            if !living.contains(flow) {
                // It was asked for in the moment of the deletion.
                continue;
            }
            return Err(format!(
                "{flow} was never announced: {:?}",
                document(world, flow).map(|d| d["status"].clone())
            ));
        };
        if told
            .iter()
            .any(|news| news.id != told[0].id || news.body != told[0].body)
        {
            return Err(format!("{flow} was announced twice, differently"));
        }
    }
    Ok(())
}

/// Of a generation that was deleted nothing is left, and nothing of it stands in a later one.
fn deleted_stays_deleted(world: &World) -> Result<(), Violation> {
    for life in &world.truth.deleted {
        if world.generation(&life.client) <= life.generation {
            return Err(format!("{life:?} was deleted and lives"));
        }
    }
    for (life, part) in world.index.parts.values() {
        if life.generation < world.generation(&life.client) {
            return Err(format!("{life:?} was deleted, and {} is stored", part.id));
        }
        let own = |flow: &FlowId| world.keys.made_for(flow, &life.client, life.generation);
        if !part.flow.as_ref().is_some_and(own) {
            return Err(format!("{:?} is stored under {life:?}", part.flow));
        }
    }
    for document in world.index.documents.values() {
        let life = Life::of(&document.header).unwrap();
        if life.generation < world.generation(&life.client) {
            return Err(format!(
                "{life:?} was deleted, and {} is shown",
                document.id
            ));
        }
        let flow = document
            .id
            .split_once('/')
            .map(|(_, flow)| flow.parse::<FlowId>());
        if let Some(flow) = flow
            && !world
                .keys
                .made_for(&flow.unwrap(), &life.client, life.generation)
        {
            return Err(format!("{} is shown under {life:?}", document.id));
        }
    }
    Ok(())
}

/// Whoever reads the topics from their beginning, with the registry as it is now, stores the same.
fn index_is_the_topics(world: &World) -> Result<(), Violation> {
    let mut rebuilt = BTreeMap::new();
    for record in world.log.results.iter().chain(&world.log.uploads) {
        let life = Life::of(&record.header).unwrap();
        if life.generation < world.generation(&life.client) {
            continue;
        }
        let parts = plan(&life.client, record, &HiddenNames::default()).parts;
        rebuilt.extend(parts.into_iter().map(|part| (part.id.to_string(), part)));
    }
    let stored = world.index.parts.iter().map(|(id, (_, part))| (id, part));
    if !stored.eq(rebuilt.iter()) {
        return Err("the index holds other messages than the topics".to_owned());
    }
    Ok(())
}

/// Rebuilt from the topic by the highest version, the documents are the same.
fn projection_is_the_topic(world: &World) -> Result<(), Violation> {
    let mut rebuilt: BTreeMap<&str, &nublar_schemas::records::Document> = BTreeMap::new();
    let is_deleted = |document: &nublar_schemas::records::Document| {
        let key = ClientKey::of(&document.header).unwrap();
        document.body.is_empty() || document.header.generation < world.generation(&key)
    };
    for document in world.log.state.iter().filter(|one| !is_deleted(one)) {
        let known = rebuilt.entry(&document.id).or_insert(document);
        if document.version >= known.version {
            *known = document;
        }
    }
    if rebuilt.len() != world.index.documents.len() {
        return Err("the index holds other documents than the topic".to_owned());
    }
    for (id, document) in &world.index.documents {
        if rebuilt
            .get(id.as_str())
            .is_none_or(|other| other.body != document.body)
        {
            return Err(format!(
                "the index holds another document of {id} than the topic"
            ));
        }
    }
    Ok(())
}
