//! `shell`: one command on a client, by the shell of its system.

use super::OfFlow;
use super::collect::{ended, send};
use super::output::{Output, text};
use super::rest::{Rest, escaped};
use super::results::rows;
use super::table::shown;
use super::target::Target;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The exit code when the command did not come to its end: that of ssh.
const NOT_RUN: u8 = 255;

/// A command for a client.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    pub(super) target: Target,
    /// Run it in PowerShell instead of cmd.exe
    #[arg(long)]
    powershell: bool,
    /// Seconds that the command may take on the client
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The client, C.…
    client: String,
    /// The command; its words are joined by blanks
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
}

/// What a command gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// None if it did not end.
    pub(super) code: Option<i64>,
}

/// Runs it, prints what it prints, and ends as it ends.
pub(super) async fn run(rest: &Rest, out: &mut Output, shell: &Shell) -> Result<ExitCode> {
    match ran(rest, out, shell).await {
        Ok(code) => Ok(code),
        // No code of a command may look like ours.
        Err(error) => {
            eprintln!("nublar: {error:#}");
            Ok(ExitCode::from(NOT_RUN))
        }
    }
}

async fn ran(rest: &Rest, out: &mut Output, shell: &Shell) -> Result<ExitCode> {
    let client = rest
        .json(&format!("/clients/{}", escaped(&shell.client)))
        .await?;
    let artifact = artifact(&text(&client, "os"), shell.powershell)?;
    let mut body = json!({
        "artifacts": [artifact],
        "parameters": { "Command": shell.command.join(" ") },
        "urgent": true,
    });
    if let Some(timeout) = shell.timeout {
        body["timeout"] = json!(timeout);
    }
    let answer = send(rest, &shell.client, &body).await?;
    let id = text(&answer, "flow_id");
    let flow = ended(rest, &shell.client, &id, None, true).await?;
    let place = OfFlow {
        target: shell.target.clone(),
        client: shell.client.clone(),
        flow: id.clone(),
    };
    let given = given(&rows(rest, &place, artifact, 0, u64::MAX).await?);
    if out.json {
        out.document(&json!({
            "flow_id": id,
            "artifact": artifact,
            "state": text(&flow, "state"),
            "status": text(&flow, "status"),
            "stdout": given.stdout,
            "stderr": given.stderr,
            "return_code": given.code,
        }))?;
    } else {
        out.bytes(printed(&given.stdout, std::io::stdout().is_terminal()).as_bytes())?;
        out.flush()?;
        let stderr = printed(&given.stderr, std::io::stderr().is_terminal());
        std::io::stderr().write_all(stderr.as_bytes())?;
    }
    match given.code {
        Some(code) => Ok(ExitCode::from(exit_code(code))),
        None => bail!(
            "{id} gave no exit code: {}",
            shown(&format!(
                "{} {}",
                text(&flow, "state"),
                text(&flow, "status")
            ))
        ),
    }
}

/// The artifact that runs a command on this system.
pub(super) fn artifact(os: &str, powershell: bool) -> Result<&'static str> {
    match (os.to_lowercase().as_str(), powershell) {
        ("windows", true) => Ok("Windows.System.PowerShell"),
        ("windows", false) => Ok("Windows.System.CmdShell"),
        (_, true) => bail!(
            "--powershell is for Windows, and this client runs {}",
            shown(os)
        ),
        ("linux" | "darwin" | "freebsd", false) => Ok("Linux.Sys.BashShell"),
        ("", false) => bail!(
            "the client's system is not known yet: it has not said who it is; try again in a moment"
        ),
        (_, false) => bail!("no artifact runs commands on {}", shown(os)),
    }
}

/// What the rows of a shell's artifact hold: output comes in several, the code in the last one.
pub(super) fn given(rows: &[Value]) -> Given {
    let mut given = Given::default();
    for row in rows {
        given.stdout.push_str(&text(row, "Stdout"));
        given.stderr.push_str(&text(row, "Stderr"));
        if row.get("Complete") == Some(&Value::Bool(true)) {
            given.code = row.get("ReturnCode").and_then(Value::as_i64);
        }
    }
    given
}

/// A code as a process of this machine can end with it; what is no success never looks like one.
pub(super) fn exit_code(code: i64) -> u8 {
    u8::try_from(code).unwrap_or(NOT_RUN)
}

/// Output as it is, or, for a terminal, without what could take it over.
fn printed(text: &str, for_terminal: bool) -> String {
    if !for_terminal {
        return text.to_owned();
    }
    let lines = text.split('\n').map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let parts: Vec<String> = line.split('\t').map(shown).collect();
        parts.join("\t")
    });
    lines.collect::<Vec<_>>().join("\n")
}
