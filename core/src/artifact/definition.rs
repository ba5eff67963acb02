//! What an artifact says.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an artifact is for, and where it runs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Collected from agents.
    #[default]
    Client,
    /// Watched by agents.
    ClientEvent,
    /// Collected on the server.
    Server,
    /// Watched on the server.
    ServerEvent,
    /// A template for notebooks.
    Notebook,
    /// The server's own.
    Internal,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Client,
        Self::ClientEvent,
        Self::Server,
        Self::ServerEvent,
        Self::Notebook,
        Self::Internal,
    ];

    /// Its name, as agents know it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClientEvent => "client_event",
            Self::Server => "server",
            Self::ServerEvent => "server_event",
            Self::Notebook => "notebook",
            Self::Internal => "internal",
        }
    }

    /// Whether it runs until it is told to stop.
    #[must_use]
    pub const fn is_event(self) -> bool {
        matches!(self, Self::ClientEvent | Self::ServerEvent)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    /// Takes any case; an empty text is a client artifact.
    fn from_str(name: &str) -> Result<Self, ()> {
        if name.is_empty() {
            return Ok(Self::Client);
        }
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(name))
            .ok_or(())
    }
}

/// An artifact, read and checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Definition {
    /// Its name; dots make a tree of names.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Markdown.
    pub description: String,
    /// Who wrote it.
    pub author: String,
    /// Where to read more.
    pub references: Vec<String>,
    /// What it is for.
    pub kind: Kind,
    /// A query that must give a row, or nothing runs.
    pub precondition: Query,
    /// What can be set.
    pub parameters: Vec<Parameter>,
    /// Where its rows come from.
    pub sources: Vec<Source>,
    /// Artifacts whose export comes before its sources.
    pub imports: Vec<String>,
    /// Statements before its own sources and those of artifacts that import it.
    pub export: Query,
    /// Files it needs.
    pub tools: Vec<ToolDefinition>,
    /// Its limits.
    pub resources: Resources,
    /// What a person must be allowed to do to collect it, for example `EXECVE`.
    pub required_permissions: Vec<String>,
    /// What it does that a person need not be allowed to do.
    pub implied_permissions: Vec<String>,
    /// The user as which a server artifact runs.
    pub impersonate: String,
    /// How columns are shown.
    pub column_types: Vec<Column>,
    /// How it is listed.
    pub metadata: Metadata,
    /// The file's text as it was loaded.
    pub raw: String,
}

impl Definition {
    /// The parameter of a name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters
            .iter()
            .find(|parameter| parameter.name == name)
    }

    /// Whether it needs the right to run programs.
    #[must_use]
    pub fn needs_execve(&self) -> bool {
        self.required_permissions
            .iter()
            .any(|permission| permission.eq_ignore_ascii_case("EXECVE"))
    }

    /// The name of a source's rows: `Artifact/Source`, or `Artifact` for a source without a name.
    #[must_use]
    pub fn result_name(&self, source: &Source) -> String {
        if source.name.is_empty() {
            return self.name.clone();
        }
        format!("{}/{}", self.name, source.name)
    }
}

/// VQL that was checked, cut into statements and freed of comments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// In order.
    pub statements: Vec<String>,
    /// Names of the artifacts that it calls, each once.
    pub calls: Vec<String>,
    /// Names of artifacts that its strings speak of as if calling them; they need not exist.
    pub mentions: Vec<String>,
}

impl Query {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The statements as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.statements.join("\n")
    }
}

/// What can be set. Values are always texts; a type says what the agent makes of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameter {
    /// The variable's name.
    pub name: String,
    /// Its value when nobody gives one.
    pub default: String,
    /// Markdown.
    pub description: String,
    /// The name shown to people, if it is another.
    pub friendly_name: String,
    /// For example `int`; an unknown type is a text. Case matters.
    pub kind: String,
    /// The values to choose from.
    pub choices: Vec<String>,
    /// What a value has to match.
    pub validating_regex: String,
    /// Of an artifactset: the kind of artifacts to choose from.
    pub artifact_type: String,
    /// Of an artifactset: choose sources rather than artifacts.
    pub sources: bool,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Its name, empty if the artifact needs no other.
    pub name: String,
    /// Markdown.
    pub description: String,
    /// A query that must give a row, or it does not run.
    pub precondition: Query,
    /// LETs and a statement that gives rows; may be empty.
    pub query: Query,
    /// Cells for a notebook about its rows.
    pub notebook: Vec<Cell>,
}

/// A cell of a notebook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    /// `md`, `vql`, `vql_suggestion`, `notebook` or `none`, in lower case.
    pub kind: String,
    /// Its name, of a suggestion.
    pub name: String,
    /// Its text.
    pub template: String,
    /// What it gives before it has run.
    pub output: String,
    /// Variables with their values.
    pub env: Vec<(String, String)>,
}

/// A file that an artifact needs on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolDefinition {
    /// Its name.
    pub name: String,
    /// Where to get it.
    pub url: String,
    /// Or the project whose newest release has it.
    pub github_project: String,
    /// The release's file.
    pub github_asset_regex: String,
    /// Whether agents get it from the server.
    pub serve_locally: bool,
    /// SHA-256 in hex.
    pub expected_hash: String,
    /// Its version, if several are in use.
    pub version: String,
}

/// Limits that an artifact sets for itself; 0 sets none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Resources {
    /// Seconds.
    pub timeout: u64,
    /// Rows of a whole collection.
    pub max_rows: u64,
    /// Uploaded bytes of a whole collection.
    pub max_upload_bytes: u64,
    /// Operations a second.
    pub ops_per_second: f32,
    /// Percent of a core.
    pub cpu_limit: f32,
    /// Reads and writes a second.
    pub iops_limit: f32,
    /// Seconds for which rows are gathered.
    pub max_batch_wait: u64,
    /// Rows that are gathered.
    pub max_batch_rows: u64,
    /// Bytes of rows that are gathered.
    pub max_batch_rows_buffer: u64,
}

/// How a column is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// For example `timestamp` or `preview_upload`.
    pub kind: String,
    /// Markdown.
    pub description: String,
}

/// How an artifact is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Not shown unless asked for.
    pub hidden: bool,
    /// May be collected with COLLECT_BASIC, whatever it requires.
    pub basic: bool,
    /// Words to find it by.
    pub tags: Vec<String>,
}
