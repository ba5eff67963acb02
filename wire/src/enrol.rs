//! Who an agent is: the id that follows from its key, and the request by which it is taken in.

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::der::{self, value};
use crate::error::WireError;
use crate::keys::{AgentPublicKey, PrivateKey, PublicKey, pem_block};

/// A request for a key of 4,096 bits has some 1,700 characters.
const CSR_LIMIT: usize = 16 * 1024;

const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The form of a client id: `C.` and 16 lower-case hex digits.
pub fn is_client_id(id: &str) -> bool {
    id.strip_prefix("C.").is_some_and(|digits| {
        digits.len() == 16
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The id is the beginning of a hash over the modulus, written as a number with its length in
/// front: a byte of zeros before the modulus makes it a positive one.
pub(crate) fn client_id_of_modulus(modulus: &[u8]) -> String {
    let length = (modulus.len() as u32 + 1).to_be_bytes();
    let hash = digest(&SHA256, &[&length, &[0][..], modulus].concat());
    let mut id = String::from("C.");
    for byte in &hash.as_ref()[..8] {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}

/// Checks a certificate request in PEM and gives the key that it is for.
///
/// Accepted is only a request for an RSA key whose common name is the client id that follows from
/// that key, and which is signed by that key. Whether the sender of the request is that agent is
/// for [`UnverifiedSession::verify`](crate::UnverifiedSession::verify) to say, and whether the id
/// is taken already is for the registry.
pub fn check_csr(pem: &[u8]) -> Result<AgentPublicKey, WireError> {
    if pem.len() > CSR_LIMIT {
        return Err(bad_csr(format!(
            "{} bytes, at most {CSR_LIMIT} expected",
            pem.len()
        )));
    }
    let block = pem_block(pem, "certificate request", &["CERTIFICATE REQUEST"])?;
    let (rest, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| bad_csr(error.to_string()))?;
    if !rest.is_empty() {
        return Err(bad_csr(format!("{} bytes behind its end", rest.len())));
    }
    let info = &request.certification_request_info;
    let key = AgentPublicKey::try_from(PublicKey::from_der(info.subject_pki.raw)?)?;

    let mut names = info.subject.iter_common_name();
    let name = names
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    if names.next().is_some() || name != key.client_id() {
        return Err(bad_csr(format!(
            "for {name:?}, but its key is that of {}",
            key.client_id()
        )));
    }
    let signature = &request.signature_value.data;
    // Whatever is outside the signature must be the one thing it can be.
    if block.contents != signed(info.raw, signature) {
        return Err(bad_csr("signed otherwise than by rsa with sha-256".into()));
    }
    if !key.public_key().verifies(info.raw, signature) {
        return Err(bad_csr(format!("not signed by the key of {name}")));
    }
    Ok(key)
}

/// Makes the request of an agent, in PEM.
pub(crate) fn make_csr(key: &PrivateKey, common_name: &str) -> Result<String, WireError> {
    let name = value(
        der::SEQUENCE,
        &[&value(
            der::SET,
            &[&value(
                der::SEQUENCE,
                &[
                    &value(der::OID, &[COMMON_NAME]),
                    &value(der::UTF8_STRING, &[common_name.as_bytes()]),
                ],
            )],
        )],
    );
    let info = value(
        der::SEQUENCE,
        &[
            &value(der::INTEGER, &[&[0]]),
            &name,
            &key.public_key().spki()?,
            &value(der::CONTEXT_0, &[]),
        ],
    );
    Ok(der::pem(
        "CERTIFICATE REQUEST",
        &signed(&info, &key.sign(&info)?),
    ))
}

/// A request in DER: what is asked for, with a signature by RSA and SHA-256.
fn signed(info: &[u8], signature: &[u8]) -> Vec<u8> {
    let algorithm = value(
        der::SEQUENCE,
        &[&value(der::OID, &[RSA_SHA256]), &value(der::NULL, &[])],
    );
    value(
        der::SEQUENCE,
        &[
            info,
            &algorithm,
            &value(der::BIT_STRING, &[&[0], signature]),
        ],
    )
}

fn bad_csr(reason: String) -> WireError {
    WireError::BadCsr { reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn der_of(pem: &str) -> Vec<u8> {
        pem_block(pem.as_bytes(), "test", &["CERTIFICATE REQUEST"])
            .unwrap()
            .contents
    }

    #[test]
    fn the_form_of_an_id() {
        assert!(is_client_id("C.dee8db84e4bcbdf1"));
        for wrong in [
            "",
            "C.",
            "C.dee8db84e4bcbdf",
            "C.dee8db84e4bcbdf12",
            "C.DEE8DB84E4BCBDF1",
            "c.dee8db84e4bcbdf1",
            "C.dee8db84e4bcbdg1",
            "C.dee8db84e4bc/df1",
            "server",
        ] {
            assert!(!is_client_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_request_for_its_own_id_is_taken_and_for_another_one_is_not() {
        let key = PrivateKey::generate().unwrap();
        let id = AgentPublicKey::try_from(key.public_key().clone()).unwrap();
        let csr = make_csr(&key, id.client_id()).unwrap();
        assert_eq!(check_csr(csr.as_bytes()).unwrap(), id);

        let other = make_csr(&key, "C.0123456789abcdef").unwrap();
        let error = check_csr(other.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "certificate request: for \"C.0123456789abcdef\", but its key is that of {}",
                id.client_id()
            )
        );
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let key = PrivateKey::generate().unwrap();
        let id = AgentPublicKey::try_from(key.public_key().clone()).unwrap();
        let der = der_of(&make_csr(&key, id.client_id()).unwrap());
        let mut forged = der.clone();
        *forged.last_mut().unwrap() ^= 1;
        let error = check_csr(der::pem("CERTIFICATE REQUEST", &forged).as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "certificate request: not signed by the key of {}",
                id.client_id()
            )
        );
        let longer = [&der[..], &[0]].concat();
        let error = check_csr(der::pem("CERTIFICATE REQUEST", &longer).as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "certificate request: 1 bytes behind its end"
        );
    }

    #[test]
    fn every_flipped_byte_of_a_request_is_noticed() {
        let key = PrivateKey::generate().unwrap();
        let id = AgentPublicKey::try_from(key.public_key().clone()).unwrap();
        let der = der_of(&make_csr(&key, id.client_id()).unwrap());
        for at in 0..der.len() {
            let mut forged = der.clone();
            forged[at] ^= 0x10;
            let pem = der::pem("CERTIFICATE REQUEST", &forged);
            assert!(
                check_csr(pem.as_bytes()).is_err(),
                "byte {at} of {}",
                der.len()
            );
        }
    }

    #[test]
    fn an_enormous_request_is_not_even_parsed() {
        let error = check_csr(&vec![b'A'; CSR_LIMIT + 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "certificate request: 16385 bytes, at most 16384 expected"
        );
    }
}
