//! Artifacts: the list, one of them, and adding and removing one's own.

use super::answers::Shared;
use super::commands::answer;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::tails::{About, Outcome};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use nublar_core::artifact::{
    Collect, Compiler, Definition, Kind, Origin, Problem, Repository, Table, Tools, Wanted, load,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::time::timeout;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    q: String,
}

/// `GET /artifacts?q` → `[{"name", "type", "origin", "alias_of", "description"}]`, by name. `q` is
/// text of the name or the description.
pub(crate) async fn list(State(app): Shared, Params(asked): Params<Asked>) -> Answer<Json<Value>> {
    app.settings
        .progress
        .ready("the settings", app.config.deadline)
        .await?;
    let repository = app.settings.artifacts();
    let wanted = asked.q.to_lowercase();
    let mut artifacts = Vec::new();
    for entry in repository.list() {
        let definition = repository.get(&entry.name);
        let description = definition
            .as_ref()
            .map_or("", |found| found.description.as_str());
        let matches = |text: &str| text.to_lowercase().contains(&wanted);
        if matches(&entry.name) || matches(description) {
            artifacts.push(json!({
                "name": entry.name,
                "type": entry.kind.as_str(),
                "origin": origin(entry.origin),
                "alias_of": entry.alias_of,
                "description": first_paragraph(description),
            }));
        }
    }
    Ok(Json(Value::Array(artifacts)))
}

/// The first paragraph of Markdown as one line.
fn first_paragraph(text: &str) -> String {
    let lines = text.trim().lines().map(str::trim);
    lines
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::BuiltIn => "built-in",
        Origin::Custom => "custom",
    }
}

fn no_artifact(name: &str) -> Refusal {
    Refusal::missing(format!("no artifact {name}"))
        .hint("the list of artifacts finds them by a part of their name")
}

/// `GET /artifacts/{name}` → what it says of itself; its text is in `yaml`.
pub(crate) async fn one(State(app): Shared, Path(name): Path<String>) -> Answer<Json<Value>> {
    app.settings
        .progress
        .ready("the settings", app.config.deadline)
        .await?;
    let repository = app.settings.artifacts();
    let definition = repository.get(&name).ok_or_else(|| no_artifact(&name))?;
    let entry = repository
        .list()
        .into_iter()
        .find(|entry| entry.name == name);
    Ok(Json(json!({
        "name": definition.name,
        "type": definition.kind.as_str(),
        "origin": entry.as_ref().map(|entry| origin(entry.origin)),
        "alias_of": entry.and_then(|entry| entry.alias_of),
        "description": definition.description,
        "author": definition.author,
        "references": definition.references,
        "required_permissions": definition.required_permissions,
        "parameters": definition.parameters.iter().map(|parameter| json!({
            "name": parameter.name,
            "type": parameter.kind,
            "default": parameter.default,
            "description": parameter.description,
            "friendly_name": parameter.friendly_name,
            "choices": parameter.choices,
            "validating_regex": parameter.validating_regex,
        })).collect::<Vec<_>>(),
        "sources": definition.sources.iter().map(|source| json!({
            "name": source.name,
            "results": definition.result_name(source),
            "description": source.description,
        })).collect::<Vec<_>>(),
        "yaml": definition.raw,
    })))
}

/// `PUT /artifacts` with a definition in YAML → 200 `{"name", "version", "warnings"}`; what is
/// wrong with it is refused with 400 and `problems` of line and column.
pub(crate) async fn put(State(app): Shared, body: Bytes) -> Answer<Response> {
    app.settings
        .progress
        .ready("the settings", app.config.deadline)
        .await?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| Refusal::bad(format!("the artifact is not UTF-8: {error}")))?;
    let loaded = load("artifact", text).map_err(|error| {
        let problems: Vec<Value> = error.problems.iter().map(problem).collect();
        Refusal::bad(error.to_string())
            .hint("correct the lines that `problems` names and send it again")
            .with("problems", Value::Array(problems))
    })?;
    let definition = loaded.definition;
    let mut warnings: Vec<Value> = loaded.warnings.iter().map(problem).collect();
    if let Some(why) = cannot_run(&app.settings.artifacts(), &definition) {
        warnings.push(json!({ "line": 0, "column": 0, "key": "", "message": why }));
    }
    let target = format!("artifact/{}", definition.name);
    let body = json!({ "yaml": text }).to_string();
    let (id, outcome) = app.command(About::Org, "setting", &target, body).await?;
    let version = seen(&app, &target, &outcome).await;
    answer(&id, outcome, || {
        let body = json!({ "name": definition.name, "version": version, "warnings": warnings });
        Ok(Json(body).into_response())
    })
}

/// `DELETE /artifacts/{name}` → 204; only of those that were added.
pub(crate) async fn delete(State(app): Shared, Path(name): Path<String>) -> Answer<Response> {
    app.settings
        .progress
        .ready("the settings", app.config.deadline)
        .await?;
    let entries = app.settings.artifacts().list();
    let entry = entries
        .into_iter()
        .find(|entry| entry.name == name && entry.alias_of.is_none());
    match entry.map(|entry| entry.origin) {
        None => return Err(no_artifact(&name)),
        Some(Origin::BuiltIn) => {
            let error = format!("{name} is part of the program and cannot be deleted");
            return Err(Refusal::new(StatusCode::CONFLICT, error));
        }
        Some(Origin::Custom) => {}
    }
    let target = format!("artifact/{name}");
    let (id, outcome) = app
        .command(About::Org, "setting", &target, String::new())
        .await?;
    seen(&app, &target, &outcome).await;
    answer(&id, outcome, || Ok(StatusCode::NO_CONTENT.into_response()))
}

/// Waits until this server has the version that a command made: what one just did is seen.
async fn seen(app: &crate::app::App, target: &str, outcome: &Outcome) -> Option<i64> {
    let Outcome::Done(done) = outcome else {
        return None;
    };
    let body: Value = serde_json::from_str(&done.body).ok()?;
    let version = body.get("version")?.as_i64()?;
    let reached = timeout(app.config.command_wait, app.settings.reach(target, version)).await;
    if reached.is_err() {
        tracing::warn!(target, version, "the settings have not come yet");
    }
    Some(version)
}

fn problem(problem: &Problem) -> Value {
    json!({
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
    })
}

/// Why an artifact that is well-formed would not run as things stand. It is taken all the same:
/// what it needs may be added next.
fn cannot_run(repository: &Repository, definition: &Definition) -> Option<String> {
    let mut repository = repository.clone();
    repository.insert(definition.clone());
    let compiler = Compiler {
        repository: &repository,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::new(),
    };
    let artifacts = vec![Wanted::new(&definition.name)];
    let error = match definition.kind {
        Kind::Client => compiler
            .compile(&Collect {
                artifacts,
                ..Collect::default()
            })
            .err(),
        Kind::ClientEvent => compiler.compile_table(&Table { artifacts }).err(),
        Kind::Server | Kind::ServerEvent | Kind::Notebook | Kind::Internal => None,
    };
    error.map(|error| format!("it cannot be collected with its defaults yet: {error}"))
}
