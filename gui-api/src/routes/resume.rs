//! Uploads of a flow that has ended, gone on with: what the agent announced and has not sent whole.

use super::answers::Shared;
use super::collect::request;
use super::commands;
use crate::app::App;
use crate::clock::now_us;
use crate::guard::Params;
use crate::refusal::{Answer, Refusal};
use crate::stored::{Upload, Within, by_upload, describe, documents};
use crate::tails::About;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::TryStreamExt;
use nublar_core::fold::Resumption;
use nublar_core::stats::RESUMED_UPLOADS;
use nublar_ports::index::{Collection, Query};
use nublar_schemas::agent::velo_status::ReturnedStatus;
use nublar_schemas::agent::{ResumeTransactions, UploadTransaction, VeloMessage, VeloStatus};
use prost::Message as _;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The accessors by which an agent finds a file again without the query that found it first.
const ACCESSORS: [&str; 4] = ["auto", "file", "ntfs", "ext4"];
/// How many uploads one request names.
const MOST: usize = 1_000;
/// Seconds that the agent may work on one request, unless said otherwise, and at most.
const USUAL_TIMEOUT_S: u64 = 86_400;
const LONGEST_TIMEOUT_S: u64 = 28 * 86_400;
/// How many announcements are read at once.
const READ: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    timeout_s: Option<u64>,
}

/// `POST .../flows/{flow}/resume?timeout_s` → 200 `{"flow_id", "client_id", "uploads", "left",
/// "bytes"}` when the foreman took it, 202 when nobody has answered yet. `left` are uploads for
/// another time, `bytes` is what is missing.
pub(crate) async fn resume(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
    Params(asked): Params<Asked>,
) -> Answer<Response> {
    let timeout = asked.timeout_s.unwrap_or(USUAL_TIMEOUT_S);
    if !(1..=LONGEST_TIMEOUT_S).contains(&timeout) {
        let error = format!("timeout_s={timeout} is not between 1 and {LONGEST_TIMEOUT_S}");
        return Err(Refusal::bad(error));
    }
    let flow = app.flow(&client, &flow).await?;
    app.registry
        .progress
        .ready("the registry", app.config.deadline)
        .await?;
    let within = flow.within();
    let stored = flow.uploaded_bytes();
    let found = app.found(Collection::Buffers, &within, stored).await?;
    let uploads = describe(&app, &within, by_upload(&found)).await?;
    let mut transactions = missing(announced(&app, &within).await?, &uploads);
    if transactions.is_empty() {
        let error = format!(
            "flow {} has no upload that its agent could go on with",
            flow.id
        );
        return Err(Refusal::new(StatusCode::CONFLICT, error).hint(
            "whole files need none, and an agent can find a file again only if it was read by accessor auto, file, ntfs or ext4",
        ));
    }
    let left = transactions.len().saturating_sub(MOST);
    transactions.truncate(MOST);
    let count = transactions.len();
    let bytes: i64 = transactions
        .iter()
        .map(|one| (one.expected_size - one.start_offset).max(0))
        .sum();

    let began_us = now_us();
    let body = ResumeTransactions {
        flow_id: flow.id.to_string(),
        client_id: client.clone(),
        transactions,
        query_stats: vec![VeloStatus {
            status: ReturnedStatus::Progress.into(),
            names_with_response: vec![RESUMED_UPLOADS.to_owned()],
            first_active: u64::try_from(began_us).unwrap_or(0),
            ..VeloStatus::default()
        }],
        timeout,
        ..ResumeTransactions::default()
    };
    let resumption = Resumption {
        request: request(&app, &Bytes::from(body.encode_to_vec())).await?,
        began_us,
        uploads: count,
    };
    let generation = app.registry.generation(&flow.key).unwrap_or(1);
    let wanted =
        serde_json::to_string(&resumption).map_err(|error| Refusal::fault(error.to_string()))?;
    let about = About::Client(&flow.key, generation);
    let (id, outcome) = app
        .command(about, "resume", flow.id.as_str(), wanted)
        .await?;
    commands::answer(&id, outcome, || {
        Ok(Json(json!({
            "flow_id": flow.id,
            "client_id": client,
            "command_id": id,
            "uploads": count,
            "left": left,
            "bytes": bytes,
        }))
        .into_response())
    })
}

/// What the agent said that it uploads in this flow, by number, where it could find it again.
pub(super) async fn announced(app: &Arc<App>, within: &Within) -> Answer<Vec<UploadTransaction>> {
    let query = Query {
        limit: READ,
        ..within.query(Some(""))
    };
    let mut said = std::pin::pin!(documents(Arc::clone(app), Collection::Buffers, query));
    let mut announced = BTreeMap::new();
    while let Some(document) = said.try_next().await? {
        let message = VeloMessage::decode(document.body)
            .map_err(|error| Refusal::fault(format!("a stored message cannot be read: {error}")))?;
        let can_find = |one: &UploadTransaction| ACCESSORS.contains(&one.accessor.as_str());
        if let Some(one) = message.upload_transaction.filter(can_find) {
            announced.insert((one.upload_id, one.store_as_name.clone()), one);
        }
    }
    Ok(announced.into_values().collect())
}

/// Whether this is the announcement of that upload.
pub(super) fn is_of(announced: &UploadTransaction, upload: &Upload) -> bool {
    announced.upload_id == upload.number && announced.store_as_name == upload.path
}

/// Those that are not there whole, from where each of them is missing.
fn missing(announced: Vec<UploadTransaction>, uploads: &[Upload]) -> Vec<UploadTransaction> {
    let of = |one: &UploadTransaction| uploads.iter().filter(|upload| is_of(one, upload)).collect();
    let from_where = |one: UploadTransaction| {
        let parts: Vec<&Upload> = of(&one);
        if parts.iter().any(|upload| upload.complete) {
            return None;
        }
        // A sparse file is sent from its beginning.
        let plain = parts.iter().find(|upload| !upload.sparse);
        let stored = plain.map_or(0, |upload| upload.arranged.head());
        Some(UploadTransaction {
            start_offset: i64::try_from(stored).unwrap_or(0),
            response: String::new(),
            ..one
        })
    };
    announced.into_iter().filter_map(from_where).collect()
}
