//! What is kept in memory of the topics that are tailed, and followers of one.

mod arrivals;
mod commands;
mod follow;
mod recent;
mod registry;
mod settings;
mod wishes;

pub(crate) use arrivals::{FOLLOWERS, Follower, News, Place};
pub(crate) use commands::{About, Commands, Outcome};
pub(crate) use recent::{Kind, Recent, Seen};
pub(crate) use registry::Registry;
pub(crate) use settings::{Settings, ToolFile};
pub(crate) use wishes::{Meant, Wishes};

use crate::app::App;
use nublar_ports::log::From;
use nublar_schemas::topics;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Starts every tail; they end with the app's token.
pub(crate) fn start(app: &Arc<App>, tasks: &mut JoinSet<()>) {
    let tailing = Arc::clone(app);
    tasks.spawn(async move {
        let start = || From::Earliest;
        let on = |record| tailing.registry.apply(&record);
        follow::follow(
            &tailing,
            topics::REGISTRY,
            start,
            &tailing.registry.progress,
            on,
        )
        .await;
    });
    let tailing = Arc::clone(app);
    tasks.spawn(async move {
        let start = || From::Earliest;
        let on = |record| tailing.settings.apply(&record);
        follow::follow(
            &tailing,
            topics::SETTINGS,
            start,
            &tailing.settings.progress,
            on,
        )
        .await;
    });
    let tailing = Arc::clone(app);
    tasks.spawn(async move {
        let on = |record| tailing.recent.apply(&record);
        follow::follow(
            &tailing,
            topics::STATE,
            recent::start,
            &tailing.recent.progress,
            on,
        )
        .await;
    });
    let tailing = Arc::clone(app);
    tasks.spawn(async move {
        let on = |record| tailing.wishes.apply(&record);
        let progress = &tailing.wishes.progress;
        follow::follow(&tailing, topics::WISHES, wishes::start, progress, on).await;
    });
    let tailing = Arc::clone(app);
    tasks.spawn(async move {
        let start = || From::Now;
        let on = |record| tailing.commands.apply(&record);
        let progress = &tailing.commands.progress;
        follow::follow(&tailing, topics::NOTIFICATIONS, start, progress, on).await;
    });
}
