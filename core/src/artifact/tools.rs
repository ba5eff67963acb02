//! Files that artifacts need on the machine.

use std::collections::BTreeMap;

use super::definition::ToolDefinition;
use super::error::CompileError;

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

    /// The variables through which VQL finds a tool. A tool that is not there is taken from its
    /// definition, if that says both where it is and what its hash is.
    pub(super) fn variables(
        &self,
        artifact: &str,
        wanted: &ToolDefinition,
    ) -> Result<Vec<(String, String)>, CompileError> {
        let defined;
        let tool = match self.get(&wanted.name, &wanted.version) {
            Some(tool) => tool,
            None => {
                defined = from_definition(wanted);
                &defined
            }
        };
        let not_ready = |missing, what_to_do| CompileError::ToolNotReady {
            artifact: artifact.to_owned(),
            tool: wanted.name.clone(),
            missing,
            what_to_do,
        };
        if tool.hash.is_empty() {
            return Err(not_ready("hash", add(wanted)));
        }
        let expected = &wanted.expected_hash;
        if !expected.is_empty() && !expected.eq_ignore_ascii_case(&tool.hash) {
            return Err(CompileError::OtherTool {
                artifact: artifact.to_owned(),
                tool: wanted.name.clone(),
                expected: expected.clone(),
                found: tool.hash.clone(),
            });
        }
        let variable = |what: &str| format!("Tool_{}_{what}", wanted.name);
        let mut variables = vec![
            (variable("HASH"), tool.hash.clone()),
            (variable("FILENAME"), tool.filename.clone()),
        ];
        if !tool.path.is_empty() {
            variables.push((variable("PATH"), tool.path.clone()));
            return Ok(variables);
        }
        let first = tool.urls.first().ok_or_else(|| {
            let here = self.get(&wanted.name, &wanted.version).is_some();
            not_ready(
                "URL",
                if here {
                    ADDRESS.to_owned()
                } else {
                    add(wanted)
                },
            )
        })?;
        let all = serde_json::Value::from(tool.urls.clone());
        variables.push((variable("URL"), first.clone()));
        variables.push((variable("URLs"), all.to_string()));
        Ok(variables)
    }
}

/// What makes a URL of a file that is here.
const ADDRESS: &str =
    "say where agents reach the frontends, in `agent_urls` of [gui] in the configuration";

/// How a tool is added.
fn add(wanted: &ToolDefinition) -> String {
    let version = match wanted.version.as_str() {
        "" => String::new(),
        version => format!(" --version {version}"),
    };
    format!(
        "add it with `nublar tools add {} FILE{version}`",
        wanted.name
    )
}

fn from_definition(wanted: &ToolDefinition) -> Tool {
    let direct = !wanted.serve_locally && !wanted.url.is_empty();
    let path = wanted.url.split(['?', '#']).next().unwrap_or_default();
    Tool {
        hash: wanted.expected_hash.clone(),
        filename: path.rsplit('/').next().unwrap_or_default().to_owned(),
        urls: direct.then(|| wanted.url.clone()).into_iter().collect(),
        path: String::new(),
    }
}
