//! Results: which sets a flow has, and their rows.

use super::answers::{RAN_TWICE, ROWS, Shared, TOTAL, streamed, value};
use super::flows::Flow;
use super::format::{Columns, Format, Writer};
use crate::app::App;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::stored::{Arranged, Block, Found, Piece, Within, arrange, bodies, row_lines};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use nublar_ports::index::Collection;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which rows or lines, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    name: Option<String>,
    #[serde(default)]
    pub(super) start: u64,
    pub(super) limit: Option<u64>,
    #[serde(default)]
    pub(super) format: Format,
}

/// `GET .../results` → `[{"name", "rows", "ran_twice"}]`, by name; with `?name` the rows of that set.
/// Agents give names that can not stand in a path, such as `..`.
pub(crate) async fn list(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
    Params(mut asked): Params<Asked>,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    if let Some(name) = asked.name.take() {
        return rows_of(app, flow, name, asked).await;
    }
    let sets: Vec<Value> = result_sets(&app, &flow)
        .await?
        .iter()
        .map(|(name, set)| json!({ "name": name, "rows": set.total, "ran_twice": set.overlaps }))
        .collect();
    Ok(Json(Value::Array(sets)).into_response())
}

/// The result sets of a flow.
pub(crate) async fn result_sets(app: &App, flow: &Flow) -> Answer<BTreeMap<String, Arranged>> {
    let stored = flow.collected_rows();
    let found = app.found(Collection::Rows, &flow.within(), stored).await?;
    let mut sets: BTreeMap<String, Vec<&Found>> = BTreeMap::new();
    for part in &found {
        sets.entry(part.source.clone()).or_default().push(part);
    }
    Ok(sets
        .into_iter()
        .map(|(name, parts)| (name, arrange(parts)))
        .collect())
}

/// `GET .../results/{name}?start&limit&format` → the rows, in their order.
pub(crate) async fn rows(
    State(app): Shared,
    Path((client, flow, name)): Path<(String, String, String)>,
    Params(asked): Params<Asked>,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    rows_of(app, flow, name, asked).await
}

async fn rows_of(app: Arc<App>, flow: Flow, name: String, asked: Asked) -> Answer<Response> {
    let mut sets = result_sets(&app, &flow).await?;
    let set = match sets.remove(&name) {
        Some(set) => set,
        // A set that may come has no rows; one that cannot come is a mistake.
        None if may_come(&app, &flow, &name) => Arranged::default(),
        None => {
            let names: Vec<_> = sets.keys().cloned().collect();
            return Err(
                Refusal::missing(format!("flow {} has no results {name}", flow.id)).hint(format!(
                    "it has: {}",
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                )),
            );
        }
    };
    let pieces = set.cut(asked.start, asked.limit.unwrap_or(u64::MAX));
    let count: u64 = pieces.iter().map(|piece| piece.take).sum();
    let within = flow.within();
    let rows = rows_as(asked.format, Arc::clone(&app), within, name, pieces);
    let mut response = streamed(&app, asked.format.content_type(), rows);
    let headers = response.headers_mut();
    headers.insert(ROWS, value(&count.to_string()));
    headers.insert(TOTAL, value(&set.total.to_string()));
    if set.overlaps {
        headers.insert(RAN_TWICE, value("true"));
    }
    Ok(response)
}

/// Whether a flow's artifacts have a result set of this name.
fn may_come(app: &App, flow: &Flow, name: &str) -> bool {
    let artifacts = flow.body.get("artifacts").and_then(Value::as_array);
    let names = artifacts.into_iter().flatten().filter_map(Value::as_str);
    let repository = app.settings.artifacts();
    names
        .filter_map(|artifact| repository.get(artifact))
        .any(|artifact| {
            artifact
                .sources
                .iter()
                .any(|source| artifact.result_name(source) == name)
        })
}

/// Rows as an answer's body. The head of CSV needs every row's columns, so they are read twice;
/// that is done inside the body, since it may take longer than an answer may take to begin.
fn rows_as(
    format: Format,
    app: Arc<App>,
    within: Within,
    name: String,
    pieces: Vec<Piece>,
) -> impl Stream<Item = Answer<Bytes>> + Send + 'static {
    let begun = async move {
        let columns = if format == Format::Csv {
            columns(&app, &within, &name, &pieces).await?
        } else {
            Columns::default()
        };
        let blocks = blocks(&app, &within, Some(&name), pieces);
        Ok::<_, Refusal>(written(Writer::new(format, columns), blocks))
    };
    futures::stream::once(begun).try_flatten()
}

/// Every column of these rows: they are read once for it.
async fn columns(app: &Arc<App>, within: &Within, name: &str, pieces: &[Piece]) -> Answer<Columns> {
    let mut columns = Columns::default();
    let mut blocks = std::pin::pin!(blocks(app, within, Some(name), pieces.to_vec()));
    while let Some((piece, block)) = blocks.try_next().await? {
        block
            .lines(piece.skip, piece.take)
            .for_each(|line| columns.see(line));
    }
    Ok(columns)
}

fn blocks(
    app: &Arc<App>,
    within: &Within,
    source: Option<&str>,
    pieces: Vec<Piece>,
) -> impl Stream<Item = Answer<(Piece, Block)>> + Send + use<> {
    let stored = bodies(Arc::clone(app), Collection::Rows, within, source, pieces);
    stored.map(|stored| {
        let (piece, body) = stored?;
        Ok((piece, row_lines(&body)?))
    })
}

/// Lines as an answer's body.
pub(super) fn written(
    writer: Writer,
    blocks: impl Stream<Item = Answer<(Piece, Block)>> + Send + 'static,
) -> impl Stream<Item = Answer<Bytes>> + Send + 'static {
    let head = futures::stream::iter([Ok(Bytes::from(writer.head()))]);
    let rest = futures::stream::try_unfold(Some((writer, blocks.boxed())), |state| async move {
        let Some((mut writer, mut blocks)) = state else {
            return Ok(None);
        };
        let Some((piece, block)) = blocks.try_next().await? else {
            return Ok(Some((Bytes::from_static(writer.tail().as_bytes()), None)));
        };
        let mut out = String::new();
        for line in block.lines(piece.skip, piece.take) {
            writer.row(line, &mut out)?;
        }
        Ok(Some((Bytes::from(out), Some((writer, blocks)))))
    });
    head.chain(rest)
        .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
}
