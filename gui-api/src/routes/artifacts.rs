//! Artifacts: the list, one of them, what it compiles to, and removing one's own.

use super::answers::Shared;
use super::commands::answer;
use super::wish::as_text;
use crate::app::App;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::tails::{About, Outcome};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use nublar_core::artifact::{
    Collect, CompileError, Compiler, Kind, Origin, Table, Wanted, readable_request, readable_table,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
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
    app.settings_ready().await?;
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
    app.settings_ready().await?;
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

/// `DELETE /artifacts/{name}` → 200 `{"name", "removed", "built_in", "needed_by"}`: whether there
/// was one to remove, whether the built-in one of this name is seen again, and the artifacts that
/// call or import it. Only what was added can be removed; again is no error.
pub(crate) async fn delete(State(app): Shared, Path(name): Path<String>) -> Answer<Response> {
    app.settings_ready().await?;
    let repository = app.settings.artifacts();
    let target = format!("artifact/{name}");
    let built_in = repository.is_builtin(&name);
    let body = |removed: bool| {
        Json(json!({
            "name": name,
            "removed": removed,
            "built_in": built_in,
            "needed_by": repository.dependents(&name),
        }))
        .into_response()
    };
    if !repository.is_custom(&name) {
        if app.settings.is_known(&target) {
            return Ok(body(false));
        }
        if built_in {
            let error = format!("{name} is part of the program and cannot be removed");
            return Err(Refusal::new(StatusCode::CONFLICT, error)
                .hint("add one of the same name in its place"));
        }
        return Err(no_artifact(&name));
    }
    let (id, outcome) = app
        .command(About::Org, "setting", &target, String::new())
        .await?;
    app.seen(&target, &outcome).await;
    answer(&id, outcome, || Ok(body(true)))
}

impl App {
    /// Waits until this server has the version that a command made: what one just did is seen.
    pub(super) async fn seen(&self, target: &str, outcome: &Outcome) -> Option<i64> {
        let Outcome::Done(done) = outcome else {
            return None;
        };
        let body: Value = serde_json::from_str(&done.body).ok()?;
        let version = body.get("version")?.as_i64()?;
        let reached = self.settings.reach(target, version);
        if timeout(self.config.command_wait, reached).await.is_err() {
            tracing::warn!(target, version, "the settings have not come yet");
        }
        Some(version)
    }
}

/// What a request is compiled with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tried {
    parameters: Map<String, Value>,
}

/// `POST /artifacts/{name}/compile` `{"parameters"}` → the request that an agent would get, under
/// the names of its protocol, with masks in place of secrets; nothing is sent.
pub(crate) async fn compile(
    State(app): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let tried: Tried = match body.is_empty() {
        true => Tried::default(),
        false => serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("the body has no parameters: {error}")))?,
    };
    app.settings_ready().await?;
    let repository = app.settings.artifacts();
    let kind = repository.get(&name).map(|definition| definition.kind);
    let mut wanted = Wanted::new(&name);
    let parameters = tried.parameters.iter();
    wanted.parameters = parameters
        .map(|(name, value)| (name.clone(), as_text(value)))
        .collect();
    let artifacts = vec![wanted];
    let compiler = Compiler {
        repository: &repository,
        tools: &app.settings.tools(),
        server_metadata: &BTreeMap::new(),
    };
    let refused = |error: CompileError| Refusal::bad(error.to_string());
    let shown = if kind == Some(Kind::ClientEvent) {
        let table = compiler.compile_table(&Table { artifacts });
        readable_table(&table.map_err(refused)?)
    } else {
        let collect = Collect {
            artifacts,
            ..Collect::default()
        };
        readable_request(&compiler.compile(&collect).map_err(refused)?)
    };
    Ok(Json(shown))
}
