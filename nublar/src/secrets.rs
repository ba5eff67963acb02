//! The secrets file: keys and certificates of an installation, made once by `run` or `setup`.

use anyhow::{Context, Result, bail};
use nublar_core::hidden::HiddenNames;
use nublar_core::ids::hex;
use nublar_core::mac::{MacKey, MacKeys};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The name by which agents know the server.
const SERVER_NAME: &str = nublar_wire::SERVER_NAME;

/// A certificate and its private key, PEM.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What agents encrypt to from a time on.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextKey {
    /// Microseconds since 1970.
    pub(crate) from_us: i64,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl NextKey {
    /// Certificate and key.
    pub(crate) fn pair(&self) -> Pair {
        Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }
}

/// An organisation's nonce.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrgNonce {
    /// Empty for the root.
    pub(crate) id: String,
    pub(crate) nonce: String,
}

/// A key of ids.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdKey {
    /// Signs ids from this time on, microseconds since 1970.
    pub(crate) from_us: i64,
    /// 64 hex digits.
    pub(crate) secret: String,
}

/// Everything that must not be seen.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secrets {
    /// What a person or program shows to be let in.
    pub(crate) api_token: String,
    /// What imported agents' event queries are named under, if they come from another server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) obfuscation_nonces: Vec<String>,
    /// The authority that agents trust. Its key may be kept elsewhere: leave it empty then.
    pub(crate) ca: Pair,
    /// What agents encrypt to.
    pub(crate) agents: Pair,
    /// During a roll of that key: the one that comes in its place. Both are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agents_next: Option<NextKey>,
    /// The leaf of HTTPS.
    pub(crate) tls: Pair,
    pub(crate) orgs: Vec<OrgNonce>,
    pub(crate) id_keys: Vec<IdKey>,
}

impl Secrets {
    /// Reads the file, or makes it with new secrets.
    pub(crate) fn load_or_make(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::load(path);
        }
        let secrets = Self::make()?;
        secrets.write(path)?;
        Ok(secrets)
    }

    /// Writes the file, readable by its owner alone, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let draft = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .with_context(|| format!("cannot write {}", draft.display()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(folder)?.sync_all()?;
        Ok(())
    }

    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the secrets file {}: `nublar setup` makes it",
                path.display()
            )
        })?;
        // The text itself must not be shown: toml's message would quote the line.
        toml::from_str(&text).map_err(|error| {
            let at = error
                .span()
                .map_or(0, |span| text[..span.start.min(text.len())].lines().count());
            anyhow::anyhow!(
                "secrets file {}, line {at}: {}",
                path.display(),
                error.message()
            )
        })
    }

    fn make() -> Result<Self> {
        let (ca, issuer) = make_ca()?;
        let agents_key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        let agents = sign(&issuer, agents_key, vec![SERVER_NAME.to_owned()])?;
        let names = ["localhost", "127.0.0.1", "::1", SERVER_NAME];
        let tls = sign(
            &issuer,
            KeyPair::generate()?,
            names.map(str::to_owned).to_vec(),
        )?;
        let root = OrgNonce {
            id: String::new(),
            nonce: random_hex(12)?,
        };
        Self::of(ca, agents, tls, vec![root])
    }

    /// Secrets for agents that exist already; a new token, and a new key of ids.
    pub(crate) fn of(ca: Pair, agents: Pair, tls: Pair, orgs: Vec<OrgNonce>) -> Result<Self> {
        Ok(Self {
            api_token: random_hex(32)?,
            obfuscation_nonces: Vec::new(),
            ca,
            agents,
            agents_next: None,
            tls,
            orgs,
            id_keys: vec![IdKey {
                from_us: 0,
                secret: random_hex(32)?,
            }],
        })
    }

    /// The keys of ids.
    pub(crate) fn mac_keys(&self) -> Result<MacKeys> {
        let mut keys = Vec::new();
        for key in &self.id_keys {
            let bytes = decode_hex(&key.secret).filter(|bytes| bytes.len() == 32);
            let Some(bytes) = bytes else {
                bail!("secrets: id_keys.secret must be 64 hex digits")
            };
            let mut secret = [0; 32];
            secret.copy_from_slice(&bytes);
            keys.push(MacKey {
                from_us: key.from_us,
                secret,
            });
        }
        let mut keys = keys.into_iter();
        let Some(first) = keys.next() else {
            bail!("secrets: id_keys must hold at least one key")
        };
        Ok(MacKeys::new(first, keys))
    }

    /// The names that other servers hid from agents that were imported.
    pub(crate) fn hidden_names(&self) -> HiddenNames {
        HiddenNames::new(self.obfuscation_nonces.iter().map(String::as_str))
    }

    /// The nonce of an organisation.
    pub(crate) fn nonce(&self, org: &str) -> Result<&str> {
        let found = self.orgs.iter().find(|known| known.id == org);
        found
            .map(|org| org.nonce.as_str())
            .with_context(|| format!("secrets: there is no organisation {org:?}"))
    }
}

fn make_ca() -> Result<(Pair, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Nublar CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    let certificate = params.self_signed(&key)?;
    let pair = Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    };
    Ok((pair, Issuer::new(params, key)))
}

fn sign(issuer: &Issuer<'static, KeyPair>, key: KeyPair, names: Vec<String>) -> Result<Pair> {
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, SERVER_NAME);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the operating system gives no random bytes"))?;
    Ok(hex(&random))
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_are_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/secrets.toml");
        let made = Secrets::load_or_make(&path).unwrap();
        let read = Secrets::load_or_make(&path).unwrap();
        assert_eq!(made.api_token, read.api_token);
        assert_eq!(made.mac_keys().unwrap(), read.mac_keys().unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "api_token = 5\n").unwrap();
        let error = Secrets::load(&path).err().unwrap().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
