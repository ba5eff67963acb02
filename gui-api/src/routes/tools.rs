//! Tools: files that artifacts need on the machine. They stand in the objects, and agents fetch them
//! from the frontends.

use super::answers::Shared;
use super::commands::answer;
use crate::app::App;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::tails::{About, ToolFile};
use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use nublar_core::artifact::ToolDefinition;
use nublar_core::ids::hex;
use nublar_core::tools::{MOST, Manifest, PIECE, piece_key};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::timeout;

/// The longest name, version or file name.
const LONGEST: usize = 200;

/// Which one of a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    #[serde(default)]
    version: String,
}

/// What is known of a file that is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    #[serde(default)]
    version: String,
    filename: Option<String>,
    sha256: Option<String>,
}

/// The id of a tool's setting.
fn id(name: &str, version: &str) -> Answer<String> {
    let plain = |text: &str| {
        let mut characters = text.chars();
        characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    for (what, text) in [("name", name), ("version", version)] {
        if !plain(text) || text.len() > LONGEST {
            let error = format!("{text:?} is no {what} of a tool");
            return Err(Refusal::bad(error).hint("use letters, digits, `_`, `-` and `.`"));
        }
    }
    match (name, version) {
        ("", _) => Err(Refusal::bad("a tool needs a name")),
        (name, "") => Ok(name.to_owned()),
        (name, version) => Ok(format!("{name}@{version}")),
    }
}

fn no_tool(id: &str) -> Refusal {
    Refusal::missing(format!("no tool {id}")).hint("the list of tools names those that are there")
}

/// Every tool that is here or that an artifact names, by name and version.
fn all(app: &App) -> BTreeMap<(String, String), Value> {
    let (tools, files) = (app.settings.tools(), app.settings.files());
    let repository = app.settings.artifacts();
    let mut named: BTreeMap<(String, String), Vec<(&str, &ToolDefinition)>> = BTreeMap::new();
    for definition in repository.definitions() {
        for tool in &definition.tools {
            let by = named.entry((tool.name.clone(), tool.version.clone()));
            by.or_default().push((&definition.name, tool));
        }
    }
    for (name, version, _) in tools.iter() {
        named
            .entry((name.to_owned(), version.to_owned()))
            .or_default();
    }
    let described = named.into_iter().map(|((name, version), by)| {
        let wanted: Vec<_> = by
            .iter()
            .map(|(artifact, wanted)| (*artifact, *wanted, tools.resolve(artifact, wanted)))
            .collect();
        let here = tools.get(&name, &version);
        let state = if here.is_some() {
            "ready"
        } else if wanted.iter().all(|(_, _, found)| found.is_ok()) {
            "remote"
        } else {
            "missing"
        };
        let tool = here.or_else(|| wanted.iter().find_map(|(_, _, found)| found.as_ref().ok()));
        let size = id(&name, &version)
            .ok()
            .and_then(|id| files.get(&id).map(|file| file.size));
        let definitions = wanted.iter().map(|(artifact, wanted, found)| {
            json!({
                "artifact": artifact,
                "url": wanted.url,
                "expected_hash": wanted.expected_hash,
                "serve_locally": wanted.serve_locally,
                "github_project": wanted.github_project,
                "github_asset_regex": wanted.github_asset_regex,
                "problem": found.as_ref().err().map(ToString::to_string),
            })
        });
        let described = json!({
            "name": name,
            "version": version,
            "state": state,
            "sha256": tool.map(|tool| &tool.hash),
            "filename": tool.map(|tool| &tool.filename),
            "size": size,
            "urls": tool.map(|tool| &tool.urls),
            "needed_by": by.iter().map(|(artifact, _)| artifact).collect::<BTreeSet<_>>(),
            "definitions": definitions.collect::<Vec<_>>(),
        });
        ((name, version), described)
    });
    described.collect()
}

/// `GET /tools` → `[{"name", "version", "state", "sha256", "filename", "size", "urls", "needed_by",
/// "definitions"}]`. The state is `ready` of one that is here, `remote` of one that agents fetch
/// from where artifacts say that it is, and else `missing`. `definitions` are what artifacts say of
/// it, `{"artifact", "url", "expected_hash", "serve_locally", "github_project",
/// "github_asset_regex", "problem"}`, and why it can not be collected for it, or null.
pub(crate) async fn list(State(app): Shared) -> Answer<Json<Value>> {
    app.settings_ready().await?;
    Ok(Json(all(&app).into_values().collect()))
}

/// `GET /tools/{name}?version` → one of them.
pub(crate) async fn one(
    State(app): Shared,
    Path(name): Path<String>,
    Params(of): Params<Of>,
) -> Answer<Json<Value>> {
    app.settings_ready().await?;
    let id = id(&name, &of.version)?;
    let found = all(&app).remove(&(name, of.version));
    found.map(Json).ok_or_else(|| no_tool(&id))
}

/// `PUT /tools/{name}?version&filename&sha256` with the file → 200 `{"name", "version", "sha256",
/// "filename", "size"}`. The file name is that on the machine, the tool's name if left out; a file
/// that has another hash than `sha256` is refused.
pub(crate) async fn put(
    State(app): Shared,
    Path(name): Path<String>,
    Params(sent): Params<Sent>,
    body: Body,
) -> Answer<Response> {
    app.settings_ready().await?;
    let id = id(&name, &sent.version)?;
    let filename = sent.filename.unwrap_or_else(|| name.clone());
    let odd = |c: char| matches!(c, '/' | '\\') || c.is_control();
    if filename.is_empty() || filename.len() > LONGEST || filename.contains(odd) {
        let error = format!("{filename:?} is no name of a file");
        return Err(Refusal::bad(error).hint("give the name alone, without its folder"));
    }
    let (hash, manifest) = pieces(&app, body).await?;
    if let Some(expected) = sent
        .sha256
        .filter(|sha256| !sha256.eq_ignore_ascii_case(&hash))
    {
        let error = format!("the file has SHA-256 {hash}, not {expected}");
        return Err(Refusal::bad(error).hint("send it again"));
    }
    let key = Manifest::key(&hash).ok_or_else(|| Refusal::fault("a hash is no hash"))?;
    let list = manifest.write();
    let list = list.map_err(|error| Refusal::fault(error.to_string()))?;
    app.step(app.objects.put(&key, list.into())).await?;
    let file = ToolFile {
        hash,
        filename,
        size: manifest.size,
    };
    let target = format!("tool/{id}");
    let setting = json!(file).to_string();
    let (command, outcome) = app.command(About::Org, "setting", &target, setting).await?;
    app.seen(&target, &outcome).await;
    answer(&command, outcome, || {
        Ok(Json(json!({
            "name": name,
            "version": sent.version,
            "sha256": file.hash,
            "filename": file.filename,
            "size": file.size,
        }))
        .into_response())
    })
}

/// Puts a file's pieces into the objects as they come.
async fn pieces(app: &App, body: Body) -> Answer<(String, Manifest)> {
    let mut incoming = body.into_data_stream();
    let mut whole = Context::new(&SHA256);
    let mut manifest = Manifest {
        size: 0,
        pieces: Vec::new(),
    };
    let mut piece = BytesMut::with_capacity(PIECE);
    loop {
        let next = timeout(app.config.deadline, incoming.next()).await;
        let Some(data) = next.map_err(|_| Refusal::too_slow())? else {
            break;
        };
        let mut data =
            data.map_err(|error| Refusal::bad(format!("the file was cut off: {error}")))?;
        manifest.size += data.len() as u64;
        if manifest.size > MOST {
            return Err(Refusal::bad(format!("no tool has more than {MOST} bytes")));
        }
        whole.update(&data);
        while !data.is_empty() {
            let room = PIECE - piece.len();
            piece.extend_from_slice(&data.split_to(room.min(data.len())));
            if piece.len() == PIECE {
                let full = piece.split().freeze();
                manifest.pieces.push(one_piece(app, full).await?);
            }
        }
    }
    if manifest.size == 0 {
        return Err(Refusal::bad("the file is empty").hint("send it as the body"));
    }
    if !piece.is_empty() {
        manifest.pieces.push(one_piece(app, piece.freeze()).await?);
    }
    Ok((hex(whole.finish().as_ref()), manifest))
}

async fn one_piece(app: &App, piece: Bytes) -> Answer<String> {
    let mut context = Context::new(&SHA256);
    context.update(&piece);
    let hash = hex(context.finish().as_ref());
    app.step(app.objects.put(&piece_key(&hash), piece)).await?;
    Ok(hash)
}

/// `DELETE /tools/{name}?version` → 200 `{"name", "version", "removed", "needed_by"}`: whether
/// there was one, and the artifacts that name it. Its file goes too, unless another tool is the
/// same; flows that were asked for before may then miss it. Again is no error.
pub(crate) async fn delete(
    State(app): Shared,
    Path(name): Path<String>,
    Params(of): Params<Of>,
) -> Answer<Response> {
    app.settings_ready().await?;
    let id = id(&name, &of.version)?;
    let target = format!("tool/{id}");
    let needed_by = all(&app)
        .remove(&(name.clone(), of.version.clone()))
        .and_then(|mut tool| tool.get_mut("needed_by").map(Value::take));
    let body = |removed: bool| {
        Json(json!({
            "name": name,
            "version": of.version,
            "removed": removed,
            "needed_by": needed_by.clone().unwrap_or_else(|| json!([])),
        }))
        .into_response()
    };
    let Some(file) = app.settings.files().remove(&id) else {
        if app.settings.is_known(&target) {
            return Ok(body(false));
        }
        return Err(no_tool(&id));
    };
    let (command, outcome) = app
        .command(About::Org, "setting", &target, String::new())
        .await?;
    if app.seen(&target, &outcome).await.is_some()
        && let Err(refusal) = forget(&app, &file.hash).await
    {
        tracing::warn!(tool = id, error = refusal.error, "its file stays");
    }
    answer(&command, outcome, || Ok(body(true)))
}

/// Deletes a file that no tool is, and those of its pieces that no other file has.
async fn forget(app: &App, hash: &str) -> Answer<()> {
    let files = app.settings.files();
    if files.values().any(|file| file.hash == hash) {
        return Ok(());
    }
    let mut kept = BTreeSet::new();
    for file in files.values() {
        kept.extend(manifest(app, &file.hash).await?.pieces);
    }
    let gone = manifest(app, hash).await?;
    if let Some(key) = Manifest::key(hash) {
        app.step(app.objects.delete(&key)).await?;
    }
    for piece in gone.pieces.iter().filter(|piece| !kept.contains(*piece)) {
        app.step(app.objects.delete(&piece_key(piece))).await?;
    }
    Ok(())
}

async fn manifest(app: &App, hash: &str) -> Answer<Manifest> {
    let key = Manifest::key(hash).ok_or_else(|| Refusal::fault("a hash is no hash"))?;
    let bytes = app.step(app.objects.get(&key, None)).await?;
    Manifest::read(&bytes).map_err(|error| Refusal::fault(error.to_string()))
}
