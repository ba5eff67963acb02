//! The ports on the real Kafka, OpenSearch and S3: the suites that every implementation must pass,
//! and what only these can show, outages above all.
//!
//! `NUBLAR_TEST_SERVICES` names the `services.env` that `tests/services/services start` wrote. Where
//! it is not set nothing is tested, and every test says so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "real_services/kafka.rs"]
mod kafka;
#[path = "real_services/opensearch.rs"]
mod opensearch;
#[path = "real_services/s3.rs"]
mod s3;
#[path = "real_services/services.rs"]
mod services;
