//! What a server's configuration file says about its agents, checked.

use super::credentials::{Certificate, not_encrypted, rsa_pair, tls_pair};
use crate::secrets::Pair;
use crate::yaml::Yaml;
use anyhow::{Context, Result, anyhow, bail};
use nublar_core::ids::hex;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// How long agents let a poll be held when they are not told, seconds.
const POLL: u64 = 60;
/// Bytes of an agent's POST when it is not told.
const UPLOAD: u64 = 5 << 20;
/// Where agents connect when nothing is said.
const PORT: u64 = 8000;

/// Keys of the file.
const CA: &str = "Client.ca_certificate";
const CA_KEY: &str = "CA.private_key";
const CERTIFICATE: &str = "Frontend.certificate";
const KEY: &str = "Frontend.private_key";

/// A certificate that ends within this is worth a note, seconds.
const SOON: i64 = 90 * 86_400;

/// A deployment as its agents know it.
pub(super) struct Deployment {
    /// The agents' authority; its key is empty if it is kept elsewhere.
    pub(super) ca: Pair,
    pub(super) ca_certificate: Certificate,
    /// What agents encrypt to.
    pub(super) agents: Pair,
    pub(super) agents_certificate: Certificate,
    /// The leaf of HTTPS.
    pub(super) tls: Pair,
    /// Where that comes from.
    pub(super) tls_from: String,
    /// That of the root organisation.
    pub(super) nonce: String,
    /// What names of event queries are hidden under.
    pub(super) obfuscation_nonce: String,
    /// The name by which agents know the server.
    pub(super) server_name: String,
    /// From slash to slash.
    pub(super) base_path: String,
    /// Seconds.
    pub(super) max_poll: u64,
    /// Bytes of an agent's POST.
    pub(super) max_upload_size: u64,
    /// Where the old server listens for agents.
    pub(super) listen: SocketAddr,
    /// Whether that speaks TLS.
    pub(super) tls_listener: bool,
    /// What agents call.
    pub(super) server_urls: Vec<String>,
    /// Where its data is.
    pub(super) location: Option<String>,
    /// Where its files are, if that is elsewhere.
    pub(super) files: Option<String>,
    /// What people should know of.
    pub(super) notes: Vec<String>,
    /// What is set there and does not come along: what it is, and what to do.
    pub(super) left: Vec<(String, String)>,
}

impl Deployment {
    /// Takes what agents depend on.
    ///
    /// Errors: file, line and key of what is missing or does not fit.
    pub(super) fn read(yaml: &Yaml, now_s: i64) -> Result<Self> {
        for key in [CERTIFICATE, KEY] {
            if !yaml.has(key) {
                bail!(
                    "{}: {key} is missing: this is no configuration of a server; give server.config.yaml, not the agents' client.config.yaml",
                    yaml.file()
                );
            }
        }
        let mut notes = Vec::new();
        let (ca, ca_certificate) = ca(yaml, &mut notes)?;
        let (agents, agents_certificate) = agents(yaml, &ca_certificate)?;
        notes.extend(end(CA, &ca_certificate, now_s));
        notes.extend(end(CERTIFICATE, &agents_certificate, now_s));
        let server_name = server_name(yaml, &agents_certificate)?;
        let (tls, tls_from) = tls(yaml, &agents)?;
        if yaml.has("autocert_cert_cache") {
            notes.push("the old server had its HTTPS certificate from Let's Encrypt; here the frontend's own is used, which agents take because their CA signed it".to_owned());
        }

        let nonce = required(yaml, "Client.nonce", "agents are known by it")?;
        let obfuscation_nonce = match yaml.text("obfuscation_nonce")? {
            Some(nonce) => nonce.to_owned(),
            None => hash_of(&agents.key),
        };
        let max_poll = yaml
            .number("Client.max_poll")?
            .filter(|seconds| *seconds > 0);
        let upload = yaml.number("Client.max_upload_size")?;
        let server_urls: Vec<_> = yaml.texts("Client.server_urls")?;
        let base_path = base_path(yaml)?;
        for url in &server_urls {
            if path_of(url) != base_path {
                notes.push(format!(
                    "agents call {url}, but Frontend.base_path is {base_path}: a proxy between them has to map one to the other"
                ));
            }
        }
        let location = yaml.text("Datastore.location")?.map(str::to_owned);
        let files = yaml
            .text("Datastore.filestore_directory")?
            .map(str::to_owned);
        Ok(Self {
            ca,
            ca_certificate,
            agents,
            agents_certificate,
            tls,
            tls_from,
            nonce: nonce.trim().to_owned(),
            obfuscation_nonce,
            server_name,
            base_path,
            max_poll: max_poll.unwrap_or(POLL),
            max_upload_size: upload.filter(|bytes| *bytes > 0).unwrap_or(UPLOAD),
            listen: listen(yaml)?,
            tls_listener: !yaml.flag("Frontend.use_plain_http")?,
            server_urls: server_urls.into_iter().map(str::to_owned).collect(),
            files: files.filter(|files| Some(files) != location.as_ref()),
            location,
            notes,
            left: left(yaml)?,
        })
    }
}

