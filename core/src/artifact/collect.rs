//! What people ask for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A collection: artifacts to run once on a machine, as one flow.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collect {
    /// What to run; at least one.
    pub artifacts: Vec<Wanted>,
    /// Limits of the whole flow.
    pub limits: Limits,
    /// Overtakes other flows on the agent.
    pub urgent: bool,
    /// How the rows travel.
    pub compression: Compression,
}

/// Artifacts that a machine watches all the time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// What to watch; may be empty, which watches nothing.
    pub artifacts: Vec<Wanted>,
}

/// One artifact that is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// The artifact, or `Artifact/Source` for one of its sources.
    pub name: String,
    /// Values for its parameters. Names that it does not declare are refused, but for those that
    /// are wholly upper case letters, digits and underscores: they are passed on as variables.
    pub parameters: BTreeMap<String, String>,
    /// Limits of this artifact.
    pub limits: ArtifactLimits,
}

impl Wanted {
    /// An artifact with its defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// The same with one more value.
    #[must_use]
    pub fn with(mut self, parameter: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.insert(parameter.into(), value.into());
        self
    }
}

/// Limits of a flow. What is not set is left to the artifacts, and then to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds for each query; an artifact's own timeout beats it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Seconds without progress after which a query is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_timeout: Option<f32>,
    /// Rows after which the flow is cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// Log rows after which no more are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_logs: Option<u64>,
    /// Uploaded bytes after which the flow is cancelled; 1 GiB unless an artifact says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_upload_bytes: Option<u64>,
    /// Operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops_per_second: Option<f32>,
    /// Percent of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f32>,
    /// Reads and writes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops_limit: Option<f32>,
}

/// Limits of one artifact in a collection or table. They beat those that it sets for itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactLimits {
    /// Seconds; in a table the time after which it starts afresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Percent of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f32>,
    /// Seconds for which rows are gathered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_wait: Option<u64>,
    /// Rows that are gathered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_rows: Option<u64>,
    /// Bytes of rows that are gathered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_rows_buffer: Option<u64>,
}

/// How rows travel from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// As zlib streams.
    #[default]
    Zlib,
    /// As they are.
    None,
}
