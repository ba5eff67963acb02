//! The folder in which the old server keeps its data: organisations, agents' keys, and what else
//! stands there that does not come along.

use anyhow::{Context, Result, anyhow, bail};
use nublar_core::ids::{ClientId, ClientKey, OrgId};
use nublar_wire::AgentPublicKey;
use prost::Message;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use x509_parser::pem::Pem;

/// The folder.
pub(super) struct Datastore {
    root: PathBuf,
    /// All but the root.
    pub(super) orgs: Vec<Org>,
}

/// An organisation below the root.
pub(super) struct Org {
    pub(super) id: OrgId,
    pub(super) name: String,
    pub(super) nonce: String,
}

/// Agents' keys, and the files in which none could be found.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) keys: Vec<(ClientKey, AgentPublicKey)>,
    /// File and reason.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

/// `orgs/ID.json.db`.
#[derive(Deserialize)]
struct OrgRecord {
    #[serde(default)]
    name: String,
    #[serde(default)]
    nonce: String,
}

/// `clients/ID/key.db`.
#[derive(Clone, PartialEq, Message)]
struct KeyRecord {
    #[prost(bytes = "vec", tag = "1")]
    pem: Vec<u8>,
}

impl Datastore {
    /// Looks at the folder and reads the organisations.
    ///
    /// Errors: it is no such folder; an organisation without a nonce.
    pub(super) fn open(root: &Path) -> Result<Self> {
        if !root.join("clients").is_dir() && !root.join("config").is_dir() {
            bail!(
                "{} is no server's data folder: it has neither clients nor config; Datastore.location in server.config.yaml says where it is",
                root.display()
            );
        }
        let mut orgs = Vec::new();
        for path in entries(&root.join("orgs"))? {
            let Some(id) = file_name(&path).strip_suffix(".json.db").map(str::to_owned) else {
                continue;
            };
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let record: OrgRecord = serde_json::from_slice(&text)
                .with_context(|| format!("{}: no organisation", path.display()))?;
            if id == "root" || id.is_empty() {
                continue;
            }
            if record.nonce.is_empty() {
                bail!("{}: the organisation has no nonce", path.display());
            }
            let id = id
                .parse()
                .map_err(|error| anyhow!("{}: {error}", path.display()))?;
            orgs.push(Org {
                id,
                name: record.name,
                nonce: record.nonce,
            });
        }
        Ok(Self {
            root: root.to_owned(),
            orgs,
        })
    }

    /// The keys of all clients of all organisations.
    ///
    /// Errors: a folder cannot be read. A bad key is listed, and is no error.
    pub(super) fn keys(&self) -> Result<Keys> {
        let mut keys = Keys::default();
        keys.read(&OrgId::default(), &self.root.join("clients"))?;
        for org in &self.orgs {
            let folder = self.root.join("orgs").join(org.id.as_str());
            keys.read(&org.id, &folder.join("clients"))?;
        }
        Ok(keys)
    }

    /// What else is kept there, and what people can do about it.
    pub(super) fn left(&self) -> Result<Vec<(String, String)>> {
        let mut left = Vec::new();
        let mut add = |what: String, then: &str| left.push((what, then.to_owned()));
        let users = names(&self.root.join("users"))?;
        if !users.is_empty() {
            add(
                format!("users ({}) and their rights", some(&users)),
                "people show the token of the secrets file",
            );
        }
        let mut folders = vec![(String::new(), self.root.clone())];
        for org in &self.orgs {
            let folder = self.root.join("orgs").join(org.id.as_str());
            folders.push((format!(" of {}", org.id), folder));
        }
        for (of, folder) in folders {
            let artifacts = files_below(&folder.join("artifact_definitions"))?;
            if let Some(first) = artifacts.first() {
                let pattern = folder.join("artifact_definitions");
                add(
                    format!("artifacts that people wrote{of} ({})", artifacts.len()),
                    &format!(
                        "add them once the server runs: find {} -name '*.yaml' -exec nublar artifacts add {{}} + (the first is {})",
                        pattern.display(),
                        first.display()
                    ),
                );
            }
            if let Some(tables) = event_tables(&folder.join("config/client_monitoring.json.db")) {
                add(
                    format!("client event tables{of} ({tables})"),
                    "agents run them until their first check-in here, which gives them ours",
                );
            }
            for (name, what, then) in LEFT {
                let found = names(&folder.join(name))?.len();
                if found > 0 {
                    add(format!("{what}{of} ({found})"), then);
                }
            }
        }
        Ok(left)
    }
}

