//! Files that artifacts need on the machine.

use std::collections::BTreeMap;

use super::definition::ToolDefinition;
use super::error::CompileError;
use crate::tools::is_hash;

/// A file that agents can fetch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tool {
    /// SHA-256 in hex; agents refuse a file without one.
    pub hash: String,
    /// The name of the file on the machine.
    pub filename: String,
    /// Where agents get it, in the order in which they try.
    pub urls: Vec<String>,
    /// A path on the agent's own machine, used instead of the URLs unless empty.
    pub path: String,
}

/// The tools that are ready, by name and version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tools {
    ready: BTreeMap<(String, String), Tool>,
}

impl Tools {
    /// Adds or replaces a tool; the version may be empty.
    pub fn insert(&mut self, name: &str, version: &str, tool: Tool) {
        self.ready
            .insert((name.to_owned(), version.to_owned()), tool);
    }

    /// Removes a tool. Says whether there was one.
    pub fn remove(&mut self, name: &str, version: &str) -> bool {
        let key = (name.to_owned(), version.to_owned());
        self.ready.remove(&key).is_some()
    }

    /// Every tool with its name and version, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Tool)> {
        let ready = self.ready.iter();
        ready.map(|((name, version), tool)| (name.as_str(), version.as_str(), tool))
    }

    /// The tool of a name and version.
    #[must_use]
    pub fn get(&self, name: &str, version: &str) -> Option<&Tool> {
        self.ready.get(&(name.to_owned(), version.to_owned()))
    }

    /// The file that an artifact wants: the one that is here, else the one that its definition
    /// describes, if that says both where agents get it and what its hash is.
    ///
    /// # Errors
    /// When there is none, or another one is here.
    pub fn resolve(&self, artifact: &str, wanted: &ToolDefinition) -> Result<Tool, CompileError> {
        let not_ready = |why, what_to_do| CompileError::ToolNotReady {
            artifact: artifact.to_owned(),
            tool: wanted.name.clone(),
            why,
            what_to_do,
        };
        let Some(here) = self.get(&wanted.name, &wanted.version) else {
            return elsewhere(wanted).map_err(|why| not_ready(why, how_to_add(wanted)));
        };
        let expected = &wanted.expected_hash;
        if !expected.is_empty() && !expected.eq_ignore_ascii_case(&here.hash) {
            return Err(CompileError::OtherTool {
                artifact: artifact.to_owned(),
                tool: wanted.name.clone(),
                expected: expected.clone(),
                found: here.hash.clone(),
            });
        }
        if here.path.is_empty() && here.urls.is_empty() {
            return Err(not_ready("whose URL is not known", ADDRESS.to_owned()));
        }
        Ok(here.clone())
    }

    /// The variables through which VQL finds a tool.
    pub(super) fn variables(
        &self,
        artifact: &str,
        wanted: &ToolDefinition,
    ) -> Result<Vec<(String, String)>, CompileError> {
        let tool = self.resolve(artifact, wanted)?;
        let variable = |what: &str| format!("Tool_{}_{what}", wanted.name);
        let mut variables = vec![
            (variable("HASH"), tool.hash),
            (variable("FILENAME"), tool.filename),
        ];
        if !tool.path.is_empty() {
            variables.push((variable("PATH"), tool.path));
        } else if let Some(first) = tool.urls.first() {
            variables.push((variable("URL"), first.clone()));
            let all = serde_json::Value::from(tool.urls);
            variables.push((variable("URLs"), all.to_string()));
        }
        Ok(variables)
    }
}

/// What makes a URL of a file that is here.
const ADDRESS: &str =
    "say where agents reach the frontends, in `agent_urls` of [gui] in the configuration";

/// What the definition itself says of the file, or why that is not enough.
fn elsewhere(wanted: &ToolDefinition) -> Result<Tool, &'static str> {
    if wanted.serve_locally || !is_http(&wanted.url) {
        return Err("which is not here");
    }
    let hash = wanted.expected_hash.to_ascii_lowercase();
    if !is_hash(&hash) {
        return Err("whose hash is not known");
    }
    Ok(Tool {
        hash,
        filename: file_name(&wanted.url).to_owned(),
        urls: vec![wanted.url.clone()],
        path: String::new(),
    })
}

/// Whether it is a URL by which agents fetch files.
#[must_use]
pub fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The last part of a URL's path.
#[must_use]
pub fn file_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// How a tool that is not here gets here.
fn how_to_add(wanted: &ToolDefinition) -> String {
    let version = match wanted.version.as_str() {
        "" => String::new(),
        version => format!(" --version {version}"),
    };
    let ToolDefinition {
        name,
        github_project,
        github_asset_regex,
        ..
    } = wanted;
    let add = format!("add it with `nublar tools add {name} FILE{version}`");
    if is_http(&wanted.url) {
        return format!("fetch it with `nublar tools fetch {name}{version}`, or {add}");
    }
    if github_project.is_empty() {
        return add;
    }
    let which = match github_asset_regex.as_str() {
        "" => String::new(),
        regex => format!(", the file that matches {regex}"),
    };
    format!("{add}; it is in the releases of github.com/{github_project}{which}")
}
