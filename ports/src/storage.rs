//! From configuration to the three ports: which implementation stands behind each.
//!
//! ```toml
//! [log]
//! kind = "kafka"
//! brokers = "kafka-1:9092,kafka-2:9092"
//!
//! [index]
//! kind = "opensearch"
//! url = "https://search:9200"
//!
//! [objects]
//! kind = "s3"
//! endpoint = "https://objects:9000"
//! bucket = "nublar"
//! ```
//!
//! What is left out is embedded: segment files, a database and a directory in the data folder.

use crate::index::opensearch::{OpenSearchConfig, OpenSearchIndex};
use crate::index::sqlite::SqliteIndex;
use crate::log::kafka::{KafkaConfig, KafkaLog};
use crate::log::{SegmentsConfig, SegmentsLog};
use crate::objects::directory::DirectoryObjects;
use crate::objects::s3::{S3Config, S3Objects};
use crate::{Index, Log, Objects};
use opensearch::http::Url;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which log, index and objects.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// The log.
    pub log: LogConfig,
    /// The index.
    pub index: IndexConfig,
    /// The objects.
    pub objects: ObjectsConfig,
}

/// Which log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LogConfig {
    /// Segment files in the data folder.
    #[default]
    Embedded,
    /// Apache Kafka.
    Kafka(KafkaSettings),
}

/// How to reach Kafka.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// What names of topics and groups begin with.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Properties of the client: `security.protocol`, `sasl.username` and their like.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Replicas of a new topic's partitions.
    #[serde(default = "replication")]
    pub replication: u16,
    /// Replicas that must have a record before it is acknowledged.
    #[serde(default = "min_insync")]
    pub min_insync: u16,
}

/// Which index.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum IndexConfig {
    /// A database in the data folder.
    #[default]
    Embedded,
    /// OpenSearch.
    OpenSearch(OpenSearchSettings),
}

/// How to reach OpenSearch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSearchSettings {
    /// `https://host:port`.
    pub url: String,
    /// User, if it asks for one.
    pub user: Option<String>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
    /// A file of certificates (PEM) to trust beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// What names of indices begin with.
    #[serde(default = "index_prefix")]
    pub prefix: String,
    /// Primary shards of a new index.
    #[serde(default = "one")]
    pub shards: u16,
    /// Replicas of a new index's shards.
    #[serde(default = "one")]
    pub replicas: u16,
}

/// Which objects.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ObjectsConfig {
    /// A directory in the data folder.
    #[default]
    Embedded,
    /// S3 or a store that speaks like it.
    S3(S3Settings),
}

/// How to reach S3.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// `https://host:port`; left out for Amazon's own.
    pub endpoint: Option<String>,
    /// Region.
    #[serde(default = "region")]
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// A file of two lines: access key, secret key.
    pub keys_file: PathBuf,
    /// Whether the bucket is named in the path.
    #[serde(default = "yes")]
    pub path_style: bool,
}

fn prefix() -> String {
    KafkaConfig::default().prefix
}
fn index_prefix() -> String {
    OpenSearchConfig::default().prefix
}
fn region() -> String {
    "us-east-1".to_owned()
}
fn replication() -> u16 {
    3
}
fn min_insync() -> u16 {
    2
}
fn one() -> u16 {
    1
}
fn yes() -> bool {
    true
}

/// The three ports, opened.
#[derive(Clone)]
pub struct Storage {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The index.
    pub index: Arc<dyn Index>,
    /// The objects.
    pub objects: Arc<dyn Objects>,
}

