//! Holds what a server shows of a flow against what its book says. No IO.

use crate::api::{Shown, ShownUpload};
use crate::entries::{FlowEntry, Piece, Run, Stage, Upload};
use crate::ledger::{Violation, hash};
use std::collections::BTreeMap;

/// Log rows may come after the end of their flow: whoever finds this may look again.
pub const LOGS: &str = "logs differ";

struct Check<'a> {
    client: &'a str,
    flow: &'a str,
    found: Vec<Violation>,
}

impl Check<'_> {
    fn violate(&mut self, rule: &'static str, text: impl Into<String>) {
        let (client, flow) = (self.client.to_owned(), self.flow.to_owned());
        self.found.push(Violation {
            rule,
            client,
            flow,
            text: text.into(),
        });
    }
}

/// What is wrong with a flow, as it is shown, when no more is to come.
pub fn check_flow(
    client: &str,
    flow: &str,
    entry: &FlowEntry,
    shown: Option<&Shown>,
) -> Vec<Violation> {
    let mut check = Check {
        client,
        flow,
        found: Vec::new(),
    };
    let Some(shown) = shown else {
        check.violate("flow missing", "it is not shown");
        return check.found;
    };
    if entry.runs.iter().filter(|run| run.has_lived()).count() > 1 {
        // Its book says so already; which rows are right is anybody's guess.
        return check.found;
    }
    // A run before it died before anything of it arrived: it must have left nothing.
    let run = entry.runs.iter().rfind(|run| run.was_sent());
    check.state(entry, run, shown);
    let nothing = Run::default();
    let run = run.unwrap_or(&nothing);
    check.rows(run, shown);
    check.logs(run, shown);
    check.uploads(run, shown);
    if shown
        .document
        .get("ran_twice")
        .and_then(serde_json::Value::as_bool)
        == Some(true)
    {
        check.violate(
            "said to have run twice",
            format!("it came {} times", entry.deliveries.len()),
        );
    }
    check.found
}

