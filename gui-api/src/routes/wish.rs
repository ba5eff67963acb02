//! What a wish says, and the request that it is compiled to.

use crate::app::App;
use crate::clock::now_us;
use crate::refusal::{Answer, Refusal};
use nublar_core::artifact::{Collect, Compiled, Compiler, Limits, Wanted};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    artifacts: Vec<Artifact>,
    /// For every artifact that declares them; settings of the agents are for all.
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    urgent: bool,
    timeout: Option<u64>,
    progress_timeout: Option<f32>,
    max_rows: Option<u64>,
    max_logs: Option<u64>,
    max_upload_bytes: Option<u64>,
    ops_per_second: Option<f32>,
    cpu_limit: Option<f32>,
    iops_limit: Option<f32>,
    pub(crate) deadline_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "an artifact is a name, or an object of `name` and `parameters`"
)]
enum Artifact {
    Name(String),
    Object(Configured),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// The request that a wish becomes. One that holds secrets is sealed: its bytes may be put anywhere.
pub(crate) fn compile(app: &App, asked: Asked) -> Answer<Compiled> {
    let repository = app.settings.artifacts();
    let many = asked.artifacts.len() > 1;
    let mut artifacts = Vec::new();
    let mut unused: Vec<&String> = asked.parameters.keys().collect();
    for artifact in asked.artifacts {
        let Configured { name, parameters } = match artifact {
            Artifact::Name(name) => Configured {
                name,
                parameters: Map::new(),
            },
            Artifact::Object(configured) => configured,
        };
        let definition = repository.get(name.split('/').next().unwrap_or_default());
        let declares = |parameter: &str| {
            definition
                .as_ref()
                .is_some_and(|definition| definition.parameter(parameter).is_some())
        };
        let mut wanted = Wanted::new(name);
        for (parameter, value) in &asked.parameters {
            if !many || declares(parameter) {
                wanted.parameters.insert(parameter.clone(), as_text(value));
                unused.retain(|unused| *unused != parameter);
            }
        }
        wanted.parameters.extend(
            parameters
                .iter()
                .map(|(name, value)| (name.clone(), as_text(value))),
        );
        artifacts.push(wanted);
    }
    // What nobody declares is refused for all, or passed on to all.
    for parameter in unused {
        let value = asked
            .parameters
            .get(parameter)
            .map(as_text)
            .unwrap_or_default();
        for wanted in &mut artifacts {
            wanted
                .parameters
                .entry(parameter.clone())
                .or_insert_with(|| value.clone());
        }
    }
    let collect = Collect {
        artifacts,
        limits: Limits {
            timeout: asked.timeout,
            progress_timeout: asked.progress_timeout,
            max_rows: asked.max_rows,
            max_logs: asked.max_logs,
            max_upload_bytes: asked.max_upload_bytes,
            ops_per_second: asked.ops_per_second,
            cpu_limit: asked.cpu_limit,
            iops_limit: asked.iops_limit,
        },
        urgent: asked.urgent,
        ..Collect::default()
    };
    let compiler = Compiler {
        repository: &repository,
        tools: &app.settings.tools(),
        server_metadata: &BTreeMap::new(),
    };
    let mut compiled = compiler
        .compile(&collect)
        .map_err(|error| Refusal::bad(error.to_string()))?;
    if !compiled.secrets.is_empty() {
        let sealed = app.seal.seal(now_us(), &compiled.bytes);
        compiled.bytes = sealed.map_err(|error| Refusal::fault(error.to_string()))?;
    }
    Ok(compiled)
}

/// Parameters are texts for the agent; `true` and `false` are `Y` and `N`.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "Y" } else { "N" }.to_owned(),
        Value::Null => String::new(),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
