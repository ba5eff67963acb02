//! Event tables: which event queries clients run, told at a contact until they say that they do.

use super::client::Client;
use super::{Fold, Turn, header};
use crate::ids::{ClientKey, OrgId};
use nublar_schemas::records::{Announce, EventTable, RequestRef};
use serde::{Deserialize, Serialize};

/// An org's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    request: RequestRef,
    /// Nanoseconds since 1970, as at existing deployments.
    version: i64,
}

/// What a client was last told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// The table's version.
    table: i64,
    /// The version under which the client got it: above whatever it had.
    version: i64,
}

impl Client {
    /// Under which version the client is to be told of the table; none if it runs it.
    fn lacks(&mut self, table: &Table) -> Option<i64> {
        let reported = self.table_version;
        if self.told.table != table.version || self.told.version < reported {
            // One that came from another server, or lost its table, has a version of its own.
            self.told = Told {
                table: table.version,
                version: table
                    .version
                    .max(reported.saturating_add(1))
                    .max(self.told.version.saturating_add(1)),
            };
        }
        (reported != self.told.version).then_some(self.told.version)
    }
}

impl Fold {
    /// Who compiles tables has a new one, or repeats the last one.
    pub(super) fn table_announced(&mut self, turn: &mut Turn, org: &OrgId, announce: &Announce) {
        let last = self.tables.get(org);
        let same = last.filter(|last| last.request.hash == announce.request.hash);
        let now = announce.header.at_us.saturating_mul(1_000);
        let version = match (same, last) {
            (Some(same), _) => same.version,
            (None, Some(last)) => now.max(last.version.saturating_add(1)),
            (None, None) => now,
        };
        let is_new = same.is_none();
        let request = announce.request.clone();
        self.tables.insert(org.clone(), Table { request, version });
        if !is_new {
            return;
        }
        let clients = self.clients.keys().filter(|key| key.org == *org);
        for key in clients.cloned().collect::<Vec<_>>() {
            self.tell_table(turn, &key);
        }
    }

    /// Tells a client of its table, if it does not run it.
    pub(super) fn tell_table(&mut self, turn: &mut Turn, key: &ClientKey) {
        let table = self.tables.get(&key.org).filter(|_| self.config.monitor);
        let (Some(table), Some(client)) = (table, self.clients.get_mut(key)) else {
            return;
        };
        // Who never came can not be reached; it is told when it comes.
        if client.first_seen_us == 0 {
            return;
        }
        if let Some(version) = client.lacks(table) {
            turn.task(EventTable {
                header: header(key, client.generation, turn.at_us),
                version,
                request: table.request.clone(),
            });
        }
    }
}