/// Folders that only the old server can read.
const LEFT: [(&str, &str, &str); 6] = [
    (
        "hunts",
        "hunts",
        "their results stay readable in the old server",
    ),
    (
        "notebooks",
        "notebooks",
        "export what you need from the old server",
    ),
    (
        "server_artifacts",
        "server events",
        "they stay readable in the old server",
    ),
    (
        "timelines",
        "timelines",
        "they stay readable in the old server",
    ),
    (
        "downloads",
        "prepared downloads",
        "copy the files from the folder",
    ),
    ("public", "tools", "add them where artifacts name them"),
];

impl Keys {
    fn read(&mut self, org: &OrgId, clients: &Path) -> Result<()> {
        for folder in entries(clients)? {
            let name = file_name(&folder);
            // The server keeps things of its own here, too.
            let Ok(client) = name.split('-').next().unwrap_or(name).parse::<ClientId>() else {
                continue;
            };
            let file = folder.join("key.db");
            if !file.exists() {
                continue;
            }
            match read_key(&file, client) {
                Ok(key) => {
                    let org = org.clone();
                    self.keys.push((ClientKey { org, client }, key));
                }
                Err(error) => self.unreadable.push((file, format!("{error:#}"))),
            }
        }
        Ok(())
    }
}

fn read_key(file: &Path, client: ClientId) -> Result<AgentPublicKey> {
    let record = KeyRecord::decode(fs::read(file)?.as_slice())?;
    let block = Pem::iter_from_buffer(&record.pem).next();
    let block = block.context("there is no key in it")??;
    let key = AgentPublicKey::from_der(&block.contents)?;
    if key.client_id() != client.to_string() {
        bail!("this is the key of {}", key.client_id());
    }
    Ok(key)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(context)?,
    };
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.with_context(context)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// What stands in a folder, without what the store puts behind names; each once.
fn names(folder: &Path) -> Result<Vec<String>> {
    let stems = entries(folder)?.into_iter().map(|path| {
        let name = file_name(&path);
        let name = name.strip_suffix(".db").unwrap_or(name);
        let name = name.strip_suffix(".json").unwrap_or(name);
        name.to_owned()
    });
    let mut stems: Vec<_> = stems.collect();
    stems.dedup();
    Ok(stems)
}

fn some(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 10 {
        text.push_str(&format!(" and {} more", names.len() - 10));
    }
    text
}

/// The YAML files below a folder. Links are not followed.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        let kind = fs::symlink_metadata(&path).map(|about| about.file_type());
        if kind.is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&path)?);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Which artifacts are watched, for all and by label. What cannot be read is not named.
fn event_tables(file: &Path) -> Option<String> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Names {
        artifacts: Vec<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Labelled {
        label: String,
        #[serde(default)]
        artifacts: Names,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Tables {
        #[serde(default)]
        artifacts: Names,
        #[serde(default)]
        label_events: Vec<Labelled>,
    }
    let tables: Tables = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let mut parts = Vec::new();
    if !tables.artifacts.artifacts.is_empty() {
        parts.push(format!("all: {}", some(&tables.artifacts.artifacts)));
    }
    for labelled in tables.label_events {
        parts.push(format!(
            "label {}: {}",
            labelled.label,
            some(&labelled.artifacts.artifacts)
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}
