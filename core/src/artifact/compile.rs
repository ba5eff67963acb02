//! Turns a wish into the request that an agent runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use nublar_schemas::agent::{FlowRequest, VqlCollectorArgs, VqlEnv, VqlRequest, flow_request};
use prost::Message;

use super::closure::{Closure, find};
use super::collect::{Collect, Compression, Table, Wanted};
use super::definition::{Definition, Kind, Query, Source};
use super::error::CompileError;
use super::names::suggestion;
use super::parameters::{self, MASK};
use super::repository::Repository;
use super::tools::Tools;
use super::types::conversion;

/// Rows in one message of an agent, unless an artifact says otherwise.
const MAX_ROW: u64 = 1000;
/// Seconds for which an agent gathers the rows of events, unless an artifact says otherwise.
const EVENT_MAX_WAIT: u64 = 120;
/// Milliseconds for which an agent gathers log rows. More of them lose rows of short flows.
const LOG_BATCH_TIME: u64 = 5;
/// Seconds between two reports of progress.
const FLOW_UPDATE_TIME: u64 = 5;
/// Uploaded bytes of a flow, unless somebody says otherwise.
const MAX_UPLOAD_BYTES: u64 = 1 << 30;

/// What a wish is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Compiler<'a> {
    /// The artifacts.
    pub repository: &'a Repository,
    /// The tools that agents can fetch.
    pub tools: &'a Tools,
    /// Values of parameters of type `server_metadata`, by the parameter's name.
    pub server_metadata: &'a BTreeMap<String, String>,
}

/// A collection, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The request.
    pub request: FlowRequest,
    /// The same, serialized; equal wishes give equal bytes.
    pub bytes: Bytes,
    /// The artifacts that were asked for, by the names their rows carry, in order.
    pub artifacts: Vec<String>,
    /// The names of the result sets that may come, in order.
    pub results: Vec<String>,
    /// How many queries run side by side; each reports its own status.
    pub queries: usize,
    /// Somebody's program may run: such a flow is never sent again by itself.
    pub execve: bool,
    /// What a person needs to be allowed to do, each once, in order.
    pub permissions: Vec<String>,
    /// Overtakes other flows on the agent.
    pub urgent: bool,
    /// The parameters for which secrets were given, in order. If there are any, `bytes` must be
    /// sealed before they are put anywhere.
    pub secrets: Vec<String>,
    /// The wish, for people to look at and to repeat; in place of secrets it has masks.
    pub spec: serde_json::Value,
}

/// A table of events, ready to be sent under a version.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledTable {
    /// One for each source.
    pub events: Vec<VqlCollectorArgs>,
    /// The names of the result sets that may come, in order.
    pub results: Vec<String>,
    /// What a person needs to be allowed to do, each once, in order.
    pub permissions: Vec<String>,
    /// The wish, for people to look at and to change.
    pub spec: serde_json::Value,
}

/// Queries and what is said about them as a whole.
#[derive(Default)]
struct Gathered {
    queries: Vec<VqlCollectorArgs>,
    artifacts: Vec<String>,
    results: Vec<String>,
    execve: bool,
    permissions: Vec<String>,
    /// What was wanted, without secrets.
    masked: Vec<Wanted>,
    secrets: BTreeSet<String>,
    max_rows: u64,
    max_upload_bytes: u64,
}

impl Gathered {
    fn mask(&mut self, definition: &Definition, wanted: &Wanted) {
        let mut masked = wanted.clone();
        for name in parameters::secrets(definition, wanted) {
            masked.parameters.insert(name.clone(), MASK.to_owned());
            self.secrets.insert(name.clone());
        }
        self.masked.push(masked);
    }
}

