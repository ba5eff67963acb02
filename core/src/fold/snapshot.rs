//! The state as bytes, readable by newer logic: every field added later has a default.

use super::client::Client;
use super::tables::Table;
use super::{Announced, Fold, FoldConfig};
use crate::ids::{ClientKey, FlowId, OrgId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Version of this fold's logic. A snapshot of a higher one is refused.
pub const LOGIC: i32 = 4;

/// A snapshot that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Written by a newer program.
    #[error("snapshot was written by fold logic {0}, this process knows up to {LOGIC}: upgrade it")]
    Newer(i32),
    /// Not a snapshot's body.
    #[error("damaged snapshot: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// What [`Body`] is read from, without a second copy of the state.
#[derive(Serialize)]
struct Written<'a> {
    clients: Vec<(&'a ClientKey, &'a Client)>,
    interrogation: Vec<(&'a OrgId, &'a Announced)>,
    new_key: Vec<(&'a OrgId, &'a Announced)>,
    tables: Vec<(&'a OrgId, &'a Table)>,
    settings: Vec<(&'a OrgId, &'a str, i64)>,
    clock: u64,
    wall_us: i64,
    epoch: i64,
    ignored: u64,
    forget: &'a BTreeSet<(i64, ClientKey, FlowId)>,
}

#[derive(Deserialize)]
struct Body {
    clients: Vec<(ClientKey, Client)>,
    interrogation: Vec<(OrgId, Announced)>,
    #[serde(default)]
    new_key: Vec<(OrgId, Announced)>,
    #[serde(default)]
    tables: Vec<(OrgId, Table)>,
    settings: Vec<(OrgId, String, i64)>,
    clock: u64,
    wall_us: i64,
    epoch: i64,
    #[serde(default)]
    ignored: u64,
    #[serde(default)]
    forget: BTreeSet<(i64, ClientKey, FlowId)>,
}

impl Fold {
    /// The whole state as JSON.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let settings = self.settings.iter();
        let settings = settings.map(|((org, id), version)| (org, id.as_str(), *version));
        Ok(serde_json::to_vec(&Written {
            clients: self.clients.iter().collect(),
            interrogation: self.interrogation.iter().collect(),
            new_key: self.new_key.iter().collect(),
            tables: self.tables.iter().collect(),
            settings: settings.collect(),
            clock: self.clock,
            wall_us: self.wall_us,
            epoch: self.epoch,
            ignored: self.ignored,
            forget: &self.forget,
        })?)
    }

    /// The state of a snapshot that this or older logic wrote.
    pub fn restore(
        config: Arc<FoldConfig>,
        logic: i32,
        body: &[u8],
    ) -> Result<Self, SnapshotError> {
        if logic > LOGIC {
            return Err(SnapshotError::Newer(logic));
        }
        let body: Body = serde_json::from_slice(body)?;
        let clients: BTreeMap<_, _> = body.clients.into_iter().collect();
        let open = clients
            .iter()
            .flat_map(|(key, client)| {
                let open = client.flows.iter().filter(|(_, flow)| flow.is_open());
                open.map(|(id, _)| (key.clone(), id.clone()))
            })
            .collect();
        Ok(Self {
            config,
            clients,
            interrogation: body.interrogation.into_iter().collect(),
            new_key: body.new_key.into_iter().collect(),
            tables: body.tables.into_iter().collect(),
            settings: body
                .settings
                .into_iter()
                .map(|(org, id, version)| ((org, id), version))
                .collect(),
            open,
            forget: body.forget,
            clock: body.clock,
            wall_us: body.wall_us,
            epoch: body.epoch,
            ignored: body.ignored,
        })
    }
}
