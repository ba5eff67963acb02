//! The state as bytes, readable by newer logic: every field added later has a default.

use super::client::Client;
use super::tables::Table;
use super::{Announced, Fold, FoldConfig};
use crate::ids::{ClientKey, OrgId};
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

#[derive(Serialize, Deserialize)]
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
    forget: BTreeSet<(i64, ClientKey, crate::ids::FlowId)>,
}

impl Fold {
    /// The whole state as JSON.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let body = Body {
            clients: self
                .clients
                .iter()
                .map(|(key, client)| (key.clone(), client.clone()))
                .collect(),
            interrogation: self.interrogation.clone().into_iter().collect(),
            new_key: self.new_key.clone().into_iter().collect(),
            tables: self
                .tables
                .iter()
                .map(|(org, table)| (org.clone(), table.clone()))
                .collect(),
            settings: self
                .settings
                .iter()
                .map(|((org, id), version)| (org.clone(), id.clone(), *version))
                .collect(),
            clock: self.clock,
            wall_us: self.wall_us,
            epoch: self.epoch,
            ignored: self.ignored,
            forget: self.forget.clone(),
        };
        Ok(serde_json::to_vec(&body)?)
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
