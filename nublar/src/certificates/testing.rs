//! Certificates that end soon, for tests.

#![allow(clippy::unwrap_used)]

use super::authority::Authority;
use super::keeper::Sources;
use crate::secrets::Pair;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256,
    RsaKeySize,
};
use time::OffsetDateTime;

/// When everything begins.
pub(super) const START: i64 = 1_795_514_940;
const DAY: i64 = 86_400;

pub(super) struct Made {
    pub(super) sources: Sources,
    /// For HTTPS, of an authority that agents know nothing of.
    pub(super) of_another: Pair,
}

fn dated(mut params: CertificateParams, name: &str, days: i64) -> CertificateParams {
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::from_unix_timestamp(START).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(START + days * DAY).unwrap();
    params
}

fn rsa() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
}

fn authority(name: &str, days: i64, key: KeyPair) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(dated(params, name, days), key).unwrap()
}

fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, key: &KeyPair, name: &str, days: i64) -> Pair {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = dated(params, name, days).signed_by(key, ca).unwrap();
    Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

/// Certificates and an authority that are good for so many days.
pub(super) fn made(days: i64, ca_days: i64) -> Made {
    let key = rsa();
    let ca_key = key.serialize_pem();
    let ca = authority("an authority", ca_days, key);
    let another = authority("another", ca_days, KeyPair::generate().unwrap());
    let tls = |ca| leaf(ca, &KeyPair::generate().unwrap(), "localhost", days);
    Made {
        sources: Sources {
            agents: leaf(&ca, &rsa(), "VelociraptorServer", days),
            next: None,
            tls: tls(&ca),
            ca: Pair {
                certificate: ca.pem(),
                key: ca_key,
            },
        },
        of_another: tls(&another),
    }
}

/// Another key for agents, of the same authority.
pub(super) fn agents_like(sources: &Sources) -> Pair {
    let ca = Authority::of(&sources.ca).unwrap().unwrap();
    let key = rsa();
    let until = ca.until(START, 3_000 * DAY);
    Pair {
        certificate: ca.sign(&key, &sources.agents.certificate, until).unwrap(),
        key: key.serialize_pem(),
    }
}
