//! Certificates and private keys of a deployment: read, and held against each other.

use anyhow::{Result, anyhow, bail};
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey,
};
use nublar_wire::{PublicKey, ServerKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is read of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    /// The subject as people read it.
    pub(super) subject: String,
    /// The common name, which agents compare.
    pub(super) name: Option<String>,
    /// The last moment at which it is valid, seconds since 1970.
    pub(super) until: i64,
    /// That moment's day.
    pub(super) until_day: String,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// Errors: there is none.
    pub(super) fn read(pem: &str) -> Result<Self> {
        if !pem.contains("-----BEGIN") {
            bail!("expected a certificate in PEM, which begins with -----BEGIN CERTIFICATE-----");
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| anyhow!("no certificate in PEM: {error}"))?;
        let parsed = parse(&der)?;
        let common = parsed.subject().iter_common_name().next();
        let day = parsed.validity().not_after.to_datetime().date();
        Ok(Self {
            subject: parsed.subject().to_string(),
            name: common.and_then(|name| name.as_str().ok().map(str::to_owned)),
            until: parsed.validity().not_after.timestamp(),
            until_day: day.to_string(),
            der: der.to_vec(),
        })
    }

    /// Its key, if agents can encrypt to it.
    ///
    /// Errors: no RSA key of 2,048 to 4,096 bits.
    pub(super) fn rsa_key(&self) -> Result<PublicKey> {
        let parsed = parse(&self.der)?;
        Ok(PublicKey::from_der(parsed.public_key().raw)?)
    }

    /// Checks that `ca` has signed it. What is signed by other means than RSA is left to agents.
    ///
    /// Errors: somebody else did.
    pub(super) fn signed_by(&self, ca: &Self) -> Result<()> {
        let (parsed, by) = (parse(&self.der)?, parse(&ca.der)?);
        let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.11" => &RSA_PKCS1_2048_8192_SHA256,
            "1.2.840.113549.1.1.12" => &RSA_PKCS1_2048_8192_SHA384,
            "1.2.840.113549.1.1.13" => &RSA_PKCS1_2048_8192_SHA512,
            _ => return Ok(()),
        };
        let key = by.public_key().subject_public_key.data.as_ref();
        UnparsedPublicKey::new(algorithm, key)
            .verify(
                parsed.tbs_certificate.as_ref(),
                parsed.signature_value.data.as_ref(),
            )
            .map_err(|_| {
                anyhow!(
                    "it is not signed by Client.ca_certificate ({}): agents would refuse it",
                    ca.subject
                )
            })
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => bail!("the certificate cannot be read: {error}"),
    }
}

/// Refuses a private key that a password protects.
pub(super) fn not_encrypted(pem: &str) -> Result<()> {
    if pem.contains("ENCRYPTED") {
        bail!(
            "the private key is encrypted: decrypt it first, for example with `openssl rsa -in KEY -out PLAIN`, and put the plain one here"
        );
    }
    Ok(())
}

/// Reads an RSA key and holds it against its certificate.
///
/// Errors: an encrypted key, none, or another one than the certificate's.
pub(super) fn rsa_pair(certificate: &Certificate, pem: &str) -> Result<()> {
    not_encrypted(pem)?;
    let key = ServerKey::from_pem(pem.as_bytes())?;
    if *key.public_key() != certificate.rsa_key()? {
        bail!(
            "it is not the key of the certificate {}",
            certificate.subject
        );
    }
    Ok(())
}

/// Holds a key of any kind against the leaf of a chain for TLS.
///
/// Errors: either cannot be used, or they do not belong together.
pub(super) fn tls_pair(chain: &str, pem: &str) -> Result<()> {
    not_encrypted(pem)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| anyhow!("no certificates in PEM: {error}"))?;
    if chain.is_empty() {
        bail!("there is no certificate in it");
    }
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("no private key in PEM: {error}"))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    rustls::sign::CertifiedKey::new(chain, key)
        .keys_match()
        .map_err(|error| anyhow!("certificate and key do not fit: {error}"))
}