impl<'a> Compiler<'a> {
    /// Compiles a collection.
    ///
    /// # Errors
    /// What the wish names and is not there, does not fit or is not allowed.
    pub fn compile(&self, collect: &Collect) -> Result<Compiled, CompileError> {
        if collect.artifacts.is_empty() {
            return Err(CompileError::NoArtifact);
        }
        let mut gathered = self.gather(&collect.artifacts, Kind::Client)?;
        let limits = &collect.limits;
        for query in &mut gathered.queries {
            beat(&mut query.ops_per_second, limits.ops_per_second);
            beat(&mut query.cpu_limit, limits.cpu_limit);
            beat(&mut query.iops_limit, limits.iops_limit);
            beat(&mut query.progress_timeout, limits.progress_timeout);
            if query.timeout == 0 {
                query.timeout = limits.timeout.unwrap_or_default();
            }
        }
        beat(&mut gathered.max_rows, limits.max_rows);
        beat(&mut gathered.max_upload_bytes, limits.max_upload_bytes);
        if gathered.max_upload_bytes == 0 {
            gathered.max_upload_bytes = MAX_UPLOAD_BYTES;
        }
        let compression = match collect.compression {
            Compression::Zlib => flow_request::Compression::Zlib,
            Compression::None => flow_request::Compression::None,
        };
        let request = FlowRequest {
            vql_client_actions: gathered.queries,
            log_batch_time: LOG_BATCH_TIME,
            flow_update_time: FLOW_UPDATE_TIME,
            max_rows: gathered.max_rows,
            max_upload_bytes: gathered.max_upload_bytes,
            max_logs: limits.max_logs.unwrap_or_default(),
            compression: compression.into(),
            ..FlowRequest::default()
        };
        Ok(Compiled {
            bytes: request.encode_to_vec().into(),
            queries: request.vql_client_actions.len(),
            request,
            artifacts: gathered.artifacts,
            results: gathered.results,
            execve: gathered.execve,
            permissions: gathered.permissions,
            urgent: collect.urgent,
            secrets: gathered.secrets.into_iter().collect(),
            spec: spec(&Collect {
                artifacts: gathered.masked,
                ..collect.clone()
            }),
        })
    }

    /// Compiles a table of events. The version is for the caller to choose.
    ///
    /// # Errors
    /// What the wish names and is not there, does not fit or is not allowed.
    pub fn compile_table(&self, table: &Table) -> Result<CompiledTable, CompileError> {
        let mut gathered = self.gather(&table.artifacts, Kind::ClientEvent)?;
        for query in &mut gathered.queries {
            if query.max_wait == 0 {
                query.max_wait = EVENT_MAX_WAIT;
            }
        }
        Ok(CompiledTable {
            events: gathered.queries,
            results: gathered.results,
            permissions: gathered.permissions,
            spec: spec(table),
        })
    }

    fn gather(&self, artifacts: &[Wanted], kind: Kind) -> Result<Gathered, CompileError> {
        let mut gathered = Gathered::default();
        let defined = artifacts
            .iter()
            .map(|wanted| Ok((self.definition(wanted, kind)?, wanted)))
            .collect::<Result<Vec<_>, CompileError>>()?;
        parameters::declared(&defined)?;
        for (definition, wanted) in defined {
            parameters::check(&definition, wanted)?;
            gathered.mask(&definition, wanted);
            let own = self.queries(&definition, wanted, &mut gathered)?;
            if own.is_empty() {
                let artifact = definition.name.clone();
                return Err(CompileError::NothingToRun { artifact });
            }
            for name in result_names(&own)? {
                if gathered.results.contains(&name) {
                    return Err(CompileError::SameName { name });
                }
                gathered.results.push(name);
            }
            let resources = &definition.resources;
            gathered.max_rows = gathered.max_rows.max(resources.max_rows);
            gathered.max_upload_bytes = gathered.max_upload_bytes.max(resources.max_upload_bytes);
            gathered.execve |= definition.needs_execve();
            for permission in &definition.required_permissions {
                if !gathered.permissions.contains(permission) {
                    gathered.permissions.push(permission.clone());
                }
            }
            gathered.artifacts.push(definition.name.clone());
            gathered.queries.extend(own);
        }
        let total = i64::try_from(gathered.queries.len()).unwrap_or(i64::MAX);
        for (number, query) in (1..).zip(&mut gathered.queries) {
            query.query_id = number;
            query.total_queries = total;
        }
        Ok(gathered)
    }

