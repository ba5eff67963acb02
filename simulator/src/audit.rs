//! Reads everything that a server shows and has it checked against the ledger.

use crate::api::{Api, Shown};
use crate::checker::{LOGS, check_flow, count_lines};
use crate::entries::FlowEntry;
use crate::error::SimError;
use crate::ledger::{Book, Ledger, Violation};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Flows that are read at once.
const AT_ONCE: usize = 16;
/// For how long log rows may stay behind the end of their flow once the agent has sent them.
const LATE_LOGS: Duration = Duration::from_secs(10);
/// Violations that a report shows.
const SHOWN: usize = 20;

/// What a server showed, and what was wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Clients that were looked at.
    pub clients: u64,
    /// Flows that were looked at.
    pub flows: u64,
    /// Those that finished.
    pub finished: u64,
    /// Those that ended in an error.
    pub failed: u64,
    /// Why those ended, with their number.
    pub reasons: BTreeMap<String, u64>,
    /// Requests of flows that agents received.
    pub deliveries: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Log rows that were compared.
    pub logs: u64,
    /// Bytes of files that were compared.
    pub bytes: u64,
    /// Violations, by rule.
    pub rules: BTreeMap<String, u64>,
    /// Violations in all.
    pub violations: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Audit {
    fn add(&mut self, violation: &Violation) {
        self.violations += 1;
        *self.rules.entry(violation.rule.to_owned()).or_default() += 1;
        if self.first.len() < SHOWN {
            self.first.push(violation.to_string());
        }
    }

    fn see(&mut self, entry: &FlowEntry, shown: Option<&Shown>) {
        self.flows += 1;
        self.deliveries += entry.deliveries.len() as u64;
        let Some(shown) = shown else { return };
        match shown.text("state") {
            "FINISHED" => self.finished += 1,
            "ERROR" => {
                self.failed += 1;
                *self
                    .reasons
                    .entry(shown.text("reason").to_owned())
                    .or_default() += 1;
            }
            _ => {}
        }
        self.rows += shown
            .results
            .values()
            .map(|rows| count_lines(rows) as u64)
            .sum::<u64>();
        self.logs += count_lines(&shown.logs) as u64;
        self.bytes += shown
            .uploads
            .iter()
            .map(|upload| upload.bytes.len() as u64)
            .sum::<u64>();
    }
}

/// Waits until every flow of every client has ended; gives the number of those that have not when
/// the time is over.
pub async fn wait_until_final(
    api: &Api,
    ledger: &Ledger,
    within: Duration,
) -> Result<usize, SimError> {
    let deadline = Instant::now() + within;
    let mut left = ledger.books();
    loop {
        let open: Vec<(Arc<Book>, usize)> = futures::stream::iter(left)
            .map(|book| async move {
                let flows = api.flows(book.client()).await?;
                let asked_for = book.flows();
                let missing = asked_for
                    .iter()
                    .filter(|flow| !flows.contains_key(*flow))
                    .count();
                let open = flows.into_values().filter(|flow| !is_final(flow)).count();
                Ok::<_, SimError>((book, missing + open))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter(|(_, open)| std::future::ready(*open > 0))
            .try_collect()
            .await?;
        let count = open.iter().map(|(_, open)| open).sum();
        if count == 0 || Instant::now() >= deadline {
            return Ok(count);
        }
        left = open.into_iter().map(|(book, _)| book).collect();
        sleep(Duration::from_millis(500)).await;
    }
}

fn is_final(document: &Value) -> bool {
    matches!(
        document.get("state").and_then(Value::as_str),
        Some("FINISHED" | "ERROR")
    )
}

/// The flows that some clients have.
pub type Known = BTreeSet<String>;

/// The flows of these clients, as far as they are known; to be taken before a run, so that what was
/// there before is not held against it.
pub async fn known_flows(api: &Api, clients: &[String]) -> Result<Known, SimError> {
    let mut known = Known::new();
    for client in clients {
        if api.client(client).await?.is_some() {
            known.extend(api.flows(client).await?.into_keys());
        }
    }
    Ok(known)
}

/// Compares everything but what was `known` before. What the ledger found while things happened
/// is in it too.
pub async fn audit(api: &Api, ledger: &Ledger, known: &Known) -> Result<Audit, SimError> {
    let mut audit = Audit::default();
    let (counted, kept) = ledger.violations();
    kept.iter().for_each(|violation| audit.add(violation));
    audit.violations = counted;
    for book in ledger.books() {
        audit.clients += 1;
        let client = book.client();
        let mut documents = api.flows(client).await?;
        // What was there before counts only if it ran now.
        let ours = book.flows().into_iter().filter(|flow| {
            !known.contains(flow)
                || book
                    .flow(flow)
                    .is_some_and(|entry| !entry.deliveries.is_empty())
        });
        let new = documents
            .keys()
            .filter(|flow| !known.contains(*flow))
            .cloned();
        let names: BTreeSet<String> = ours.chain(new).collect();
        let flows: Vec<(String, Option<Value>)> = names
            .into_iter()
            .map(|flow| {
                let document = documents.remove(&flow);
                (flow, document)
            })
            .collect();
        let mut checked = futures::stream::iter(flows)
            .map(|(flow, document)| one(api, &book, flow, document))
            .buffer_unordered(AT_ONCE);
        while let Some((entry, shown, found)) = checked.try_next().await? {
            audit.see(&entry, shown.as_ref());
            found.iter().for_each(|violation| audit.add(violation));
        }
    }
    Ok(audit)
}

type Checked = (FlowEntry, Option<Shown>, Vec<Violation>);

async fn one(
    api: &Api,
    book: &Book,
    flow: String,
    document: Option<Value>,
) -> Result<Checked, SimError> {
    let deadline = Instant::now() + LATE_LOGS;
    loop {
        let shown = match &document {
            Some(document) => Some(api.shown(book.client(), &flow, document.clone()).await?),
            None => None,
        };
        let entry = book.flow(&flow).unwrap_or_default();
        let found = check_flow(book.client(), &flow, &entry, shown.as_ref());
        let late = !found.is_empty() && found.iter().all(|violation| violation.rule == LOGS);
        if !late || Instant::now() >= deadline {
            return Ok((entry, shown, found));
        }
        sleep(Duration::from_millis(500)).await;
    }
}
