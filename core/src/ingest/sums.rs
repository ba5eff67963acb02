//! What is stored of each flow: the totals that workers report.

use super::plan::{Collection, Part, Plan};
use super::seal::SEALS;
use crate::ids::{ContentId, FlowId, Life};
use litemap::LiteMap;
use nublar_schemas::records::{Header, Stored};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Which group of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Rows and logs.
    Results,
    /// Buffers.
    Uploads,
}

impl Group {
    /// Its name, as the foreman knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Uploads => "uploads",
        }
    }

    /// The collections that it writes for flows.
    pub fn collections(self) -> &'static [Collection] {
        match self {
            Self::Results => &[Collection::Rows, Collection::Logs],
            Self::Uploads => &[Collection::Buffers],
        }
    }
}

/// What is stored of one flow. Distinct messages count, however often they come.
#[derive(Debug, Default)]
pub struct FlowSum {
    ids: HashSet<ContentId>,
    rows: u64,
    logs: u64,
    bytes: u64,
    files: BTreeSet<String>,
    /// Per result set: first row → (rows, message), to see rows that came twice.
    ranges: LiteMap<String, BTreeMap<i64, (u64, ContentId)>>,
    ran_twice: bool,
    marker: bool,
}

impl FlowSum {
    /// Counts a document, once.
    pub fn add(
        &mut self,
        collection: Collection,
        id: ContentId,
        source: &str,
        order: i64,
        size: u64,
    ) {
        // What the server adds to a flow is nothing of the agent's.
        if source == SEALS && collection == Collection::Buffers || !self.ids.insert(id) {
            return;
        }
        match collection {
            Collection::Rows => {
                self.rows += size;
                self.add_range(source, order, size, id);
            }
            Collection::Logs => self.logs += size,
            Collection::Buffers => {
                self.bytes += size;
                if order == 0 && !source.is_empty() {
                    self.files.insert(source.to_owned());
                }
            }
            Collection::Events => {}
        }
    }

    fn add_range(&mut self, source: &str, start: i64, rows: u64, id: ContentId) {
        let ranges = self.ranges.entry(source.to_owned()).or_default();
        let end = start.saturating_add_unsigned(rows);
        let before = ranges.range(..=start).next_back();
        let overlaps_before = before
            .is_some_and(|(at, (n, _))| at.saturating_add_unsigned(*n) > start || *at == start);
        let overlaps_after = ranges.range(start..end).next().is_some();
        self.ran_twice |= rows > 0 && (overlaps_before || overlaps_after);
        ranges.insert(start, (rows, id));
    }
}

/// The sums of the flows of one partition. Forgotten when the partition goes to another worker.
#[derive(Debug)]
pub struct Sums {
    group: Group,
    flows: HashMap<(Life, FlowId), FlowSum>,
    /// Flows that changed since the last [`Sums::report`].
    changed: BTreeSet<(Life, FlowId)>,
    /// Server time of the assignment: flows that began later have nothing stored before.
    since_us: i64,
    most: usize,
}

impl Sums {
    /// For a partition that was assigned at this server time; keeps about `most` flows in memory.
    pub fn new(group: Group, since_us: i64, most: usize) -> Self {
        Self {
            group,
            flows: HashMap::new(),
            changed: BTreeSet::new(),
            since_us,
            most,
        }
    }

    /// Flows of the plan of which another worker may have stored something: their documents must
    /// be counted with [`Sums::load`] before the plan is.
    pub fn unknown(&self, life: &Life, plan: &Plan) -> Vec<FlowId> {
        const SKEW_US: i64 = 120_000_000;
        let flows: BTreeSet<_> = plan
            .parts
            .iter()
            .filter_map(|part| part.flow.as_ref())
            .chain(&plan.markers)
            .collect();
        flows
            .into_iter()
            .filter(|flow| !self.flows.contains_key(&(life.clone(), (*flow).clone())))
            .filter(|flow| {
                let began = crate::mac::seconds_of(flow)
                    .map_or(0, |seconds| i64::from(seconds) * 1_000_000);
                began < self.since_us + SKEW_US
            })
            .cloned()
            .collect()
    }

    /// What is stored of a flow already.
    pub fn load(&mut self, life: &Life, flow: FlowId, sum: FlowSum) {
        self.flows.insert((life.clone(), flow), sum);
    }

    /// Counts what was written.
    pub fn written(&mut self, life: &Life, plan: &Plan) {
        for Part {
            collection,
            id,
            flow,
            source,
            order,
            size,
            ..
        } in &plan.parts
        {
            let Some(flow) = flow else { continue };
            let place = (life.clone(), flow.clone());
            self.flows.entry(place.clone()).or_default().add(
                *collection,
                *id,
                source,
                *order,
                *size,
            );
            self.changed.insert(place);
        }
        for flow in &plan.markers {
            let place = (life.clone(), flow.clone());
            self.flows.entry(place.clone()).or_default().marker = true;
            self.changed.insert(place);
        }
    }

    /// Whether a flow waits to be reported that must not wait: its marker was passed.
    pub fn urgent(&self) -> bool {
        self.changed
            .iter()
            .any(|place| self.flows.get(place).is_some_and(|sum| sum.marker))
    }

    /// Totals of every flow that changed. Nothing that led to them may be marked before they are
    /// acknowledged.
    pub fn report(&mut self, header: impl Fn(&Life) -> Header) -> Vec<(Life, Stored)> {
        let changed = std::mem::take(&mut self.changed);
        let mut stored = Vec::with_capacity(changed.len());
        for place in changed {
            let Some(sum) = self.flows.get(&place) else {
                continue;
            };
            let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            stored.push((
                place.0.clone(),
                Stored {
                    header: header(&place.0),
                    flow_id: place.1.to_string(),
                    group: self.group.name().to_owned(),
                    rows: signed(sum.rows),
                    logs: signed(sum.logs),
                    files: signed(sum.files.len() as u64),
                    bytes: signed(sum.bytes),
                    closing: sum.marker,
                    ran_twice: sum.ran_twice,
                },
            ));
        }
        if self.flows.len() > self.most {
            // They can be counted again from what is stored.
            self.flows.clear();
            self.since_us = i64::MAX / 2;
        }
        stored
    }
}
