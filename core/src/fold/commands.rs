//! People's commands. They were checked before; here they are checked again, and answered.

use super::flow::{Flow, Task};
use super::{Fold, Output, Turn, header};
use crate::ids::{ClientKey, FlowId, OrgId};
use nublar_schemas::records::{Cancel, Command, CommandDone, Header, Setting};

impl Fold {
    pub(super) fn command(&mut self, turn: &mut Turn, command: &Command) {
        let result = match command.kind.as_str() {
            "cancel" => self.cancel(turn, command),
            "resume" => self.resume(turn, command),
            "setting" => self.setting(turn, command),
            "delete_client" => self.delete_client(turn, command),
            other => Err(format!("unknown command {other:?}")),
        };
        let (error, body) = match result {
            Ok(body) => (String::new(), body),
            Err(error) => (error, String::new()),
        };
        let header = Header {
            frontend: "foreman".to_owned(),
            ..command.header.clone()
        };
        turn.outputs.push(Output::Notify(
            CommandDone {
                header,
                id: command.id.clone(),
                error,
                body,
            }
            .into(),
        ));
    }

    fn cancel(&mut self, turn: &mut Turn, command: &Command) -> Result<String, String> {
        let key = ClientKey::of(&command.header).map_err(|error| error.to_string())?;
        let unknown = || format!("no flow {} of client {}", command.target, key.client);
        let (generation, id, flow) = self.flow_mut(&key, &command.target).ok_or_else(unknown)?;
        if flow.cancelled.is_some() {
            return Ok(String::new());
        }
        if flow.ended_us.is_some() {
            return Err(format!("flow {id} has ended: nothing to cancel"));
        }
        flow.cancelled = Some(command.user.clone());
        call_off(turn, &key, generation, &id, flow);
        turn.touch_flow(&key, &id);
        self.pump(turn, &key);
        Ok(String::new())
    }

    /// Gives a setting its next version. `target` is `kind/id`.
    fn setting(&mut self, turn: &mut Turn, command: &Command) -> Result<String, String> {
        let org: OrgId = command
            .header
            .org
            .parse()
            .map_err(|error: crate::ids::IdError| error.to_string())?;
        let (kind, id) = command
            .target
            .split_once('/')
            .filter(|(kind, id)| !kind.is_empty() && !id.is_empty())
            .ok_or_else(|| format!("target {:?} is not kind/id", command.target))?;
        let version = self
            .settings
            .entry((org, command.target.clone()))
            .or_insert(0);
        *version += 1;
        turn.outputs.push(Output::Setting(Setting {
            header: Header {
                frontend: "foreman".to_owned(),
                ..command.header.clone()
            },
            kind: kind.to_owned(),
            id: id.to_owned(),
            version: *version,
            body: command.body.clone(),
        }));
        Ok(format!("{{\"version\":{version}}}"))
    }
}

/// The flow is not to run on: it is not sent any more, or its agent is told.
pub(super) fn call_off(
    turn: &mut Turn,
    key: &ClientKey,
    generation: i64,
    id: &FlowId,
    flow: &mut Flow,
) {
    match flow.task {
        Task::Queued => flow.task = Task::Resolved,
        Task::Offered => {
            flow.task = Task::Resolved;
            turn.withdraw(key, generation, id);
        }
        Task::Granted => turn.task(Cancel {
            header: header(key, generation, turn.at_us),
            flow_id: id.to_string(),
        }),
        Task::Resolved => {}
    }
}
