//! `artifacts`: list, show, add, remove.

use super::Artifacts;
use super::output::{Output, text};
use super::rest::{Refused, Rest, escaped, read};
use super::table::{Table, shown};
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

pub(super) async fn perform(rest: &Rest, out: &mut Output, command: Artifacts) -> Result<ExitCode> {
    match command {
        Artifacts::List { search, .. } => list(rest, out, search.as_deref()).await?,
        Artifacts::Show { name, .. } => show(rest, out, &name).await?,
        Artifacts::Add { files, .. } => {
            let mut failed = false;
            for file in &files {
                failed |= !add(rest, out, file).await?;
            }
            return Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            });
        }
        Artifacts::Remove { name, .. } => {
            let request = rest.request(Method::DELETE, &format!("/artifacts/{}", escaped(&name)));
            rest.send(request).await?;
            if out.json {
                out.document(&serde_json::json!({ "name": name, "removed": true }))?;
            } else {
                out.line(&format!("{name} is removed"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(rest: &Rest, out: &mut Output, search: Option<&str>) -> Result<()> {
    let path = format!("/artifacts?q={}", escaped(search.unwrap_or_default()));
    let artifacts = rest.json(&path).await?;
    let mut table = Table::new(["ARTIFACT", "TYPE", "ORIGIN", "DESCRIPTION"]);
    for artifact in artifacts.as_array().map_or(&[][..], Vec::as_slice) {
        if out.json {
            out.value(artifact)?;
            continue;
        }
        let alias = text(artifact, "alias_of");
        let description = match alias.as_str() {
            "" => text(artifact, "description"),
            of => format!("another name of {of}"),
        };
        table.row([
            text(artifact, "name"),
            text(artifact, "type"),
            text(artifact, "origin"),
            description,
        ]);
    }
    if out.json {
        Ok(())
    } else {
        out.table(&table, "no artifact matches")
    }
}

async fn show(rest: &Rest, out: &mut Output, name: &str) -> Result<()> {
    let artifact = rest.json(&format!("/artifacts/{}", escaped(name))).await?;
    if out.json {
        return out.document(&artifact);
    }
    for line in text(&artifact, "yaml").lines() {
        out.line(&shown(&line.replace('\t', "    ")))?;
    }
    Ok(())
}

/// Adds one file. What is wrong with it is said, and the next one is tried.
async fn add(rest: &Rest, out: &mut Output, file: &Path) -> Result<bool> {
    let (name, yaml) = if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin()
            .read_to_end(&mut text)
            .context("cannot read standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let name = file.display().to_string();
        let text = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
        (name, text)
    };
    let sent = rest
        .send(rest.request(Method::PUT, "/artifacts").body(yaml))
        .await;
    let answer = match sent {
        Ok(response) => read(response).await?,
        Err(error) => {
            let refused = error.downcast_ref::<Refused>().map(|refused| &refused.body);
            let problems = refused
                .and_then(|body| body.get("problems"))
                .and_then(Value::as_array);
            let Some(problems) = problems else {
                return Err(error);
            };
            for problem in problems {
                eprintln!("{}", problem_line(&name, problem));
            }
            return Ok(false);
        }
    };
    for warning in answer
        .get("warnings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        eprintln!("{}", problem_line(&format!("warning: {name}"), warning));
    }
    if out.json {
        out.document(&answer)?;
    } else if answer.get("name").is_some() {
        out.line(&format!("{} is added", text(&answer, "name")))?;
    } else {
        out.line(&format!(
            "{name}: on record, but the foreman has not answered yet"
        ))?;
    }
    Ok(true)
}

/// `file:line:column: key: message`.
pub(super) fn problem_line(file: &str, problem: &Value) -> String {
    let number = |name: &str| problem.get(name).and_then(Value::as_u64).unwrap_or(0);
    let mut line = file.to_owned();
    if number("line") > 0 {
        line = format!("{line}:{}:{}", number("line"), number("column"));
    }
    let key = text(problem, "key");
    let message = text(problem, "message");
    shown(&if key.is_empty() {
        format!("{line}: {message}")
    } else {
        format!("{line}: {key}: {message}")
    })
}