/// Why storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The log's answer.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// The index's answer.
    #[error(transparent)]
    Index(#[from] crate::index::IndexError),
    /// An address that can be none.
    #[error("{key} = {address:?}: {expected}")]
    Address {
        /// The key in the configuration.
        key: &'static str,
        /// As it is configured.
        address: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A file that the configuration names.
    #[error("{key} = {path:?}: {error}")]
    File {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

impl StorageConfig {
    /// Whether several processes can share this storage.
    pub fn is_shared(&self) -> bool {
        self.log != LogConfig::Embedded
            && self.index != IndexConfig::Embedded
            && self.objects != ObjectsConfig::Embedded
    }

    /// Refuses addresses that nothing can ever answer at.
    fn check_addresses(&self) -> Result<(), StorageError> {
        if let LogConfig::Kafka(settings) = &self.log
            && !settings.brokers.split(',').all(is_broker)
        {
            return Err(StorageError::Address {
                key: "storage.log.brokers",
                address: settings.brokers.clone(),
                expected: "give host:port, and several separated by commas",
            });
        }
        if let IndexConfig::OpenSearch(settings) = &self.index {
            check_url("storage.index.url", &settings.url)?;
        }
        if let ObjectsConfig::S3(settings) = &self.objects
            && let Some(endpoint) = &settings.endpoint
        {
            check_url("storage.objects.endpoint", endpoint)?;
        }
        Ok(())
    }

    /// Opens the three. What is embedded lives below `data`; what is reached over a network is
    /// not talked to yet.
    ///
    /// # Errors
    /// A configuration that cannot be right; what is embedded and cannot be opened.
    pub fn open(&self, data: &Path) -> Result<Storage, StorageError> {
        self.check_addresses()?;
        let log: Arc<dyn Log> = match &self.log {
            LogConfig::Embedded => {
                Arc::new(SegmentsLog::open(SegmentsConfig::new(data.join("log")))?)
            }
            LogConfig::Kafka(settings) => Arc::new(KafkaLog::new(KafkaConfig {
                brokers: settings.brokers.clone(),
                prefix: settings.prefix.clone(),
                properties: settings.properties.clone(),
                replication: settings.replication,
                min_insync: settings.min_insync,
                ..KafkaConfig::default()
            })?),
        };
        let index: Arc<dyn Index> = match &self.index {
            IndexConfig::Embedded => {
                Arc::new(SqliteIndex::open(data.join("index").join("index.sqlite"))?)
            }
            IndexConfig::OpenSearch(settings) => {
                Arc::new(OpenSearchIndex::new(OpenSearchConfig {
                    url: settings.url.clone(),
                    user: settings.user.clone(),
                    password: optional("index.password_file", settings.password_file.as_ref())?,
                    ca: optional("index.ca_file", settings.ca_file.as_ref())?,
                    prefix: settings.prefix.clone(),
                    shards: settings.shards,
                    replicas: settings.replicas,
                    ..OpenSearchConfig::default()
                })?)
            }
        };
        let objects: Arc<dyn Objects> = match &self.objects {
            ObjectsConfig::Embedded => Arc::new(DirectoryObjects::new(data.join("objects"))),
            ObjectsConfig::S3(settings) => {
                let keys = read("objects.keys_file", &settings.keys_file)?;
                let Some((access_key, secret_key)) = keys.split_once('\n') else {
                    return Err(StorageError::File {
                        key: "objects.keys_file",
                        path: settings.keys_file.clone(),
                        error: "expected two lines: access key, secret key".to_owned(),
                    });
                };
                Arc::new(S3Objects::new(S3Config {
                    endpoint: settings.endpoint.clone(),
                    region: settings.region.clone(),
                    bucket: settings.bucket.clone(),
                    access_key: access_key.trim().to_owned(),
                    secret_key: secret_key.trim().to_owned(),
                    path_style: settings.path_style,
                }))
            }
        };
        Ok(Storage {
            log,
            index,
            objects,
        })
    }
}

/// `host`, `host:port` or either behind `protocol://`.
fn is_broker(text: &str) -> bool {
    let text = text.trim();
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
    let plain = !host.is_empty() && !host.contains(['/', ' ', '@']);
    plain && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check_url(key: &'static str, text: &str) -> Result<(), StorageError> {
    let url = Url::parse(text).ok();
    let fits = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if url.as_ref().is_some_and(fits) {
        return Ok(());
    }
    Err(StorageError::Address {
        key,
        address: url.map_or_else(|| text.to_owned(), without_password),
        expected: "give http://host:port or https://host:port",
    })
}

fn without_password(mut url: Url) -> String {
    // Fails where a URL can have none.
    let _ = url.set_password(None);
    url.to_string()
}

fn optional(key: &'static str, path: Option<&PathBuf>) -> Result<Option<String>, StorageError> {
    path.map(|path| read(key, path)).transpose()
}

fn read(key: &'static str, path: &Path) -> Result<String, StorageError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(StorageError::File {
            key,
            path: path.to_owned(),
            error: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn storage(json: &str) -> Result<StorageConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn what_is_left_out_is_embedded_and_what_is_wrong_is_named() {
        assert!(!storage("{}").unwrap().is_shared());
        let shared = storage(
            r#"{"log":{"kind":"kafka","brokers":"a:1"},"index":{"kind":"opensearch","url":"http://a"},
                "objects":{"kind":"s3","bucket":"b","keys_file":"k"}}"#,
        );
        assert!(shared.unwrap().is_shared());
        let error = storage(r#"{"log":{"kind":"kafka","brokers":"a:1","brooker":2}}"#).unwrap_err();
        assert!(error.to_string().contains("brooker"), "{error}");
        let error = storage(r#"{"log":{"kind":"carrier-pigeon"}}"#).unwrap_err();
        assert!(error.to_string().contains("carrier-pigeon"), "{error}");
    }

    #[test]
    fn an_address_that_can_be_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let brokers =
            |brokers: &str| format!(r#"{{"log":{{"kind":"kafka","brokers":"{brokers}"}}}}"#);
        let index = |url: &str| format!(r#"{{"index":{{"kind":"opensearch","url":"{url}"}}}}"#);
        let endpoint = |endpoint: &str| {
            format!(
                r#"{{"objects":{{"kind":"s3","bucket":"b","keys_file":"k","endpoint":"{endpoint}"}}}}"#
            )
        };
        for (config, named) in [
            (brokers(""), "storage.log.brokers"),
            (brokers("a:1,"), "storage.log.brokers"),
            (brokers("a:port"), "storage.log.brokers"),
            (brokers("a:70000"), "storage.log.brokers"),
            (index("search:9200"), "storage.index.url"),
            (index("not an address"), "storage.index.url"),
            (index("ftp://search"), "storage.index.url"),
            (endpoint("objects"), "storage.objects.endpoint"),
            (endpoint("http://"), "storage.objects.endpoint"),
        ] {
            let error = storage(&config).unwrap().open(dir.path()).err().unwrap();
            assert!(error.to_string().starts_with(named), "{config}: {error}");
        }
        for good in [
            brokers("a:1, b:2"),
            brokers("a"),
            brokers("SSL://a:1"),
            brokers("[::1]:9092"),
            index("https://search:9200"),
            endpoint("http://127.0.0.1:7070"),
        ] {
            storage(&good).unwrap().check_addresses().unwrap();
        }
        let secret = index("ftp://user:secret@search");
        let error = storage(&secret).unwrap().open(dir.path()).err().unwrap();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let config =
            storage(r#"{"objects":{"kind":"s3","bucket":"b","keys_file":"nowhere"}}"#).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = config.open(dir.path()).err().unwrap().to_string();
        assert!(
            error.contains("objects.keys_file") && error.contains("nowhere"),
            "{error}"
        );
    }
}