/// What agents trust, and the key that signs it, empty where it is kept elsewhere.
fn ca(yaml: &Yaml, notes: &mut Vec<String>) -> Result<(Pair, Certificate)> {
    let pem = required(yaml, CA, "agents trust nothing else")?;
    let certificate = Certificate::read(pem).map_err(at(yaml, CA))?;
    let key = yaml.text(CA_KEY)?.unwrap_or_default();
    if key.is_empty() {
        notes.push(
            "CA.private_key is not there: agents need it no more than the server does, but a new frontend certificate can only be signed where it is kept".to_owned(),
        );
    } else if let Err(error) = not_encrypted(key) {
        return Err(at(yaml, CA_KEY)(anyhow!(
            "{error:#} (or take the key out: the server runs without it)"
        )));
    } else if certificate.rsa_key().is_ok() {
        rsa_pair(&certificate, key).map_err(at(yaml, CA_KEY))?;
    }
    Ok((pair(pem, key), certificate))
}

/// What agents encrypt to.
fn agents(yaml: &Yaml, ca: &Certificate) -> Result<(Pair, Certificate)> {
    let pem = required(yaml, CERTIFICATE, "agents encrypt to its key")?;
    let key = required(yaml, KEY, "agents encrypt to it")?;
    let certificate = Certificate::read(pem).map_err(at(yaml, CERTIFICATE))?;
    certificate.rsa_key().map_err(at(yaml, CERTIFICATE))?;
    rsa_pair(&certificate, key).map_err(at(yaml, KEY))?;
    certificate.signed_by(ca).map_err(at(yaml, CERTIFICATE))?;
    Ok((pair(pem, key), certificate))
}

fn pair(certificate: &str, key: &str) -> Pair {
    Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    }
}

/// A note if it has ended or will soon.
fn end(key: &str, certificate: &Certificate, now_s: i64) -> Option<String> {
    let day = &certificate.until_day;
    if certificate.until <= now_s {
        return Some(format!("{key} ended on {day}: agents refuse it"));
    }
    (certificate.until <= now_s + SOON).then(|| format!(
        "{key} ends on {day}: agents refuse it from then on; put a new one, signed by the same CA, into the secrets file before"
    ))
}

/// Says where an error is.
fn at<'a>(yaml: &'a Yaml, key: &'a str) -> impl Fn(anyhow::Error) -> anyhow::Error + 'a {
    move |error| yaml.wrong(key, &format!("{error:#}"))
}

fn required<'a>(yaml: &'a Yaml, key: &str, why: &str) -> Result<&'a str> {
    yaml.text(key)?
        .ok_or_else(|| yaml.wrong(key, &format!("is missing or empty: {why}")))
}

/// The certificate's name, which must be the one that agents expect.
fn server_name(yaml: &Yaml, certificate: &Certificate) -> Result<String> {
    let pinned = yaml.text("Client.pinned_server_name")?;
    let expected = pinned.unwrap_or(nublar_wire::SERVER_NAME);
    match certificate.name.as_deref() {
        Some(name) if name == expected => Ok(name.to_owned()),
        _ => Err(yaml.wrong(
            CERTIFICATE,
            &format!(
                "it is for {}, but agents expect {expected:?} (Client.pinned_server_name)",
                certificate.subject
            ),
        )),
    }
}

/// The certificate of HTTPS: files of its own, or the frontend's.
fn tls(yaml: &Yaml, agents: &Pair) -> Result<(Pair, String)> {
    let (chain, key) = (
        "Frontend.tls_certificate_filename",
        "Frontend.tls_private_key_filename",
    );
    let (chain_file, key_file) = match (yaml.text(chain)?, yaml.text(key)?) {
        (None, None) => {
            let from = "the frontend's own certificate".to_owned();
            tls_pair(&agents.certificate, &agents.key).map_err(at(yaml, CERTIFICATE))?;
            return Ok((agents.clone(), from));
        }
        (Some(chain), Some(key)) => (chain, key),
        (Some(_), None) => bail!("{}: {chain} is given without {key}", yaml.file()),
        (None, Some(_)) => bail!("{}: {key} is given without {chain}", yaml.file()),
    };
    let read = |name: &str, file: &str| {
        std::fs::read_to_string(Path::new(file)).map_err(|error| {
            yaml.wrong(
                name,
                &format!("cannot read {file}: {error}; copy it here, or correct its path"),
            )
        })
    };
    let pair = Pair {
        certificate: read(chain, chain_file)?,
        key: read(key, key_file)?,
    };
    tls_pair(&pair.certificate, &pair.key)
        .map_err(|error| yaml.wrong(key, &format!("{error:#}")))?;
    Ok((pair, chain_file.to_owned()))
}