    /// The artifact that is wanted, with no more than the source that is wanted.
    fn definition(&self, wanted: &Wanted, kind: Kind) -> Result<Arc<Definition>, CompileError> {
        let (name, source) = match wanted.name.split_once('/') {
            Some((name, source)) => (name, Some(source)),
            None => (wanted.name.as_str(), None),
        };
        let definition = self.repository.get(name);
        let definition = definition.ok_or_else(|| CompileError::UnknownArtifact {
            name: name.to_owned(),
            hint: self.repository.hint(name),
        })?;
        if definition.kind != kind {
            return Err(CompileError::WrongKind {
                artifact: definition.name.clone(),
                found: definition.kind.as_str(),
                wanted: kind.as_str(),
            });
        }
        let Some(wanted) = source else {
            return Ok(definition);
        };
        let mut only = Definition::clone(&definition);
        only.sources.retain(|source| source.name == wanted);
        if only.sources.is_empty() {
            let names = definition.sources.iter().map(|source| source.name.as_str());
            return Err(CompileError::UnknownSource {
                artifact: definition.name.clone(),
                source_name: wanted.to_owned(),
                hint: suggestion(wanted, names),
            });
        }
        Ok(Arc::new(only))
    }

    fn queries(
        &self,
        definition: &Definition,
        wanted: &Wanted,
        gathered: &mut Gathered,
    ) -> Result<Vec<VqlCollectorArgs>, CompileError> {
        let mut queries = Vec::new();
        for (precondition, sources) in groups(definition) {
            let query = self.query(definition, precondition, sources, wanted, gathered)?;
            if !query.query.is_empty() {
                queries.push(query);
            }
        }
        Ok(queries)
    }

    fn query(
        &self,
        definition: &Definition,
        precondition: &Query,
        sources: &[Source],
        wanted: &Wanted,
        gathered: &mut Gathered,
    ) -> Result<VqlCollectorArgs, CompileError> {
        let typed: Vec<String> = definition.parameters.iter().flat_map(conversion).collect();
        let mut statements: Vec<VqlRequest> = typed.iter().map(|text| unnamed(text)).collect();
        let mut closure = Closure::new(self.repository);
        let mut exports = vec![(definition.name.as_str(), definition.export.clone())];
        for import in &definition.imports {
            let imported = find(self.repository, &definition.name, import)?;
            exports.push((import, imported.export.clone()));
        }
        for (exporter, export) in &exports {
            closure.follow(exporter, export)?;
            statements.extend(export.statements.iter().map(|text| unnamed(text)));
        }
        for source in sources {
            closure.follow(&definition.name, &source.query)?;
            statements.extend(source.query.statements.iter().map(|text| unnamed(text)));
            if let (Some(last), false) = (statements.last_mut(), source.query.is_empty()) {
                last.name = definition.result_name(source);
            }
        }
        closure.follow(&definition.name, precondition)?;
        gathered.execve |= closure.needs_execve();
        let resources = &definition.resources;
        let mut query = VqlCollectorArgs {
            query: statements,
            env: self.variables(definition, wanted)?,
            artifacts: closure.artifacts(self.tools)?,
            precondition: with_types(&typed, precondition),
            effective_principal: definition.impersonate.clone(),
            timeout: resources.timeout,
            ops_per_second: resources.ops_per_second,
            cpu_limit: resources.cpu_limit,
            iops_limit: resources.iops_limit,
            max_row: resources.max_batch_rows,
            max_wait: resources.max_batch_wait,
            max_row_buffer_size: resources.max_batch_rows_buffer,
            ..VqlCollectorArgs::default()
        };
        let limits = &wanted.limits;
        beat(&mut query.timeout, limits.timeout);
        beat(&mut query.cpu_limit, limits.cpu_limit);
        beat(&mut query.max_row, limits.max_batch_rows);
        beat(&mut query.max_wait, limits.max_batch_wait);
        beat(&mut query.max_row_buffer_size, limits.max_batch_rows_buffer);
        if query.max_row == 0 {
            query.max_row = MAX_ROW;
        }
        Ok(query)
    }

