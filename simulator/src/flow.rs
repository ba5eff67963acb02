//! One run of a flow: what its script says becomes messages in the agent's queue.

use crate::config::AgentConfig;
use crate::entries::Totals;
use crate::ledger::{Book, Tag, What};
use crate::link::now_us;
use crate::messages::{self, Rows};
use crate::queue::{Item, Queue};
use crate::script::{Origin, Script};
use bytes::Bytes;
use nublar_schemas::agent::{
    FlowRequest, FlowStats, VeloStatus, VqlCollectorArgs, VqlRequest, flow_request, velo_status,
};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use velo_status::ReturnedStatus;

/// Bytes of a file in one message.
const BUFFER: usize = 1 << 20;
/// Log rows in one message.
const LOG_BATCH: u64 = 100;
/// Seconds between two reports of progress unless the request says otherwise.
const UPDATES_S: u64 = 5;

/// One run of a flow.
pub(crate) struct Running {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) book: Arc<Book>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) hostname: String,
    pub(crate) flow: Arc<str>,
    pub(crate) run: usize,
    pub(crate) request: FlowRequest,
    /// Its rows and files go nowhere: it was cancelled before it came.
    pub(crate) muted: bool,
    status: Mutex<Vec<VeloStatus>>,
    reported: Mutex<Option<Instant>>,
    /// The last log rows, which come behind the end.
    last_logs: Mutex<Option<(Bytes, What)>>,
}

impl Running {
    pub(crate) fn new(
        config: Arc<AgentConfig>,
        book: Arc<Book>,
        queue: Arc<Queue>,
        hostname: String,
        (flow, run): (Arc<str>, usize),
        request: FlowRequest,
        muted: bool,
    ) -> Self {
        let (status, reported, last_logs) = Default::default();
        Self {
            config,
            book,
            queue,
            hostname,
            flow,
            run,
            request,
            muted,
            status,
            reported,
            last_logs,
        }
    }

    /// How it stands.
    pub(crate) fn stats(&self, complete: bool) -> FlowStats {
        let query_status = self
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        FlowStats {
            query_status,
            flow_complete: complete,
            ..FlowStats::default()
        }
    }

    /// Every query has failed for this reason.
    pub(crate) fn fail(&self, reason: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_empty() {
            status.push(VeloStatus::default());
        }
        for query in status.iter_mut() {
            query.status = ReturnedStatus::GenericError.into();
            query.error_message = reason.to_owned();
        }
    }

