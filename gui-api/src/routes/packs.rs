//! Adding artifacts: one, or a pack of them. What is broken is named, the rest is taken.

use super::answers::Shared;
use super::commands::answer;
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use crate::tails::{About, Outcome};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use nublar_core::artifact::{
    ArchiveError, Compiler, MOST_ARCHIVE, MOST_PACK, Pack, PackFile, Problem, Repository, Taken,
    Tools, is_archive, load, shortcoming, unpack,
};
use nublar_schemas::records::CommandDone;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The longest body: a pack as JSON, which is a little longer than its files.
pub(crate) const MOST_BODY: usize = MOST_PACK + MOST_PACK / 4;
/// Commands of one call that are on their way at once.
const SIDE_BY_SIDE: usize = 64;

/// A pack as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    yaml: String,
}

/// `PUT /artifacts` with a definition in YAML → 200 `{"name", "version", "warnings"}`; what is
/// wrong with it is refused with 400 and `problems`. Both are findings, `{"file", "line", "column",
/// "key", "message"}`; of a definition that comes alone the file is `artifact`.
///
/// With a zip archive, or with JSON (by its `content-type`) `{"files": [{"name", "yaml"}]}` → 200
/// `{"added": [{"file", "name", "version", "warnings"}], "refused": [finding]}`: what is in
/// `refused` was not taken, everything else was. Where nothing was, it is 400.
pub(crate) async fn put(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    app.settings_ready().await?;
    if is_archive(&body) {
        let unpacked = tokio::task::spawn_blocking(move || unpack(&body).map(Pack::read)).await;
        let unpacked = unpacked.map_err(|error| Refusal::fault(error.to_string()))?;
        return add(&app, unpacked.map_err(no_archive)?).await;
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/json")) {
        let Files { files } = serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("the body is no pack: {error}")))?;
        let size: usize = files.iter().map(|file| file.yaml.len()).sum();
        if size > MOST_PACK {
            let error = format!("the files have {size} bytes, at most {MOST_PACK} are read");
            return Err(Refusal::bad(error).hint("send them in several packs"));
        }
        let files = files.into_iter().map(|File { name, yaml }| PackFile {
            name,
            content: Ok(yaml.into_bytes()),
        });
        return add(&app, Pack::read(files)).await;
    }
    one(&app, &body).await
}

fn no_archive(error: ArchiveError) -> Refusal {
    Refusal::bad(error.to_string()).hint(format!(
        "send a zip archive of YAML files, of at most {MOST_ARCHIVE} bytes"
    ))
}

async fn one(app: &App, body: &Bytes) -> Answer<Response> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Refusal::bad(format!("the artifact is not UTF-8: {error}")))?;
    let loaded = load("artifact", text).map_err(|error| {
        Refusal::bad(error.to_string())
            .hint("correct the lines that `problems` names and send it again")
            .with("problems", json!(error.problems))
    })?;
    let taken = Taken {
        file: "artifact".to_owned(),
        loaded,
    };
    let repository = with(&app.settings.artifacts(), [&taken]);
    let warnings = warnings(&repository, &app.settings.tools(), &taken);
    let (id, outcome, version) = tell(app, &taken).await?;
    let name = taken.loaded.definition.name;
    answer(&id, outcome, || {
        Ok(Json(json!({ "name": name, "version": version, "warnings": warnings })).into_response())
    })
}

async fn add(app: &App, pack: Pack) -> Answer<Response> {
    let mut refused = pack.refused;
    if pack.taken.is_empty() {
        let error = match refused.len() {
            0 => "there is no artifact in the pack: their files end in .yaml",
            _ => "no artifact of the pack can be taken",
        };
        return Err(Refusal::bad(error).with("refused", json!(refused)));
    }
    let repository = with(&app.settings.artifacts(), &pack.taken);
    let tools = app.settings.tools();
    let told: Vec<_> = pack.taken.iter().map(|taken| tell(app, taken)).collect();
    let told: Vec<_> = stream::iter(told).buffered(SIDE_BY_SIDE).collect().await;
    let mut added = Vec::new();
    for (taken, told) in pack.taken.iter().zip(told) {
        let name = &taken.loaded.definition.name;
        let failed = match &told {
            Ok((_, Outcome::Done(CommandDone { error, .. }), _)) if error.is_empty() => None,
            Ok((_, Outcome::Done(CommandDone { error, .. }), _)) => Some(error.clone()),
            Ok((_, Outcome::Pending, _)) => None,
            Err(refusal) => Some(refusal.error.clone()),
        };
        if let Some(message) = failed {
            refused.push(Problem {
                file: taken.file.clone(),
                line: 1,
                column: 1,
                key: String::new(),
                message,
            });
            continue;
        }
        let version = told.ok().and_then(|(_, _, version)| version);
        added.push(json!({
            "file": taken.file,
            "name": name,
            "version": version,
            "warnings": warnings(&repository, &tools, taken),
        }));
    }
    Ok(Json(json!({ "added": added, "refused": refused })).into_response())
}

/// Tells the foreman of an artifact; the version that it gave it is none while it has not answered.
async fn tell(app: &App, taken: &Taken) -> Answer<(String, Outcome, Option<i64>)> {
    let definition = &taken.loaded.definition;
    let target = format!("artifact/{}", definition.name);
    let body = json!({ "yaml": definition.raw }).to_string();
    let (id, outcome) = app.command(About::Org, "setting", &target, body).await?;
    let version = app.seen(&target, &outcome).await;
    Ok((id, outcome, version))
}

/// The artifacts as they will be.
fn with<'t>(repository: &Repository, taken: impl IntoIterator<Item = &'t Taken>) -> Repository {
    let mut repository = repository.clone();
    let definitions = taken.into_iter().map(|taken| &taken.loaded.definition);
    repository.extend(definitions.cloned());
    repository
}

/// What is odd about an artifact, and why it would not run as things stand: it is taken all the
/// same, what it needs may be added next.
fn warnings(repository: &Repository, tools: &Tools, taken: &Taken) -> Vec<Problem> {
    let compiler = Compiler {
        repository,
        tools,
        server_metadata: &BTreeMap::new(),
    };
    let mut warnings = taken.loaded.warnings.clone();
    warnings.extend(shortcoming(
        &compiler,
        &taken.file,
        &taken.loaded.definition,
    ));
    warnings
}
