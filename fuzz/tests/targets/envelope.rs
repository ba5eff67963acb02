//! Bodies: whatever comes, nothing but what the agent sealed is ever opened.

use crate::captured::CAPTURED;
use aws_lc_rs::{encoding::AsDer, hmac, rsa};
use bytes::Bytes;
use nublar_fuzz::{Chance, Target, behaviour, fuzz, mutate_message};
use nublar_schemas::agent::{CipherProperties, ClientCommunication, cipher_properties::HmacType};
use nublar_wire::Envelope;
use prost::Message;
use std::sync::LazyLock;

static SERVER: LazyLock<rsa::OaepPublicEncryptingKey> = LazyLock::new(|| {
    let key = CAPTURED.keys.newest().public_key().to_der();
    let key = rsa::PublicKey::from_der(&key).unwrap();
    let spki = key.as_der().unwrap();
    let key = rsa::PublicEncryptingKey::from_der(spki.as_ref()).unwrap();
    rsa::OaepPublicEncryptingKey::new(key).unwrap()
});

/// A body as anybody can make it who has the server's certificate: the cipher's properties are
/// sealed to the server, and the HMAC fits.
fn forged(chance: &mut Chance) -> Vec<u8> {
    let mut properties = CipherProperties {
        name: "aes_128_cbc".into(),
        key: vec![1; 16].into(),
        metadata_iv: vec![2; 16].into(),
        hmac_key: vec![3; 16].into(),
        hmac_type: HmacType::Full.into(),
    }
    .encode_to_vec();
    for _ in 0..chance.below(3) {
        mutate_message(chance, &mut properties);
    }
    properties.truncate(SERVER.max_plaintext_size(&rsa::OAEP_SHA1_MGF1SHA1));
    let mut cipher = vec![0; SERVER.ciphertext_size()];
    SERVER
        .encrypt(&rsa::OAEP_SHA1_MGF1SHA1, &properties, &mut cipher, None)
        .unwrap();
    let hmac_key = CipherProperties::decode(&properties[..])
        .map(|properties| properties.hmac_key)
        .unwrap_or_default();
    let mut body = ClientCommunication {
        encrypted: vec![7; 16 * chance.length(64)].into(),
        encrypted_cipher: cipher.into(),
        encrypted_cipher_metadata: vec![8; 16 * chance.length(64)].into(),
        packet_iv: vec![9; 16].into(),
        api_version: 4,
        ..Default::default()
    };
    let covered = [
        &body.encrypted[..],
        &body.encrypted_cipher,
        &body.encrypted_cipher_metadata,
        &body.packet_iv,
        &4u32.to_le_bytes(),
    ];
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hmac_key);
    let tag = hmac::sign(&key, &covered.concat());
    body.full_hmac = Bytes::copy_from_slice(tag.as_ref());
    body.encode_to_vec()
}

fn check(input: &[u8]) -> u64 {
    let envelope = match Envelope::parse(Bytes::copy_from_slice(input)) {
        Ok(envelope) => envelope,
        Err(error) => return behaviour(&["parse", &error.to_string()]),
    };
    let known = CAPTURED.bodies.iter().find(|(body, ..)| {
        Envelope::parse(body.clone()).is_ok_and(|known| known.cipher() == envelope.cipher())
    });
    if let Some((_, session, _)) = known {
        return match session.open(&envelope) {
            Ok(opened) => {
                let sealed = CAPTURED.bodies.iter().any(|(.., packed)| *packed == opened);
                assert!(sealed, "opened what was never sealed");
                behaviour(&["opened"])
            }
            Err(error) => behaviour(&["open", &error.to_string()]),
        };
    }
    match envelope.unwrap_session(&CAPTURED.keys) {
        Ok(unverified) => {
            let opened = unverified.open(&envelope).is_ok();
            let verified = unverified.verify(CAPTURED.agent.public_key());
            assert!(verified.is_err(), "somebody else is the agent");
            behaviour(&["unverified", if opened { "opened" } else { "closed" }])
        }
        Err(error) => behaviour(&["unwrap", &error.to_string()]),
    }
}

#[test]
fn nothing_but_what_was_sealed_is_opened() {
    let ran = fuzz(&Target {
        name: "envelope",
        seeds: CAPTURED
            .bodies
            .iter()
            .map(|(body, ..)| body.to_vec())
            .collect(),
        change: &|chance, input| {
            if chance.below(12) == 0 {
                *input = forged(chance);
            } else {
                mutate_message(chance, input);
            }
        },
        check: &check,
    });
    assert!(ran.behaviours > 10, "{ran:?}");
}