    /// Runs all queries to their end.
    pub(crate) async fn queries(&self) {
        let count = self.request.vql_client_actions.len();
        let fresh = VeloStatus {
            status: ReturnedStatus::Progress.into(),
            first_active: now_us(),
            ..VeloStatus::default()
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = vec![fresh; count];
        self.progress(true).await;
        let mut logs = 0;
        let mut uploads = 0;
        for (query, args) in self.request.vql_client_actions.iter().enumerate() {
            self.query(query, args, &mut logs, &mut uploads).await;
        }
    }

    /// Says that it is over. Its last log rows come behind that, as an agent's do.
    pub(crate) async fn end(&self) {
        let stats = self.stats(true);
        let what = self.book.made_marker(&self.flow, self.run, totals(&stats));
        self.push(messages::stats(&self.flow, stats, false), what)
            .await;
        let logs = self
            .last_logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((bytes, what)) = logs {
            self.push(bytes, what).await;
        }
    }

    fn tag(&self, what: What) -> Tag {
        Tag {
            flow: Arc::clone(&self.flow),
            run: self.run,
            what,
        }
    }

    async fn push(&self, bytes: Bytes, what: What) {
        let drops = matches!(
            what,
            What::Rows(..) | What::Logs(_) | What::Buffer(..) | What::Eof(_)
        );
        if self.muted && drops {
            return;
        }
        self.queue
            .push(Item {
                bytes,
                tag: Some(self.tag(what)),
            })
            .await;
    }

    fn change(&self, query: usize, change: impl FnOnce(&mut VeloStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = status.get_mut(query) {
            status.last_active = now_us();
            change(status);
        }
    }

    /// Reports progress if it is time to.
    async fn progress(&self, first: bool) {
        let every = match self.request.flow_update_time {
            0 => UPDATES_S,
            seconds => seconds,
        };
        let every = self.config.scaled(Duration::from_secs(every));
        {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            if !first && reported.is_some_and(|at| at.elapsed() < every) {
                return;
            }
            *reported = Some(Instant::now());
        }
        self.push(
            messages::stats(&self.flow, self.stats(false), false),
            What::Other,
        )
        .await;
    }

    async fn query(
        &self,
        query: usize,
        args: &VqlCollectorArgs,
        logs: &mut u64,
        uploads: &mut i64,
    ) {
        let script = Script::of(args);
        let begun = Instant::now();
        if precondition_holds(&args.precondition) {
            let due = begun + script.duration(self.config.speed);
            for upload in &script.uploads {
                self.upload(query, upload, *uploads).await;
                *uploads += 1;
            }
            for (place, statement) in args.query.iter().enumerate() {
                if !statement.name.is_empty() {
                    self.rows(query, place, statement, &script).await;
                }
            }
            while Instant::now() < due {
                self.progress(false).await;
                let left = due.saturating_duration_since(Instant::now());
                sleep(left.min(self.config.scaled(Duration::from_secs(1)))).await;
            }
        }
        self.logs(query, args, &script, logs).await;
        let failed = !script.error.is_empty();
        self.change(query, |status| {
            let end = if failed {
                ReturnedStatus::GenericError
            } else {
                ReturnedStatus::Ok
            };
            status.status = end.into();
            status.error_message.clone_from(&script.error);
            status.duration = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
        });
    }

    async fn rows(&self, query: usize, place: usize, statement: &VqlRequest, script: &Script) {
        let compressed = self.request.compression() == flow_request::Compression::Zlib;
        let source: Arc<str> = statement.name.as_str().into();
        let facts = source.ends_with("/BasicInformation").then(|| self.facts());
        let total = if facts.is_some() { 1 } else { script.rows };
        let client = self.book.client().to_owned();
        let origin = Origin {
            client: &client,
            flow: &self.flow,
            run: self.run,
        };
        let columns: &[&str] = match facts {
            Some(_) => &["Name", "Version", "Hostname", "OS", "Architecture", "Fqdn"],
            None => &["n", "client", "flow", "run", "pad"],
        };
        let (mut first, mut part, mut byte_offset) = (0, 0, 0);
        while first < total {
            let rows = script.rows_per_message.max(1).min(total - first);
            let mut lines = String::new();
            match &facts {
                Some(facts) => lines.push_str(facts),
                None => (first..first + rows)
                    .for_each(|row| origin.row(&source, row, script.row_bytes, &mut lines)),
            }
            let made = Rows {
                query: statement,
                query_id: place as u64,
                part,
                first,
                rows,
                byte_offset,
                columns,
                lines: &lines,
            };
            let bytes = messages::rows(&self.flow, &made, compressed);
            let what =
                self.book
                    .made_rows(&self.flow, self.run, &source, first, rows, lines.as_bytes());
            self.push(bytes, what).await;
            self.change(query, |status| {
                status.result_rows = status.result_rows.saturating_add_unsigned(rows);
                if !status.names_with_response.contains(&statement.name) {
                    status.names_with_response.push(statement.name.clone());
                }
            });
            self.progress(false).await;
            first += rows;
            part += 1;
            byte_offset += lines.len() as u64;
        }
    }

    /// The row that tells of the machine.
    fn facts(&self) -> String {
        let row = json!({
            "Name": "velociraptor",
            "Version": "0.77.1",
            "Hostname": self.hostname,
            "OS": "linux",
            "Architecture": "amd64",
            "Fqdn": format!("{}.simulated.example", self.hostname),
        });
        format!("{row}\n")
    }

    async fn upload(&self, query: usize, upload: &crate::script::UploadScript, number: i64) {
        let size = i64::try_from(upload.size).unwrap_or(i64::MAX);
        self.change(query, |status| status.expected_uploaded_bytes += size);
        self.push(
            messages::upload_begins(&self.flow, upload, number),
            What::Other,
        )
        .await;
        let client = self.book.client().to_owned();
        let origin = Origin {
            client: &client,
            flow: &self.flow,
            run: self.run,
        };
        let mut offset = 0;
        while offset < upload.size {
            let length = usize::try_from(upload.size - offset)
                .unwrap_or(BUFFER)
                .min(BUFFER);
            let data = origin.file_part(number, offset, length, upload.compress);
            let bytes = messages::buffer(&self.flow, upload, number, offset, &data);
            let what =
                self.book
                    .made_buffer(&self.flow, self.run, number, &upload.name, offset, &data);
            self.push(bytes, what).await;
            offset += length as u64;
            self.change(query, |status| {
                status.uploaded_bytes =
                    status.uploaded_bytes.saturating_add_unsigned(length as u64);
            });
            self.progress(false).await;
        }
        let what = self
            .book
            .made_eof(&self.flow, self.run, number, &upload.name);
        self.push(
            messages::buffer(&self.flow, upload, number, offset, &[]),
            what,
        )
        .await;
        self.change(query, |status| status.uploaded_files += 1);
    }

    async fn logs(&self, query: usize, args: &VqlCollectorArgs, script: &Script, first: &mut u64) {
        let name = args
            .query
            .iter()
            .find(|statement| !statement.name.is_empty());
        let name = name.map_or("", |statement| statement.name.as_str());
        let failed = !script.error.is_empty();
        let total = script.logs + u64::from(failed);
        let mut made = 0;
        while made < total {
            let rows = LOG_BATCH.min(total - made);
            let mut lines = String::new();
            let mut error = "";
            for row in made..made + rows {
                if failed && row + 1 == total {
                    error = &script.error;
                    lines.push_str(&messages::log_line("ERROR", error));
                } else {
                    lines.push_str(&messages::log_line("INFO", &format!("{name}: line {row}")));
                }
            }
            let bytes = messages::logs(&self.flow, *first, rows, &lines, error);
            let what = self
                .book
                .made_logs(&self.flow, self.run, *first, rows, lines.as_bytes());
            let made_last = (bytes, what);
            let earlier = self
                .last_logs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .replace(made_last);
            if let Some((bytes, what)) = earlier {
                self.push(bytes, what).await;
            }
            made += rows;
            *first += rows;
            self.change(query, |status| {
                status.log_rows = status.log_rows.saturating_add_unsigned(rows)
            });
        }
    }
}

/// Simulated machines run Linux.
fn precondition_holds(precondition: &str) -> bool {
    let text = precondition.to_lowercase();
    !(text.contains("windows") || text.contains("darwin")) || text.contains("linux")
}

/// The sums over all queries.
fn totals(stats: &FlowStats) -> Totals {
    let sum = |of: fn(&VeloStatus) -> i64| {
        stats
            .query_status
            .iter()
            .map(|status| u64::try_from(of(status)).unwrap_or(0))
            .sum()
    };
    let failed = stats
        .query_status
        .iter()
        .find(|query| query.status() == ReturnedStatus::GenericError);
    Totals {
        rows: sum(|status| status.result_rows),
        logs: sum(|status| status.log_rows),
        files: sum(|status| status.uploaded_files),
        bytes: sum(|status| status.uploaded_bytes),
        error: failed
            .map(|query| query.error_message.clone())
            .unwrap_or_default(),
    }
}
