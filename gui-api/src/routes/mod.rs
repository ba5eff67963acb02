//! What one can ask for, one file for each.

pub(crate) mod answers;
pub(crate) mod artifacts;
pub(crate) mod clients;
pub(crate) mod collect;
pub(crate) mod commands;
pub(crate) mod dump;
pub(crate) mod events;
pub(crate) mod flows;
pub(crate) mod follow;
pub(crate) mod format;
pub(crate) mod letters;
pub(crate) mod logs;
pub(crate) mod packs;
mod ranged;
pub(crate) mod results;
pub(crate) mod resume;
pub(crate) mod tools;
pub(crate) mod topics;
pub(crate) mod uploads;
pub(crate) mod watch;
pub(crate) mod wish;

use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use std::sync::Arc;

/// Every route below `/api/v1` that needs the token.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/clients", get(clients::list))
        .route(
            "/clients/{client}",
            get(clients::one).delete(clients::delete),
        )
        .route(
            "/clients/{client}/flows",
            get(flows::list).post(collect::collect),
        )
        .route("/clients/{client}/flows/{flow}", get(flows::one))
        .route("/clients/{client}/flows/{flow}/watch", get(watch::watch))
        .route(
            "/clients/{client}/flows/{flow}/cancel",
            post(commands::cancel),
        )
        .route(
            "/clients/{client}/flows/{flow}/resume",
            post(resume::resume),
        )
        .route("/clients/{client}/flows/{flow}/results", get(results::list))
        .route(
            "/clients/{client}/flows/{flow}/results/{*name}",
            get(results::rows),
        )
        .route("/clients/{client}/flows/{flow}/logs", get(logs::logs))
        .route("/clients/{client}/flows/{flow}/uploads", get(uploads::list))
        .route(
            "/clients/{client}/flows/{flow}/uploads/{upload}",
            get(uploads::download),
        )
        .route(
            "/clients/{client}/flows/{flow}/uploads/{upload}/ranges",
            get(uploads::ranges),
        )
        .route("/clients/{client}/events", get(events::list))
        // A name is `Artifact` or `Artifact/Source`. Its slash may be written %2F; a source named
        // `watch` is reached by that alone.
        .route("/clients/{client}/events/{name}", get(events::lines))
        .route("/clients/{client}/events/{name}/watch", get(follow::watch))
        .route(
            "/clients/{client}/events/{name}/{source}",
            get(events::lines),
        )
        .route(
            "/clients/{client}/events/{name}/{source}/watch",
            get(follow::watch),
        )
        .route("/commands/{command}", get(commands::one))
        .route(
            "/artifacts",
            get(artifacts::list)
                .put(packs::put)
                .layer(DefaultBodyLimit::max(packs::MOST_BODY)),
        )
        .route(
            "/artifacts/{name}",
            get(artifacts::one).delete(artifacts::delete),
        )
        .route("/artifacts/{name}/compile", post(artifacts::compile))
        .route("/tools", get(tools::list))
        .route("/tools/{name}", get(tools::one).delete(tools::delete))
        .route("/topics", get(topics::list))
        .route("/dead-letters", get(letters::list))
        .route(
            "/dead-letters/{id}",
            get(letters::one).delete(letters::delete),
        )
        .route("/dead-letters/{id}/copy", get(letters::copy))
        .route("/dead-letters/{id}/retry", post(letters::retry))
        .route("/dump", get(dump::dump))
}

/// Those that may take as long as they do: each of their steps has a deadline.
pub(crate) fn unhurried() -> Router<Arc<App>> {
    Router::new().route("/tools/{name}", put(tools::put))
}
