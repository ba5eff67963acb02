//! What a frontend counts: one table of names, units and help texts.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

/// One number.
#[derive(Debug, Default)]
pub struct Metric(AtomicI64);

impl Metric {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts so many; negative for a gauge that falls.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Prometheus name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($field:ident, $kind:literal, $name:literal, $unit:literal, $help:literal;)+) => {
        /// The numbers of one frontend.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: Metric,)+
        }

        impl Metrics {
            /// Every metric of a frontend, in the order of [`Metrics::values`].
            pub const TABLE: &[Description] = &[$(Description {
                name: concat!("nublar_frontend_", $name),
                kind: $kind,
                unit: $unit,
                help: $help,
            }),+];

            /// The numbers now, in the order of [`Metrics::TABLE`].
            pub fn values(&self) -> Vec<i64> {
                vec![$(self.$field.get()),+]
            }
        }
    };
}

metrics! {
    connections, "gauge", "connections", "connections", "connections that are open";
    sockets, "gauge", "sockets", "connections", "websockets that are open";
    tls_failed, "counter", "tls_failed_total", "handshakes", "tls handshakes that failed";
    proxy_refused, "counter", "proxy_refused_total", "connections", "connections closed for a PROXY header that may not be, or for want of one";
    forwarded_ignored, "counter", "forwarded_ignored_total", "requests", "requests with X-Forwarded-For from a peer that is not a trusted proxy";
    posts, "counter", "posts_total", "requests", "control posts that came";
    polls, "counter", "polls_total", "requests", "reader posts that came";
    polls_held, "gauge", "polls_held", "requests", "polls that are held now";
    not_found, "counter", "not_found_total", "requests", "requests for a path or method that is not served";
    url_checks, "counter", "url_checks_total", "requests", "requests of `nublar check-url` that were answered";
    body_bytes, "counter", "body_bytes_total", "bytes", "bodies that were read";
    admitted_bytes, "gauge", "admitted_bytes", "bytes", "budget that is in use";
    held_back, "counter", "held_back_total", "requests", "posts that had to wait for room";
    flood_held, "counter", "flood_held_total", "requests", "answers that were held because their agent sends too much";
    flood_held_ms, "counter", "flood_held_ms_total", "milliseconds", "time for which they were to be held";
    refused_flood, "counter", "refused_flood_total", "requests", "503: the agent sends side by side far more than it may";
    refused_busy, "counter", "refused_busy_total", "requests", "503: no room in time";
    refused_registry, "counter", "refused_registry_total", "requests", "503: the registry's position was not to be had in time";
    refused_log, "counter", "refused_log_total", "requests", "503: the log did not take the records";
    refused_clone, "counter", "refused_clone_total", "requests", "409: another agent has the same key and was there first";
    refused_unknown, "counter", "refused_unknown_total", "requests", "406: the agent is not registered, or did not sign its session";
    refused_malformed, "counter", "refused_malformed_total", "requests", "403: the body is no envelope of an agent";
    refused_hmac, "counter", "refused_hmac_total", "requests", "403: the hmac does not match";
    refused_key, "counter", "refused_key_total", "requests", "403: encrypted to a key that is not ours";
    refused_nonce, "counter", "refused_nonce_total", "requests", "403: the nonce names no org";
    refused_source, "counter", "refused_source_total", "requests", "403: the sender's name is no client id";
    refused_old, "counter", "refused_old_total", "requests", "403: an agent of before 0.6.8";
    refused_poison, "counter", "refused_poison_total", "requests", "400: authentic, and not a message list";
    refused_csr, "counter", "refused_csr_total", "requests", "406: a certificate request that is not accepted";
    broken_bodies, "counter", "broken_bodies_total", "requests", "bodies that ended early or came too slowly";
    oversize, "counter", "oversize_total", "requests", "bodies over the limit, answered 200 and recorded";
    enrolled, "counter", "enrolled_total", "clients", "keys that were put into the registry";
    registered, "gauge", "registered", "clients", "clients in the registry";
    registry_halted, "gauge", "registry_halted", "partitions", "partitions of the registry that hold records of a newer version";
    position_reads, "counter", "position_reads_total", "reads", "reads of the registry's end";
    sessions_opened, "counter", "sessions_opened_total", "sessions", "sessions that were decrypted with a private key";
    older_key, "counter", "older_key_total", "requests", "requests whose session is encrypted to a key that is not the newest";
    sessions_signed, "counter", "sessions_signed_total", "sessions", "sessions that were signed for answers";
    messages, "counter", "messages_total", "messages", "messages that were stored";
    records, "counter", "records_total", "records", "records that were appended for posts";
    objects, "counter", "objects_total", "objects", "messages that were too large for the log";
    dead_letters, "counter", "dead_letters_total", "records", "messages that were refused and recorded";
    ignored, "counter", "ignored_total", "messages", "messages that mean nothing to a server";
    rechecked, "counter", "rechecked_total", "requests", "posts with a foreign flow id that were looked at twice";
    checkins, "counter", "checkins_total", "records", "check-ins that were recorded";
    claims, "counter", "claims_total", "records", "claims that were recorded";
    unsent, "counter", "unsent_total", "records", "tasks that did not leave";
    unsure, "counter", "unsure_total", "records", "tasks that may have left";
    tasks_delivered, "counter", "tasks_delivered_total", "tasks", "tasks that were handed to a connection";
    asks_delivered, "counter", "asks_delivered_total", "questions", "questions that were handed to a connection";
    cancels_delivered, "counter", "cancels_delivered_total", "cancels", "cancels that were handed to a connection";
    resumes_delivered, "counter", "resumes_delivered_total", "requests", "wishes to go on with uploads that were handed to a connection";
    tables_delivered, "counter", "tables_delivered_total", "tables", "event tables that were handed to a connection";
    superseded, "counter", "superseded_total", "requests", "polls that ended because a newer one came";
    requests_missing, "counter", "requests_missing_total", "requests", "compiled requests that could not be read";
    tasks_skipped, "counter", "tasks_skipped_total", "records", "records of tasks that could not be decoded";
    tasks_lost, "counter", "tasks_lost_total", "times", "times that tasks were read too slowly and all contacts begin anew";
    pressure, "gauge", "pressure", "flag", "1 while workers are so far behind that posts are held";
}

impl Metrics {
    /// All numbers as Prometheus text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (row, value) in Self::TABLE.iter().zip(self.values()) {
            let Description {
                name,
                kind,
                unit,
                help,
            } = row;
            let _ = writeln!(
                out,
                "# HELP {name} {help} ({unit})\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_has_its_own_name_and_is_rendered() {
        let names: BTreeSet<_> = Metrics::TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), Metrics::TABLE.len());
        for row in Metrics::TABLE {
            assert_eq!(
                row.name.ends_with("_total"),
                row.kind == "counter",
                "{}",
                row.name
            );
        }
        let metrics = Metrics::default();
        metrics.posts.add(3);
        assert!(
            metrics
                .render()
                .contains("\nnublar_frontend_posts_total 3\n")
        );
    }
}
