//! What clients cost a foreman: records a second, memory for each client, and its snapshot.
//!
//! ```text
//! cargo run --release -p nublar-core --example fold_bench
//! ```

use bytes::Bytes;
use nublar_core::fold::{Fold, FoldConfig, Output, version};
use nublar_core::mac::{MacKey, MacKeys};
use nublar_schemas::agent::{FlowStats, VeloStatus, velo_status::ReturnedStatus};
use nublar_schemas::records::{
    Announce, CheckIn, Claim, FactsSet, FlowStatsSeen, Header, RequestRef, Scheduling, SeenStats,
    Stored, Tasks, Tick,
};
use prost::Message;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const CLIENTS: i64 = 50_000;
const TICKS: u32 = 10;
const START_US: i64 = 1_795_514_940_000_000;
const FACTS: &str = r#"{"Hostname":"web-17.example.org","OS":"linux","Platform":"debian"}"#;

/// A partition, and how much it was given.
struct Bench {
    fold: Fold,
    records: u64,
    at_us: i64,
}

impl Bench {
    fn new() -> Self {
        let key = MacKey {
            from_us: 0,
            secret: [7; 32],
        };
        let config = FoldConfig::new(MacKeys::new(key, []));
        Self {
            fold: Fold::new(Arc::new(config)),
            records: 0,
            at_us: START_US,
        }
    }

    fn apply(&mut self, record: impl Into<Scheduling>) -> Vec<Output> {
        self.records += 1;
        self.fold.apply(version(1, self.records), &record.into())
    }

    fn announce(&mut self) {
        self.apply(Announce {
            header: Header::default(),
            kind: "interrogation".into(),
            request: RequestRef::default(),
            artifacts: vec!["Generic.Client.Info".into()],
            queries: 1,
            spec: "{}".into(),
        });
    }

    fn header(&self, client: i64) -> Header {
        Header {
            client: format!("C.{client:016x}"),
            generation: 1,
            at_us: self.at_us,
            frontend: "frontend-1a2b3c4d".into(),
            ..Header::default()
        }
    }

    /// A client comes, is to be asked who it is, and a frontend delivers that. The flow.
    fn asked(&mut self, client: i64) -> Result<String, Box<dyn Error>> {
        let header = self.header(client);
        let session = Bytes::from(format!("{client:016}"));
        let outputs = self.apply(CheckIn {
            header: header.clone(),
            session_key: session.clone(),
            table_version: 0,
            address: "192.0.2.17".into(),
            via: String::new(),
            clock_skew_ms: Some(20),
            introduces: false,
        });
        let mut offers = outputs.into_iter().filter_map(|output| match output {
            Output::Task(Tasks::Offer(offer)) => Some(offer.flow_id),
            _ => None,
        });
        let flow_id = offers.next().ok_or("nothing was offered")?;
        self.apply(Claim {
            header,
            flow_id: flow_id.clone(),
            attempt: 1,
            poll: client,
            packet_iv: session,
        });
        Ok(flow_id)
    }

    /// It answers, and all of that is stored.
    fn answers(&mut self, client: i64, flow_id: &str) {
        let header = self.header(client);
        self.apply(FactsSet {
            header: header.clone(),
            session_key: Bytes::from(format!("{client:016}")),
            source: "Generic.Client.Info/BasicInformation".into(),
            facts: FACTS.into(),
        });
        let stats = FlowStats {
            flow_complete: true,
            query_status: vec![VeloStatus {
                status: ReturnedStatus::Ok.into(),
                names_with_response: vec!["Generic.Client.Info/BasicInformation".into()],
                result_rows: 1,
                ..VeloStatus::default()
            }],
            ..FlowStats::default()
        };
        self.apply(FlowStatsSeen {
            header: header.clone(),
            stats: vec![SeenStats {
                session: flow_id.to_owned(),
                urgent: false,
                bytes: stats.encode_to_vec().into(),
            }],
        });
        for group in ["results", "uploads"] {
            self.apply(Stored {
                header: header.clone(),
                flow_id: flow_id.to_owned(),
                group: group.into(),
                rows: i64::from(group == "results"),
                logs: 0,
                files: 0,
                bytes: 0,
                closing: true,
                ran_twice: false,
            });
        }
    }

    fn pass(&mut self, microseconds: i64) {
        self.at_us += microseconds;
        self.apply(Tick {
            header: Header::default(),
            epoch: 1,
            elapsed_ms: 1_000,
            wall_us: self.at_us,
        });
    }
}

/// Bytes of the process in memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).ok_or("no number of pages")?;
    Ok(pages.parse::<u64>()? * 4096)
}

/// Clients that are interrogated one after the other, at such a distance.
fn fleet(what: &str, apart_us: i64) -> Result<Bench, Box<dyn Error>> {
    let before = resident()?;
    let begun = Instant::now();
    let mut bench = Bench::new();
    bench.announce();
    for client in 0..CLIENTS {
        let flow = bench.asked(client)?;
        bench.answers(client, &flow);
        bench.pass(apart_us);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let grown = resident()?.saturating_sub(before);
    println!(
        "{what}: {:.0} records a second, {} bytes of memory for each of {} clients",
        bench.records as f64 / seconds,
        grown / CLIENTS as u64,
        bench.fold.clients(),
    );
    let begun = Instant::now();
    let snapshot = bench.fold.snapshot()?;
    println!(
        "{what}: {} bytes of its snapshot for each, written in {:.0} ms",
        snapshot.len() / bench.fold.clients(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(bench)
}

/// Every client has work, and nobody has answered yet.
fn ticks() -> Result<(), Box<dyn Error>> {
    let mut bench = Bench::new();
    bench.announce();
    for client in 0..CLIENTS {
        bench.asked(client)?;
    }
    let begun = Instant::now();
    for _ in 0..TICKS {
        bench.pass(1_000);
    }
    println!(
        "a tick with {CLIENTS} flows open: {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(TICKS)
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Their interrogations are forgotten after a day; of most it is over. What is dropped would be
    // memory to be used again.
    let long_ago = fleet("interrogated long ago", 60_000_000)?;
    let today = fleet("interrogated today", 1_000)?;
    drop((long_ago, today));
    ticks()
}
