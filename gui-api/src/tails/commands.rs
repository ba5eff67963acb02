//! Commands: appended to `scheduling`, answered in `notifications`.

use super::follow::Progress;
use crate::app::{App, random};
use crate::refusal::Answer;
use bytes::Bytes;
use nublar_core::ids::{ClientKey, hex};
use nublar_core::partition;
use nublar_ports::log::Record;
use nublar_schemas::codec::CodecError;
use nublar_schemas::records::{Command, CommandDone, Notifications, Scheduling};
use nublar_schemas::topics;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How many ends of commands are remembered.
const REMEMBERED: usize = 10_000;

/// What became of a command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is done, or refused: `error` says so.
    Done(CommandDone),
    /// It is in the log; nobody has answered yet.
    Pending,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<String, oneshot::Sender<CommandDone>>,
    done: HashMap<String, CommandDone>,
    order: VecDeque<String>,
}

/// The commands of this process.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    pub(crate) progress: Progress,
    state: Mutex<State>,
}

impl Commands {
    pub(super) fn apply(&self, record: &Record) -> Result<(), CodecError> {
        let Notifications::CommandDone(done) = Notifications::decode(&record.value)? else {
            return Ok(());
        };
        let mut state = self.lock();
        if state.done.contains_key(&done.id) {
            return Ok(());
        }
        if let Some(waiting) = state.waiting.remove(&done.id) {
            // Whoever waited may have gone.
            let _ = waiting.send(done.clone());
        }
        state.order.push_back(done.id.clone());
        state.done.insert(done.id.clone(), done);
        if state.order.len() > REMEMBERED
            && let Some(oldest) = state.order.pop_front()
        {
            state.done.remove(&oldest);
        }
        Ok(())
    }

    /// The end of a command, if it came lately.
    pub(crate) fn done(&self, id: &str) -> Option<CommandDone> {
        self.lock().done.get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a command is about.
pub(crate) enum About<'a> {
    /// A client's flow.
    Client(&'a ClientKey, i64),
    /// A setting of the organisation.
    Org,
}

impl App {
    /// Appends a command and waits for its end. Returns its id and what became of it.
    pub(crate) async fn command(
        &self,
        about: About<'_>,
        kind: &str,
        target: &str,
        body: String,
    ) -> Answer<(String, Outcome)> {
        self.commands
            .progress
            .ready("the topic of answers", self.config.deadline)
            .await?;
        let id = hex(&random::<16>());
        let (header, partition, key) = match about {
            About::Client(client, generation) => {
                let header = self.header(Some(client), generation);
                (
                    header,
                    self.partition_of(client).await?,
                    client.client.to_string(),
                )
            }
            About::Org => {
                let partitions = self.partitions(topics::SCHEDULING).await?;
                let partition = partition::of_key("", target, partitions);
                (self.header(None, 0), partition, target.to_owned())
            }
        };
        let command = Scheduling::from(Command {
            header,
            id: id.clone(),
            kind: kind.to_owned(),
            target: target.to_owned(),
            user: self.config.user.clone(),
            body,
        });
        let (sender, receiver) = oneshot::channel();
        self.commands.lock().waiting.insert(id.clone(), sender);
        let value = Bytes::from(command.encode()?);
        let appended = self
            .log
            .append(topics::SCHEDULING.name, partition, key.into(), value);
        if let Err(refusal) = self.step(appended).await {
            self.commands.lock().waiting.remove(&id);
            return Err(refusal);
        }
        let outcome = match timeout(self.config.command_wait, receiver).await {
            Ok(Ok(done)) => Outcome::Done(done),
            Ok(Err(_)) | Err(_) => Outcome::Pending,
        };
        self.commands.lock().waiting.remove(&id);
        Ok((id, outcome))
    }
}