impl Check<'_> {
    fn state(&mut self, entry: &FlowEntry, run: Option<&Run>, shown: &Shown) {
        if !shown.is_final() {
            let (state, reason) = (shown.text("state"), shown.text("reason"));
            return self.violate("not final", format!("{state}, {reason}"));
        }
        if shown
            .document
            .get("end_time")
            .is_none_or(serde_json::Value::is_null)
        {
            self.violate("no end", "it has ended but not when");
        }
        let finished = shown.text("state") == "FINISHED";
        let marker = run.map_or(Stage::Queued, |run| run.marker);
        let reported = run.and_then(|run| run.reported.clone()).unwrap_or_default();
        let said = format!(
            "{} ({}): {}",
            shown.text("state"),
            shown.text("reason"),
            shown.text("status")
        );
        if finished && marker < Stage::Sent {
            self.violate(
                "finished too early",
                "its agent has not said that it is done",
            );
        }
        if finished && !reported.error.is_empty() {
            self.violate(
                "error lost",
                format!("{said}; its agent said: {}", reported.error),
            );
        }
        let may_be_cancelled = entry.cancel_ordered || entry.cancels > 0;
        if shown.text("reason") == "cancelled" && !may_be_cancelled {
            self.violate("cancelled by nobody", said.as_str());
        } else if marker == Stage::Committed && !finished && !may_be_cancelled {
            if reported.error.is_empty() {
                self.violate(
                    "not finished",
                    format!("{said}; its agent is done and all is sent"),
                );
            } else if !shown.text("status").contains(&reported.error) {
                self.violate(
                    "error lost",
                    format!("{said}; its agent said: {}", reported.error),
                );
            }
        }
        if finished {
            for (name, reported) in [
                ("total_collected_rows", reported.rows),
                ("total_uploaded_files", reported.files),
                ("total_uploaded_bytes", reported.bytes),
            ] {
                if shown.number(name) != reported {
                    self.violate(
                        "totals differ",
                        format!("{name} is {}, not {reported}", shown.number(name)),
                    );
                }
            }
        }
    }

    fn rows(&mut self, run: &Run, shown: &Shown) {
        for (name, pieces) in &run.sources {
            let rows = shown
                .results
                .get(name)
                .map(AsRef::as_ref)
                .unwrap_or_default();
            if let Err(text) = compare(pieces, rows, take_lines) {
                self.violate("rows differ", format!("{name}: {text}"));
            }
        }
        for (name, rows) in &shown.results {
            if !run.sources.contains_key(name) && !rows.is_empty() {
                self.violate("rows from nowhere", name.as_str());
            }
        }
        let shown_rows: usize = shown.results.values().map(|rows| count_lines(rows)).sum();
        if shown.is_final() && shown.number("total_collected_rows") != shown_rows as u64 {
            let said = shown.number("total_collected_rows");
            self.violate(
                "totals differ",
                format!("{said} rows said, {shown_rows} shown"),
            );
        }
    }

    fn logs(&mut self, run: &Run, shown: &Shown) {
        if let Err(text) = compare(&run.logs, &shown.logs, take_lines) {
            self.violate(LOGS, text);
        }
    }

    fn uploads(&mut self, run: &Run, shown: &Shown) {
        let mut files: BTreeMap<&str, Vec<&ShownUpload>> = BTreeMap::new();
        for upload in &shown.uploads {
            files.entry(&upload.path).or_default().push(upload);
        }
        for upload in run.uploads.values() {
            match files.remove(upload.name.as_str()).as_deref() {
                Some([file]) => self.upload(upload, file),
                Some(several) => {
                    let text = format!("{} is there {} times", upload.name, several.len());
                    self.violate("uploads differ", text);
                }
                None if upload.eof == Stage::Committed || first_required(&upload.pieces) => {
                    self.violate("upload missing", upload.name.as_str());
                }
                None => {}
            }
        }
        for name in files.keys() {
            self.violate("upload from nowhere", *name);
        }
    }

    fn upload(&mut self, upload: &Upload, file: &ShownUpload) {
        let name = &upload.name;
        if let Err(text) = compare(&upload.pieces, &file.bytes, take_bytes) {
            self.violate("uploads differ", format!("{name}: {text}"));
        }
        let all = upload.eof == Stage::Committed
            && upload
                .pieces
                .iter()
                .all(|piece| piece.stage == Stage::Committed);
        if all && !file.complete {
            self.violate("uploads differ", format!("{name} is said to be partial"));
        }
        if file.complete && upload.eof < Stage::Sent {
            self.violate("uploads differ", format!("{name} is said to be complete"));
        }
        if file.sent_twice {
            self.violate("uploads differ", format!("{name} is said to be sent twice"));
        }
    }
}

fn first_required(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| piece.stage == Stage::Committed)
}

/// Cuts so many rows or bytes off the beginning.
type Take = fn(&[u8], u64) -> (&[u8], &[u8]);

/// Whether `shown` holds every piece that was committed, those that were sent at most, in their
/// order, and nothing else.
fn compare(pieces: &[Piece], shown: &[u8], take: Take) -> Result<(), String> {
    let mut rest = shown;
    for piece in pieces.iter().filter(|piece| piece.stage >= Stage::Sent) {
        let (next, behind) = take(rest, piece.count);
        if hash(next) == piece.hash {
            rest = behind;
        } else if piece.stage == Stage::Committed {
            let end = piece.start + piece.count;
            let what = if next.is_empty() {
                "missing"
            } else {
                "missing or changed"
            };
            return Err(format!(
                "{}..{end} is {what}, of {} bytes shown",
                piece.start,
                shown.len()
            ));
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes too many", rest.len()))
    }
}

fn take_bytes(from: &[u8], count: u64) -> (&[u8], &[u8]) {
    from.split_at(usize::try_from(count).unwrap_or(usize::MAX).min(from.len()))
}

fn take_lines(from: &[u8], count: u64) -> (&[u8], &[u8]) {
    let mut ends = from
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    let end = match usize::try_from(count).unwrap_or(usize::MAX) {
        0 => Some(0),
        count => ends.nth(count - 1),
    };
    from.split_at(end.unwrap_or(from.len()))
}

pub(crate) fn count_lines(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