    fn variables(
        &self,
        definition: &Definition,
        wanted: &Wanted,
    ) -> Result<Vec<VqlEnv>, CompileError> {
        let mut variables = Vec::new();
        for parameter in &definition.parameters {
            let metadata = || self.server_metadata.get(&parameter.name);
            let value = wanted.parameters.get(&parameter.name).or_else(|| {
                let filled = parameter.kind == "server_metadata";
                filled.then(metadata).flatten()
            });
            variables.push(variable(
                &parameter.name,
                value.unwrap_or(&parameter.default),
            ));
        }
        for (name, value) in &wanted.parameters {
            if definition.parameter(name).is_none() {
                variables.push(variable(name, value));
            }
        }
        for tool in &definition.tools {
            for (name, value) in self.tools.variables(&definition.name, tool)? {
                variables.push(variable(&name, &value));
            }
        }
        Ok(variables)
    }
}

/// Sources that run one after another in one scope, with the precondition for all of them.
fn groups(definition: &Definition) -> Vec<(&Query, &[Source])> {
    let own = &definition.precondition;
    let sources = definition.sources.as_slice();
    let conditional = sources.iter().any(|source| !source.precondition.is_empty());
    let split = definition.kind.is_event() || (own.is_empty() && conditional);
    if !split {
        return vec![(own, sources)];
    }
    sources
        .iter()
        .filter(|source| !source.query.is_empty())
        .map(|source| {
            let precondition = if source.precondition.is_empty() {
                own
            } else {
                &source.precondition
            };
            (precondition, std::slice::from_ref(source))
        })
        .collect()
}

/// The names of the rows of one artifact's queries, each once. Two of one name are fine only
/// where different preconditions choose between them; agents do not say whose rows came.
fn result_names(queries: &[VqlCollectorArgs]) -> Result<Vec<String>, CompileError> {
    let mut names: Vec<(String, &str)> = Vec::new();
    for query in queries {
        let named = query
            .query
            .iter()
            .filter(|statement| !statement.name.is_empty());
        for name in named.map(|statement| &statement.name) {
            let precondition = query.precondition.as_str();
            let mut others = names.iter().filter(|(other, _)| other == name);
            let clash = others.any(|(_, other)| {
                other.is_empty() || precondition.is_empty() || *other == precondition
            });
            if clash {
                return Err(CompileError::SameName { name: name.clone() });
            }
            names.push((name.clone(), precondition));
        }
    }
    let mut unique = Vec::new();
    for (name, _) in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    Ok(unique)
}

fn unnamed(statement: &str) -> VqlRequest {
    VqlRequest {
        vql: statement.to_owned(),
        name: String::new(),
    }
}

fn variable(key: &str, value: &str) -> VqlEnv {
    VqlEnv {
        key: key.to_owned(),
        value: value.to_owned(),
        comment: String::new(),
    }
}

/// A precondition sees the parameters as values of their types.
fn with_types(typed: &[String], precondition: &Query) -> String {
    if precondition.is_empty() {
        return String::new();
    }
    let statements = typed.iter().chain(&precondition.statements);
    let statements: Vec<&str> = statements.map(String::as_str).collect();
    statements.join("\n\n")
}

/// A limit that is set replaces another one.
fn beat<T: Default + PartialOrd>(limit: &mut T, other: Option<T>) {
    if let Some(other) = other.filter(|other| *other > T::default()) {
        *limit = other;
    }
}

fn spec(wish: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(wish).unwrap_or_default()
}
