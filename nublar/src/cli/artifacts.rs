//! `artifacts`: list, show, add, remove, compile, check.

use super::output::{Output, items, text};
use super::rest::{Refused, Rest, escaped, read};
use super::table::{Table, shown};
use super::{Artifacts, packs};
use anyhow::Result;
use nublar_core::artifact::{Compiler, Pack, PackFile, Repository, Tools, shortcoming};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) async fn perform(rest: &Rest, out: &mut Output, command: Artifacts) -> Result<ExitCode> {
    match command {
        Artifacts::List { search, .. } => list(rest, out, search.as_deref()).await?,
        Artifacts::Show { name, .. } => show(rest, out, &name).await?,
        Artifacts::Add { paths, .. } => return add(rest, out, &paths).await,
        Artifacts::Check { paths, .. } => return check(out, &paths),
        Artifacts::Compile {
            name, parameters, ..
        } => compile(rest, out, &name, &parameters).await?,
        Artifacts::Remove { name, .. } => remove(rest, out, &name).await?,
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
    out.listed(&table, "no artifact matches")
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

/// The files behind all paths.
fn read_all(paths: &[PathBuf]) -> Result<Vec<PackFile>> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(packs::files(path)?);
    }
    Ok(files)
}

/// Adds what is good of the files, and names everything that is wrong with the others.
async fn add(rest: &Rest, out: &mut Output, paths: &[PathBuf]) -> Result<ExitCode> {
    let pack = Pack::read(read_all(paths)?);
    let mut refused: Vec<Value> = pack.refused.iter().map(|problem| json!(problem)).collect();
    let mut added = Vec::new();
    if !pack.taken.is_empty() {
        let files = pack
            .taken
            .iter()
            .map(|taken| json!({ "name": taken.file, "yaml": taken.loaded.definition.raw }));
        let body = json!({ "files": files.collect::<Vec<_>>() });
        let sent = rest.send(rest.request(Method::PUT, "/artifacts").json(&body));
        let answer = match sent.await {
            Ok(response) => read(response).await?,
            Err(error) => match error.downcast::<Refused>() {
                // A server of another version may refuse what this program takes.
                Ok(said) if !items(&said.body, "refused").is_empty() => said.body,
                Ok(said) => return Err(said.into()),
                Err(error) => return Err(error),
            },
        };
        added.extend(items(&answer, "added").iter().cloned());
        refused.extend(items(&answer, "refused").iter().cloned());
    }
    for problem in &refused {
        eprintln!("{}", problem_line(&text(problem, "file"), problem));
    }
    for artifact in &added {
        let file = format!("warning: {}", text(artifact, "file"));
        for warning in items(artifact, "warnings") {
            eprintln!("{}", problem_line(&file, warning));
        }
    }
    if out.json {
        out.document(&json!({ "added": added, "refused": refused }))?;
    } else {
        for artifact in &added {
            let name = text(artifact, "name");
            out.line(&match artifact.get("version") {
                Some(Value::Number(_)) => format!("{name} is added"),
                _ => format!("{name}: on record, but the foreman has not answered yet"),
            })?;
        }
    }
    verdict(pack.taken.len() + pack.refused_files, &refused)
}

/// Says what `add` would say, without a server. What a file needs may be in the others or built in.
pub(super) fn check(out: &mut Output, paths: &[PathBuf]) -> Result<ExitCode> {
    let pack = Pack::read(read_all(paths)?);
    let mut repository = Repository::builtin();
    let definitions = pack.taken.iter().map(|taken| &taken.loaded.definition);
    repository.extend(definitions.cloned());
    let compiler = Compiler {
        repository: &repository,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::new(),
    };
    let refused: Vec<Value> = pack.refused.iter().map(|problem| json!(problem)).collect();
    for problem in &pack.refused {
        eprintln!("{}", shown(&problem.to_string()));
    }
    let mut good = Vec::new();
    for taken in &pack.taken {
        let definition = &taken.loaded.definition;
        let short = shortcoming(&compiler, &taken.file, definition);
        let warnings: Vec<_> = taken.loaded.warnings.iter().chain(&short).collect();
        for warning in &warnings {
            eprintln!("warning: {}", shown(&warning.to_string()));
        }
        good.push(json!({ "file": taken.file, "name": definition.name, "warnings": warnings }));
    }
    if out.json {
        out.document(&json!({ "good": good, "refused": refused }))?;
    } else {
        for artifact in &good {
            out.line(&format!("{} is good", text(artifact, "name")))?;
        }
    }
    out.flush()?;
    verdict(pack.taken.len() + pack.refused_files, &refused)
}

/// Whether everything was taken.
fn verdict(files: usize, refused: &[Value]) -> Result<ExitCode> {
    if files == 0 {
        anyhow::bail!("there is no artifact: their files end in .yaml or .yml");
    }
    if refused.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut broken: Vec<String> = refused
        .iter()
        .map(|problem| text(problem, "file"))
        .collect();
    broken.dedup();
    eprintln!("nublar: {} of {files} files are refused", broken.len());
    Ok(ExitCode::FAILURE)
}

async fn compile(rest: &Rest, out: &mut Output, name: &str, parameters: &[String]) -> Result<()> {
    let given = super::collect::parameters(parameters)?;
    let path = format!("/artifacts/{}/compile", escaped(name));
    let request = rest.request(Method::POST, &path);
    let request = request.json(&json!({ "parameters": given }));
    out.document(&read(rest.send(request).await?).await?)
}

async fn remove(rest: &Rest, out: &mut Output, name: &str) -> Result<()> {
    let request = rest.request(Method::DELETE, &format!("/artifacts/{}", escaped(name)));
    let answer = read(rest.send(request).await?).await?;
    if out.json {
        return out.document(&answer);
    }
    let is = |what: &str| answer.get(what).and_then(Value::as_bool) == Some(true);
    let Some(_) = answer.get("removed") else {
        return out.line(&format!(
            "{name}: on record, but the foreman has not answered yet"
        ));
    };
    let done = if is("removed") {
        "is removed"
    } else {
        "was removed before"
    };
    let then = if is("built_in") {
        "; the built-in one of this name is used again"
    } else {
        ""
    };
    out.line(&format!("{name} {done}{then}"))?;
    let needed_by = text(&answer, "needed_by");
    if !needed_by.is_empty() && !is("built_in") {
        eprintln!("warning: needed by {}", shown(&needed_by));
    }
    Ok(())
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
