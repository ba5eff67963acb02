//! Requests as JSON, for people who want to know what an agent will get.
//!
//! The names are those of the agents' protocol. What is empty or zero is left out, as on the wire.
//! Secrets are masked.

use nublar_schemas::agent::{Artifact, VqlCollectorArgs};
use serde_json::{Map, Value, json};

use super::compile::{Compiled, CompiledTable};
use super::parameters::MASK;

/// A collection.
#[must_use]
pub fn readable_request(compiled: &Compiled) -> Value {
    let request = &compiled.request;
    let queries = request.vql_client_actions.iter();
    let queries = queries.map(|of| query(of, &compiled.secrets)).collect();
    object([
        ("VQLClientActions", queries),
        ("log_batch_time", json!(request.log_batch_time)),
        ("flow_update_time", json!(request.flow_update_time)),
        ("max_rows", json!(request.max_rows)),
        ("max_upload_bytes", json!(request.max_upload_bytes)),
        ("max_logs", json!(request.max_logs)),
        ("compression", json!(request.compression)),
    ])
}

/// A table of events.
#[must_use]
pub fn readable_table(compiled: &CompiledTable) -> Value {
    let queries = compiled.events.iter();
    json!({ "event": queries.map(|of| query(of, &[])).collect::<Value>() })
}

fn query(query: &VqlCollectorArgs, secrets: &[String]) -> Value {
    let statements = query.query.iter().map(|statement| {
        object([
            ("VQL", json!(statement.vql)),
            ("Name", json!(statement.name)),
        ])
    });
    let variables = query.env.iter().map(|variable| {
        let value = match secrets.contains(&variable.key) {
            true => MASK,
            false => variable.value.as_str(),
        };
        json!({ "key": variable.key, "value": value })
    });
    object([
        ("query_id", json!(query.query_id)),
        ("total_queries", json!(query.total_queries)),
        ("env", variables.collect()),
        ("precondition", json!(query.precondition)),
        ("Query", statements.collect()),
        ("artifacts", query.artifacts.iter().map(artifact).collect()),
        ("max_row", json!(query.max_row)),
        ("max_wait", json!(query.max_wait)),
        ("max_row_buffer_size", json!(query.max_row_buffer_size)),
        ("timeout", json!(query.timeout)),
        ("progress_timeout", json!(query.progress_timeout)),
        ("ops_per_second", json!(query.ops_per_second)),
        ("cpu_limit", json!(query.cpu_limit)),
        ("iops_limit", json!(query.iops_limit)),
        ("effective_principal", json!(query.effective_principal)),
    ])
}

fn artifact(artifact: &Artifact) -> Value {
    let parameters = artifact.parameters.iter().map(|parameter| {
        object([
            ("name", json!(parameter.name)),
            ("type", json!(parameter.r#type)),
            ("default", json!(parameter.default)),
        ])
    });
    let sources = artifact.sources.iter().map(|source| {
        object([
            ("name", json!(source.name)),
            ("precondition", json!(source.precondition)),
            ("queries", json!(source.queries)),
        ])
    });
    object([
        ("name", json!(artifact.name)),
        ("type", json!(artifact.r#type)),
        ("precondition", json!(artifact.precondition)),
        ("export", json!(artifact.export)),
        ("imports", json!(artifact.imports)),
        ("parameters", parameters.collect()),
        ("sources", sources.collect()),
    ])
}

/// An object without its empty fields; a variable's empty value is kept, since it is one.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let said = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| said(value));
    Value::Object(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::artifact::{Collect, Compiler, Repository, Tools, Wanted};

    #[test]
    fn a_request_is_shown_as_agents_get_it() {
        let compiler = Compiler {
            repository: &Repository::builtin(),
            tools: &Tools::default(),
            server_metadata: &BTreeMap::new(),
        };
        let collect = Collect {
            artifacts: vec![Wanted::new("Linux.Sys.Pslist").with("ProcessRegex", "sshd")],
            ..Collect::default()
        };
        let shown = readable_request(&compiler.compile(&collect).unwrap());
        let query = &shown["VQLClientActions"][0];
        assert_eq!(query["query_id"], 1);
        assert_eq!(
            query["env"][0],
            json!({"key": "ProcessRegex", "value": "sshd"})
        );
        let last = query["Query"].as_array().unwrap().last().unwrap();
        assert_eq!(last["Name"], "Linux.Sys.Pslist");
        assert_eq!(shown.get("max_logs"), None);
        assert_eq!(shown["max_upload_bytes"], 1 << 30);
    }
}
