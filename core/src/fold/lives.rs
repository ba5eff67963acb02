//! Deletions: how one generation of a client ends. The next begins when its agent enrols anew.

use super::client::Client;
use super::flow::{GivenUp, Task};
use super::{Fold, Output, Turn, documents, header};
use crate::ids::ClientKey;
use nublar_schemas::records::{ClientLife, Command};

impl Fold {
    /// Deletes a client as the command's generation knows it. One that has ended already stays as
    /// it is: whoever came after it is another.
    pub(super) fn delete_client(
        &mut self,
        turn: &mut Turn,
        command: &Command,
    ) -> Result<String, String> {
        let key = ClientKey::of(&command.header).map_err(|error| error.to_string())?;
        if command.target != key.client.to_string() {
            let (target, client) = (&command.target, key.client);
            return Err(format!("{target} is to be deleted in the name of {client}"));
        }
        let ends = command.header.generation;
        let next = ends
            .checked_add(1)
            .filter(|next| *next > 1)
            .ok_or_else(|| format!("{} has no generation {ends}", key.client))?;
        let now = self.clients.get(&key).map(|client| client.generation);
        if now.is_none_or(|now| now < next) {
            self.end_life(turn, &key, next);
            turn.outputs.push(Output::Life(ClientLife {
                header: header(&key, next, turn.at_us),
            }));
            turn.outputs.push(Output::State(documents::deleted(
                &key,
                next,
                turn.version,
                turn.at_us,
            )));
        }
        Ok(format!("{{\"ended_generation\":{ends}}}"))
    }

    /// Whatever there is of the client ends; what comes is of generation `next`.
    pub(super) fn end_life(&mut self, turn: &mut Turn, key: &ClientKey, next: i64) {
        let new = Client::new(next);
        let Some(ended) = self.clients.insert(key.clone(), new) else {
            return;
        };
        for (id, mut flow) in ended.flows {
            self.open.remove(&(key.clone(), id.clone()));
            if flow.task == Task::Offered {
                turn.withdraw(key, ended.generation, &id);
            }
            if flow.ended_us.is_none() {
                flow.given_up = Some(GivenUp::Deleted);
                flow.ended_us = Some(turn.at_us);
                let news = documents::completion(key, ended.generation, &id, &flow, turn.at_us);
                turn.outputs.push(Output::Notify(news.into()));
            }
        }
    }
}
