//! The agents' authority: reads certificates, and signs new ones in place of those that end.

use crate::secrets::Pair;
use anyhow::{Context, Result, anyhow, bail};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::IpAddr;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// When a certificate is valid, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dates {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Dates {
    /// Those of the first certificate of a PEM text.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn of(pem: &str) -> Result<Self> {
        read(pem, |certificate| Ok(Self::read(certificate)))
    }

    /// Those of a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn of_der(der: &[u8]) -> Result<Self> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| anyhow!("no certificate: {error}"))?;
        Ok(Self::read(&certificate))
    }

    fn read(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        }
    }

    /// From when on it is to be signed anew: at two thirds of its life.
    pub(crate) fn renewal(self) -> i64 {
        self.from + (self.until - self.from) / 3 * 2
    }
}

/// The authority, with its key.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
    dates: Dates,
}

impl Authority {
    /// None if the key is kept elsewhere.
    ///
    /// # Errors
    /// Either cannot be read, or they do not belong together.
    pub(crate) fn of(ca: &Pair) -> Result<Option<Self>> {
        let dates = Dates::of(&ca.certificate).context("secrets: ca.certificate")?;
        if ca.key.trim().is_empty() {
            return Ok(None);
        }
        let key = KeyPair::from_pem(&ca.key).context("secrets: ca.key")?;
        let fits = read(&ca.certificate, |certificate| {
            Ok(certificate.public_key().raw == key.subject_public_key_info())
        })?;
        if !fits {
            bail!("secrets: ca.key is not the key of ca.certificate");
        }
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, key)
            .context("secrets: ca.certificate cannot sign")?;
        Ok(Some(Self {
            certificate: ca.certificate.clone(),
            issuer,
            dates,
        }))
    }

    /// Whether it has signed the first certificate of a PEM text, by what that says.
    pub(crate) fn signed(&self, pem: &str) -> bool {
        let issuer = |certificate: &X509Certificate<'_>| Ok(certificate.issuer().as_raw().to_vec());
        let subject =
            |certificate: &X509Certificate<'_>| Ok(certificate.subject().as_raw().to_vec());
        match (read(pem, issuer), read(&self.certificate, subject)) {
            (Ok(issuer), Ok(subject)) => issuer == subject,
            _ => false,
        }
    }

    /// The end of a certificate that is signed now and should last so long: none outlasts the
    /// authority.
    pub(crate) fn until(&self, now: i64, life: i64) -> i64 {
        now.saturating_add(life).min(self.dates.until)
    }

    /// Signs a certificate for a key, with the names of another certificate. It is valid from the
    /// authority's own first day on: agents go by their own clocks, and those may be late.
    ///
    /// # Errors
    /// The names cannot be read or written.
    pub(crate) fn sign(&self, key: &KeyPair, like: &str, until: i64) -> Result<String> {
        let (common, names) = read(like, names)?;
        let mut params = CertificateParams::new(names)?;
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = OffsetDateTime::from_unix_timestamp(self.dates.from)?;
        params.not_after = OffsetDateTime::from_unix_timestamp(until)?;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// The common name, and the others.
fn names(certificate: &X509Certificate<'_>) -> Result<(Option<String>, Vec<String>)> {
    let common = certificate.subject().iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok().map(str::to_owned));
    let mut names = Vec::new();
    if let Ok(Some(others)) = certificate.subject_alternative_name() {
        for name in &others.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                    names.extend(v4.or(v6).map(|address| address.to_string()));
                }
                _ => {}
            }
        }
    }
    Ok((common, names))
}

/// 127 random bits, and a bit that keeps it positive and long.
fn serial() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| anyhow!("the operating system gives no random bytes"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Reads something of the first certificate of a PEM text.
fn read<T>(pem: &str, what: impl FnOnce(&X509Certificate<'_>) -> Result<T>) -> Result<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| anyhow!("no certificate in PEM: {error}"))?;
    let (_, certificate) =
        X509Certificate::from_der(&der).map_err(|error| anyhow!("no certificate: {error}"))?;
    what(&certificate)
}