/// What stands for the nonce where none is set: the SHA-256 of the private key's text, in hex.
fn hash_of(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex(digest.as_ref())
}

fn base_path(yaml: &Yaml) -> Result<String> {
    let path = yaml.text("Frontend.base_path")?.unwrap_or_default();
    let inner = path.trim().trim_matches('/');
    Ok(if inner.is_empty() {
        "/".to_owned()
    } else {
        format!("/{inner}/")
    })
}

/// The path of a URL, with a slash at its end.
fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let path = path.trim_matches('/');
    if path.is_empty() {
        "/".to_owned()
    } else {
        format!("/{path}/")
    }
}

fn listen(yaml: &Yaml) -> Result<SocketAddr> {
    let port = yaml.number("Frontend.bind_port")?.filter(|port| *port > 0);
    let port = u16::try_from(port.unwrap_or(PORT))
        .map_err(|_| yaml.wrong("Frontend.bind_port", "expected a port up to 65535"))?;
    let address = match yaml.text("Frontend.bind_address")? {
        None => IpAddr::from([0, 0, 0, 0]),
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(text) => text.parse().ok().with_context(|| {
            yaml.wrong("Frontend.bind_address", "expected an IP address")
                .to_string()
        })?,
    };
    Ok(SocketAddr::new(address, port))
}

/// Settings that mean nothing here.
fn left(yaml: &Yaml) -> Result<Vec<(String, String)>> {
    let mut left = Vec::new();
    let mut add = |what: String, then: &str| left.push((what, then.to_owned()));
    let extra = yaml.column("ExtraFrontends", "hostname");
    if yaml.has("ExtraFrontends") {
        add(
            format!("further frontends ({})", extra.join(", ")),
            "start one of ours for each, all with the same secrets file: they share one key",
        );
    }
    if yaml.flag("Frontend.require_client_certificates")? {
        add(
            "Frontend.require_client_certificates".to_owned(),
            "client certificates are not asked for: ask for them in a proxy",
        );
    }
    if let Some(header) = yaml.text("Frontend.proxy_header")? {
        add(
            format!("Frontend.proxy_header ({header})"),
            "list the proxy's address in frontend.trusted_proxies; it has to send X-Forwarded-For, or the PROXY protocol",
        );
    }
    let users = yaml.column("GUI.initial_users", "name");
    if !users.is_empty() {
        add(
            format!("users of GUI.initial_users ({})", users.join(", ")),
            "people show the token of the secrets file",
        );
    }
    if let Some(kind) = yaml.text("GUI.authenticator.type")? {
        add(
            format!("log-in of people (GUI.authenticator, {kind})"),
            "people show the token of the secrets file",
        );
    }
    for key in [
        "autoexec.artifact_definitions",
        "defaults.artifact_definitions_directories",
        "Frontend.artifact_definitions_directory",
    ] {
        if yaml.has(key) {
            add(
                format!("artifacts of {key}"),
                "add their files with `nublar artifacts add FILE...`",
            );
        }
    }
    for (key, what) in [("Minion", "settings of minions"), ("Mail", "mail")] {
        if yaml.has(key) {
            add(format!("{what} ({key})"), "there is nothing like it");
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frontend(lines: &str) -> Yaml {
        Yaml::parse("x.yaml", &format!("Frontend:\n  hostname: x\n{lines}")).unwrap()
    }

    #[test]
    fn paths_run_from_slash_to_slash() {
        for (given, path) in [("", "/"), ("/", "/"), ("a", "/a/"), ("/a/b", "/a/b/")] {
            let yaml = frontend(&format!("  base_path: '{given}'\n"));
            assert_eq!(base_path(&yaml).unwrap(), path);
            assert_eq!(path_of(&format!("https://host:1/{given}")), path);
        }
        assert_eq!(path_of("wss://host"), "/");
    }

    #[test]
    fn agents_are_listened_for_where_they_call() {
        let lines = "  bind_address: 10.0.0.1\n  bind_port: 443\n";
        let at = |lines: &str| listen(&frontend(lines)).map(|at| at.to_string());
        assert_eq!(at(lines).unwrap(), "10.0.0.1:443");
        assert_eq!(at("").unwrap(), "0.0.0.0:8000");
        let error = at("  bind_port: 70000\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "x.yaml, line 3: Frontend.bind_port: expected a port up to 65535"
        );
        assert!(at("  bind_address: somewhere\n").is_err());
    }

    /// The value is that of `printf key | sha256sum`.
    #[test]
    fn the_key_stands_for_a_nonce_that_is_not_set() {
        let hash = hash_of("key");
        assert!(hash.starts_with("2c70e12b7a0646f9"), "{hash}");
    }
}
