//! The commands of people: they talk to a running server over its API, and do nothing themselves.
//!
//! With `--json` a command about one thing (`client`, `client rm`, `flow`, `collect`, `cancel`, `export`, `shell`, `vfs get`,
//! `artifacts show`, `artifacts add`, `artifacts check`, `artifacts remove`, `dead-letters show`) prints
//! one JSON document; a command that lists (`clients`, `flows`, `results`, `logs`, `uploads`, `vfs ls`,
//! `events`, `artifacts list`, `dead-letters list`, `topics`) or does several things (`dead-letters
//! retry|drop`) prints JSON lines, one object a line. `dump` always prints JSON lines, and `artifacts
//! compile` always a document. Errors go to stderr, and the exit code is then not 0.

mod artifacts;
mod clients;
mod collect;
mod dead_letters;
mod download;
mod events;
mod export;
mod flows;
mod hex;
mod output;
mod packs;
mod rest;
mod results;
mod shell;
mod table;
mod target;
pub(crate) mod times;
mod tools;
mod topics;
mod uploads;
mod vfs;

use anyhow::Result;
use clap::{ArgGroup, Args, Subcommand};
use output::Output;
use rest::Rest;
use std::path::PathBuf;
use std::process::ExitCode;
use target::Target;

/// What people can ask a running server.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List clients, or find some
    Clients {
        #[command(flatten)]
        target: Target,
        /// Words of host names, ids, labels and addresses, or host:, client:, label:, os:, ip:,
        /// mac: with a beginning behind it; * and ? are wildcards
        search: Vec<String>,
        /// The newest so many; all if left out
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one client, or delete it
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Client {
        #[command(flatten)]
        target: Target,
        /// The client, C.…
        #[arg(required = true)]
        client: Option<String>,
        #[command(subcommand)]
        action: Option<OfClient>,
    },
    /// Collect artifacts from a client
    ///
    /// Prints the id of the flow at once, or waits for its end with --wait. A client that is offline
    /// is given the flow when it comes back, until the deadline.
    Collect {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        wish: Wish,
    },
    /// List a client's flows, newest first
    Flows {
        #[command(flatten)]
        target: Target,
        /// The client, C.…
        client: String,
        /// The newest so many; all if left out
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one flow
    Flow {
        #[command(flatten)]
        of: OfFlow,
    },
    /// List a flow's result sets, or print the rows of one
    ///
    /// Each source of an artifact gives a result set, named Artifact/Source, or Artifact if the
    /// artifact has one source without a name.
    Results {
        #[command(flatten)]
        of: OfFlow,
        /// The result set, Artifact/Source
        name: Option<String>,
        /// How to print rows
        #[arg(long, value_enum)]
        format: Option<results::Format>,
        /// The first row to print, counted from 0
        #[arg(long, default_value_t = 0, value_name = "N")]
        start: u64,
        /// At most so many rows
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Print a flow's log
    Logs {
        #[command(flatten)]
        of: OfFlow,
    },
    /// List a flow's uploaded files, save one, or look at its bytes; F.Monitoring has those that client
    /// events brought
    Uploads {
        #[command(flatten)]
        of: OfFlow,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Save a whole flow: its rows, log and files, with a list of their hashes
    ///
    /// Every file is a file of its own in a folder; manifest.jsonl says which is which, under the
    /// names that the client gave them, and SHA256SUMS holds their hashes. Into a folder with an
    /// export that was broken off, or that the flow has outgrown, only what is missing is fetched.
    Export {
        #[command(flatten)]
        of: OfFlow,
        /// The folder; made if it is not there
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// List a client's directories and fetch its files
    #[command(subcommand)]
    Vfs(vfs::Vfs),
    /// Run a command on a client, print what it prints, and exit with its code
    Shell(shell::Shell),
    /// Cancel a flow; what it has brought stays
    Cancel {
        #[command(flatten)]
        of: OfFlow,
    },
    /// List a client's events, print those of one artifact, or follow them
    Events {
        #[command(flatten)]
        of: OfEvents,
    },
    /// List, show, add and remove artifacts
    #[command(subcommand)]
    Artifacts(Artifacts),
    /// List, show, add and remove the files that artifacts need on clients
    #[command(subcommand)]
    Tools(Tools),
    /// Show how far the topics are, and which of their readers are behind
    Topics {
        #[command(flatten)]
        target: Target,
    },
    /// List, show, retry and drop what could not be taken
    ///
    /// A message that an agent may not send, or that cannot be read or stored, is not lost: it is kept
    /// for 30 days with the reason. What a rule refused stays refused; what a worker could not store
    /// can be retried when the reason is gone. Letters are as sensitive as results.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Print everything that is stored, to compare two servers by
    Dump {
        #[command(flatten)]
        target: Target,
    },
}

/// What to do with a client.
#[derive(Debug, Subcommand)]
pub(crate) enum OfClient {
    /// Delete a client with everything that was collected from it; its agent enrols anew if it
    /// still runs
    Rm {
        #[command(flatten)]
        target: Target,
        /// The client, C.…
        client: String,
        /// Do not ask whether it is meant
        #[arg(long)]
        yes: bool,
    },
}

/// A flow of a server.
#[derive(Debug, Args)]
pub(crate) struct OfFlow {
    #[command(flatten)]
    target: Target,
    /// The client, C.…
    client: String,
    /// The flow, F.…
    flow: String,
}

/// What to do with one of a flow's uploads.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("how").args(["out", "hex"])))]
pub(crate) struct Wanted {
    /// Have the agent go on with what it has not sent whole; the flow must have ended
    #[arg(long, conflicts_with = "get")]
    resume: bool,
    /// Seconds that the agent may work on it
    #[arg(long, value_name = "N", requires = "resume")]
    timeout: Option<u64>,
    /// This file: its name, its path or its upload id
    #[arg(long, value_name = "NAME", requires = "how")]
    get: Option<String>,
    /// Save it here; - is standard output
    #[arg(long, value_name = "FILE", requires = "get")]
    out: Option<PathBuf>,
    /// Show the holes of a sparse file as zeros; a file that is saved has real holes
    #[arg(long, requires = "get", conflicts_with = "compact")]
    pad: bool,
    /// Leave the holes of a sparse file out, as it is stored; the default
    #[arg(long, requires = "get")]
    compact: bool,
    /// Save it although a part is missing
    #[arg(long, requires = "out", conflicts_with = "hex")]
    partial: bool,
    /// Print its bytes as hex digits and characters
    #[arg(long, requires = "get")]
    hex: bool,
    /// From this byte on, counted from 0
    #[arg(long, value_name = "N", requires = "hex", conflicts_with = "out", default_value_t = 0, value_parser = byte_count)]
    offset: u64,
    /// At most so many bytes; 0x… is understood too
    #[arg(long, value_name = "N", requires = "hex", conflicts_with = "out", default_value_t = 512, value_parser = byte_count)]
    length: u64,
}

/// A number of bytes, in decimal or hexadecimal digits.
fn byte_count(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// Events of a client.
#[derive(Debug, Args)]
pub(crate) struct OfEvents {
    #[command(flatten)]
    target: Target,
    /// The client, C.…
    client: String,
    /// Whose events to print, Artifact or Artifact/Source
    artifact: Option<String>,
    /// From this time of the client on: 2026-11-24T10:09:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until before this time of the client
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "N", requires = "artifact")]
    limit: Option<u64>,
    /// How to print rows
    #[arg(long, value_enum, requires = "artifact")]
    format: Option<results::Format>,
    /// The log lines instead of the rows
    #[arg(long, requires = "artifact")]
    logs: bool,
    /// Only of this session of the agent; the client's conflict lists them where machines share its key
    #[arg(long, value_name = "SESSION", requires = "artifact")]
    session: Option<String>,
    /// Print what arrives from now on, until the command is ended
    #[arg(long, requires = "artifact", conflicts_with_all = ["since", "until", "limit"])]
    follow: bool,
}

/// What to collect.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    /// The client, C.…
    client: String,
    /// Artifacts, or Artifact/Source for one source
    #[arg(required = true)]
    artifacts: Vec<String>,
    /// A parameter; repeat it for more
    #[arg(long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Wait until it has ended, at most so many seconds if given (--wait=60); the exit code is 0
    /// only if it finished
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    wait: Option<u64>,
    /// Overtake other flows of the client
    #[arg(long)]
    urgent: bool,
    /// Seconds that each query may take on the client
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Rows after which the client stops
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Uploaded bytes after which the client stops
    #[arg(long, value_name = "BYTES")]
    max_upload_bytes: Option<u64>,
    /// Seconds within which it must have ended, offline times included; a week if left out
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
}

/// What to do with artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum Artifacts {
    /// List artifacts, or find some by text of their name or description
    List {
        #[command(flatten)]
        target: Target,
        /// Text of the name or the description
        search: Option<String>,
    },
    /// Print an artifact's definition
    Show {
        #[command(flatten)]
        target: Target,
        /// Its name
        name: String,
    },
    /// Add artifacts, or replace those of the same names: whatever is good is added, and whatever is
    /// wrong with the rest is said
    Add {
        #[command(flatten)]
        target: Target,
        /// YAML files, folders of them, zip archives; - is standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Say what is wrong with artifacts, without a server
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// YAML files, folders of them, zip archives; - is standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print the request that an agent would get
    Compile {
        #[command(flatten)]
        target: Target,
        /// The artifact, or Artifact/Source for one source
        name: String,
        /// A parameter; repeat it for more
        #[arg(long = "param", value_name = "NAME=VALUE")]
        parameters: Vec<String>,
    },
    /// Remove an artifact that was added; a built-in one that it hid is used again
    #[command(visible_alias = "rm")]
    Remove {
        #[command(flatten)]
        target: Target,
        /// Its name
        name: String,
    },
}

/// What to do with dead letters: messages of agents, and records, that were refused.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List what was refused in the last 30 days, newest first
    List {
        #[command(flatten)]
        target: Target,
        /// Only of this client, C.…
        #[arg(long, value_name = "CLIENT")]
        client: Option<String>,
        /// The newest so many; all if left out
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show one with its header and the messages in it, or print its copy
    Show {
        #[command(flatten)]
        target: Target,
        /// The letter's id
        id: String,
        /// Print the copy of what was refused instead
        #[arg(long, value_enum, value_name = "FORMAT")]
        copy: Option<dead_letters::CopyFormat>,
    },
    /// Append them to the topics where they stood, once the reason is gone; what is stored of them
    /// is stored once, however often they are retried
    Retry {
        #[command(flatten)]
        target: Target,
        /// The letters' ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Hide them for good
    Drop {
        #[command(flatten)]
        target: Target,
        /// The letters' ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// What to do with tools.
#[derive(Debug, Subcommand)]
pub(crate) enum Tools {
    /// List the tools that are here, and those that artifacts name
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Show one tool
    #[command(disable_version_flag = true)]
    Show {
        #[command(flatten)]
        target: Target,
        /// Its name
        name: String,
        /// Its version, if it has one
        #[arg(long, default_value = "")]
        version: String,
    },
    /// Add a file as a tool, or put it in place of the one there
    #[command(disable_version_flag = true)]
    Add {
        #[command(flatten)]
        target: Target,
        /// The name by which artifacts know it
        name: String,
        /// The file
        file: PathBuf,
        /// Its version, if artifacts name one
        #[arg(long, default_value = "")]
        version: String,
        /// The name that it gets on clients; its own if left out
        #[arg(long)]
        filename: Option<String>,
    },
    /// Download a tool from where artifacts say that it is, and add it
    ///
    /// It is held against the hash that artifacts expect, and added only if it is the same.
    #[command(disable_version_flag = true)]
    Fetch {
        #[command(flatten)]
        target: Target,
        /// The name by which artifacts know it
        name: String,
        /// Its version, if artifacts name one
        #[arg(long, default_value = "")]
        version: String,
        /// Another place than the one that artifacts name
        #[arg(long)]
        url: Option<String>,
        /// The name that it gets on clients; the last part of the URL if left out
        #[arg(long)]
        filename: Option<String>,
    },
    /// Remove a tool and its file
    #[command(visible_alias = "rm", disable_version_flag = true)]
    Remove {
        #[command(flatten)]
        target: Target,
        /// Its name
        name: String,
        /// Its version, if it has one
        #[arg(long, default_value = "")]
        version: String,
    },
}

impl Command {
    /// The server that is meant; none by commands that need none.
    fn target(&self) -> Option<&Target> {
        Some(match self {
            Self::Client {
                action: Some(OfClient::Rm { target, .. }),
                ..
            }
            | Self::Clients { target, .. }
            | Self::Client { target, .. }
            | Self::Collect { target, .. }
            | Self::Flows { target, .. }
            | Self::Topics { target }
            | Self::Dump { target } => target,
            Self::Flow { of }
            | Self::Results { of, .. }
            | Self::Logs { of }
            | Self::Uploads { of, .. }
            | Self::Export { of, .. }
            | Self::Cancel { of } => &of.target,
            Self::Events { of } => &of.target,
            Self::Vfs(command) => command.target(),
            Self::Shell(shell) => &shell.target,
            Self::Artifacts(
                Artifacts::List { target, .. }
                | Artifacts::Show { target, .. }
                | Artifacts::Add { target, .. }
                | Artifacts::Compile { target, .. }
                | Artifacts::Remove { target, .. },
            ) => target,
            Self::Tools(
                Tools::List { target }
                | Tools::Show { target, .. }
                | Tools::Add { target, .. }
                | Tools::Fetch { target, .. }
                | Tools::Remove { target, .. },
            ) => target,
            Self::Artifacts(Artifacts::Check { .. }) => return None,
            Self::DeadLetters(
                DeadLetters::List { target, .. }
                | DeadLetters::Show { target, .. }
                | DeadLetters::Retry { target, .. }
                | DeadLetters::Drop { target, .. },
            ) => target,
        })
    }
}

/// Does what was asked. An error is for people; the exit code says the rest.
pub(crate) async fn execute(command: Command) -> Result<ExitCode> {
    let done = match (command.target().cloned(), command) {
        (_, Command::Artifacts(Artifacts::Check { json, paths })) => {
            artifacts::check(&mut Output::new(json), &paths)
        }
        (target, command) => {
            let target = target.unwrap_or_default();
            let mut out = Output::new(target.json);
            let rest = Rest::new(target.place()?)?;
            perform(command, &rest, &mut out).await.and_then(|code| {
                out.flush()?;
                Ok(code)
            })
        }
    };
    match done {
        // Whoever read our output has had enough of it.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn perform(command: Command, rest: &Rest, out: &mut Output) -> Result<ExitCode> {
    match command {
        Command::Clients { search, limit, .. } => clients::list(rest, out, &search, limit).await?,
        Command::Client {
            action: Some(OfClient::Rm { client, yes, .. }),
            ..
        } => return clients::remove(rest, out, &client, yes).await,
        Command::Client { client, .. } => {
            clients::show(rest, out, &client.unwrap_or_default()).await?;
        }
        Command::Collect { wish, .. } => return collect::collect(rest, out, wish).await,
        Command::Flows { client, limit, .. } => flows::list(rest, out, &client, limit).await?,
        Command::Flow { of } => flows::show(rest, out, &of).await?,
        Command::Results {
            of,
            name,
            format,
            start,
            limit,
        } => {
            let wanted = results::Wanted {
                name,
                format,
                start,
                limit,
            };
            results::print(rest, out, &of, wanted).await?;
        }
        Command::Logs { of } => results::logs(rest, out, &of).await?,
        Command::Uploads { of, wanted } => uploads::perform(rest, out, &of, wanted).await?,
        Command::Export { of, to } => export::perform(rest, out, &of, &to).await?,
        Command::Vfs(command) => vfs::perform(rest, out, command).await?,
        Command::Shell(shell) => return shell::run(rest, out, &shell).await,
        Command::Cancel { of } => return flows::cancel(rest, out, &of).await,
        Command::Events { of } => events::perform(rest, out, &of).await?,
        Command::Artifacts(command) => return artifacts::perform(rest, out, command).await,
        Command::Tools(command) => tools::perform(rest, out, command).await?,
        Command::Topics { .. } => topics::list(rest, out).await?,
        Command::DeadLetters(command) => return dead_letters::perform(rest, out, command).await,
        Command::Dump { .. } => topics::dump(rest, out).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
