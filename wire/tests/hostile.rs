//! What a frontend meets: damaged, forged and foreign bodies. None of them opens, none panics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use bytes::Bytes;
use nublar_schemas::agent::{
    Certificate, CipherProperties, ClientCommunication, VeloMessage, cipher_properties::HmacType,
};
use nublar_wire::{
    AgentKey, AgentPublicKey, AgentSession, Answer, Compression, Envelope, Frame, OutboundSession,
    Packed, Plaintext, SERVER_NAME, ServerKey, ServerKeys, Session, WireError, check_csr,
    message_list, messages, pad,
};
use proptest::prelude::*;
use prost::Message as _;

const LIMIT: usize = 1 << 20;

/// Keys take long to make: one set for all tests.
struct Cast {
    server: ServerKey,
    keys: ServerKeys,
    agent: AgentKey,
    other: AgentKey,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let server = ServerKey::generate().unwrap();
    Cast {
        keys: server.clone().into(),
        server,
        agent: AgentKey::generate().unwrap(),
        other: AgentKey::generate().unwrap(),
    }
});

fn message(session_id: &str) -> Bytes {
    VeloMessage {
        session_id: session_id.into(),
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

fn plain(nonce: &str) -> Plaintext {
    let lists = [
        message_list(&[message("F.A"), message("F.B")]),
        message_list(&[message("F.C")]),
    ];
    Plaintext::new(&lists, Compression::Zlib, nonce, 1_700_000_000_000_000)
}

fn agent_session() -> AgentSession {
    AgentSession::new(&CAST.agent, CAST.server.public_key()).unwrap()
}

fn sealed() -> Bytes {
    agent_session().seal(&plain("nonce")).unwrap()
}

fn verified(body: &Bytes) -> (Envelope, Session) {
    let envelope = Envelope::parse(body.clone()).unwrap();
    let unverified = envelope.unwrap_session(&CAST.keys).unwrap();
    let session = unverified.verify(CAST.agent.public_key()).unwrap();
    (envelope, session)
}

/// The whole way in, as a frontend that knows no session goes it.
fn receive(body: Bytes) -> Result<Packed, WireError> {
    let envelope = Envelope::parse(body)?;
    let unverified = envelope.unwrap_session(&CAST.keys)?;
    unverified.verify(CAST.agent.public_key())?.open(&envelope)
}

fn sessions(packed: &Packed) -> Vec<String> {
    let lists = packed.lists(LIMIT).map(Result::unwrap);
    lists
        .flat_map(messages)
        .map(|m| m.unwrap().session_id().to_owned())
        .collect()
}

/// A body whose parts were changed after sealing.
fn changed(change: impl FnOnce(&mut ClientCommunication)) -> Bytes {
    let mut communication = ClientCommunication::decode(sealed()).unwrap();
    change(&mut communication);
    communication.encode_to_vec().into()
}

#[test]
fn a_sound_body_opens() {
    let packed = receive(sealed()).unwrap();
    assert_eq!(sessions(&packed), ["F.A", "F.B", "F.C"]);
    assert_eq!(
        (packed.nonce(), packed.timestamp_us()),
        ("nonce", 1_700_000_000_000_000)
    );
}

#[test]
fn no_part_of_a_body_can_be_changed() {
    type Change = fn(&mut ClientCommunication);
    let flip = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let body = ClientCommunication::decode(sealed()).unwrap();
    for at in [0, 15, body.encrypted.len() - 1] {
        let error = receive(changed(|c| c.encrypted = flip(&c.encrypted, at))).unwrap_err();
        assert_eq!(error, WireError::BadHmac, "encrypted {at}");
    }
    for at in [0, 100, body.encrypted_cipher_metadata.len() - 1] {
        let error = receive(changed(|c| {
            c.encrypted_cipher_metadata = flip(&c.encrypted_cipher_metadata, at);
        }));
        assert_eq!(error.unwrap_err(), WireError::BadHmac, "metadata {at}");
    }
    for at in 0..16 {
        let error = receive(changed(|c| c.packet_iv = flip(&c.packet_iv, at))).unwrap_err();
        assert_eq!(error, WireError::BadHmac, "iv {at}");
    }
    for at in 0..20 {
        let error = receive(changed(|c| c.full_hmac = flip(&c.full_hmac, at))).unwrap_err();
        assert_eq!(error, WireError::BadHmac, "hmac {at}");
    }
    for at in [0, 128, 255] {
        let error = receive(changed(|c| {
            c.encrypted_cipher = flip(&c.encrypted_cipher, at)
        }));
        assert_eq!(error.unwrap_err(), WireError::NotForUs, "cipher {at}");
    }
    let version: Change = |c| c.api_version = 3;
    assert_eq!(receive(changed(version)).unwrap_err(), WireError::BadHmac);
    let iv: Change = |c| c.packet_iv = c.packet_iv.slice(1..);
    assert!(matches!(
        receive(changed(iv)).unwrap_err(),
        WireError::FieldSize {
            field: "packet_iv",
            len: 15,
            ..
        }
    ));
}

#[test]
fn a_cached_session_opens_its_own_bodies_only() {
    let agent = agent_session();
    let body = agent.seal(&plain("nonce")).unwrap();
    let (_, session) = verified(&body);
    let again = Envelope::parse(agent.seal(&plain("nonce")).unwrap()).unwrap();
    assert_eq!(sessions(&session.open(&again).unwrap()).len(), 3);
    let (foreign, _) = verified(&sealed());
    assert_eq!(session.open(&foreign).unwrap_err(), WireError::BadHmac);
    let pad = Envelope::parse(pad()).unwrap();
    assert_eq!(session.open(&pad).unwrap_err(), WireError::OnlyPadding);
    assert_eq!(
        pad.unwrap_session(&CAST.keys).unwrap_err(),
        WireError::OnlyPadding
    );
}

#[test]
fn every_body_has_an_iv_of_its_own_and_the_session_of_all_others() {
    let ours = OutboundSession::new(&CAST.server, CAST.agent.public_key(), SERVER_NAME).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut ciphers = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let body = ours.seal(&[message("F.A")], "nonce", 1).unwrap();
        let envelope = Envelope::parse(body).unwrap();
        seen.insert(*envelope.packet_iv());
        ciphers.insert(envelope.cipher().to_vec());
    }
    assert_eq!((seen.len(), ciphers.len()), (100, 1));
}

#[test]
fn every_truncation_is_refused() {
    let body = sealed();
    let (_, session) = verified(&body);
    for length in 0..body.len() {
        let refused = match Envelope::parse(body.slice(..length)) {
            Err(_) => true,
            Ok(envelope) if envelope.is_pad() => length == 0,
            Ok(envelope) => session.open(&envelope).is_err(),
        };
        assert!(refused, "cut to {length} of {}", body.len());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let body = sealed();
    let (_, session) = verified(&body);
    for bit in 0..body.len() * 8 {
        let mut flipped = body.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refused = match Envelope::parse(flipped.into()) {
            Err(_) => true,
            Ok(envelope) => session.open(&envelope).is_err(),
        };
        assert!(refused, "bit {bit}");
    }
}

#[test]
fn a_session_of_one_agent_is_not_that_of_another() {
    let envelope = Envelope::parse(sealed()).unwrap();
    let unverified = envelope.unwrap_session(&CAST.keys).unwrap();
    assert_eq!(
        unverified.verify(CAST.other.public_key()).unwrap_err(),
        WireError::WrongSource {
            source_name: CAST.agent.client_id().into(),
            key_id: CAST.other.client_id().into(),
        }
    );
    // The other one signs, and calls itself by this one's name.
    let thief = AgentSession::with_source(
        &CAST.other,
        CAST.server.public_key(),
        CAST.agent.client_id(),
    )
    .unwrap();
    let envelope = Envelope::parse(thief.seal(&plain("nonce")).unwrap()).unwrap();
    let unverified = envelope.unwrap_session(&CAST.keys).unwrap();
    assert_eq!(unverified.source(), CAST.agent.client_id());
    assert_eq!(
        unverified.verify(CAST.agent.public_key()).unwrap_err(),
        WireError::BadSignature {
            source_name: CAST.agent.client_id().into()
        }
    );
    assert!(unverified.verify(CAST.other.public_key()).is_err());
}

#[test]
fn a_body_for_another_server_is_not_for_us() {
    let stranger = ServerKey::generate().unwrap();
    let session = AgentSession::new(&CAST.agent, stranger.public_key()).unwrap();
    let envelope = Envelope::parse(session.seal(&plain("nonce")).unwrap()).unwrap();
    assert_eq!(
        envelope.unwrap_session(&CAST.keys).unwrap_err(),
        WireError::NotForUs
    );
    let both = ServerKeys::new(vec![CAST.server.clone(), stranger.clone()]).unwrap();
    let unverified = envelope.unwrap_session(&both).unwrap();
    let session = unverified.verify(CAST.agent.public_key()).unwrap();
    assert_eq!(session.server_key().public_key(), stranger.public_key());
}

/// A body with these properties; its HMAC is right if the HMAC key is sound.
fn with_properties(change: impl FnOnce(&mut CipherProperties)) -> Bytes {
    use aws_lc_rs::{hmac, rsa};

    let mut properties = CipherProperties {
        name: "aes_128_cbc".into(),
        key: vec![1; 16].into(),
        metadata_iv: vec![2; 16].into(),
        hmac_key: vec![3; 16].into(),
        hmac_type: HmacType::Full.into(),
    };
    change(&mut properties);
    let key = rsa::PublicKey::from_der(&CAST.server.public_key().to_der()).unwrap();
    let spki = aws_lc_rs::encoding::AsDer::as_der(&key).unwrap();
    let key = rsa::PublicEncryptingKey::from_der(spki.as_ref()).unwrap();
    let key = rsa::OaepPublicEncryptingKey::new(key).unwrap();
    let mut cipher = vec![0; key.ciphertext_size()];
    key.encrypt(
        &rsa::OAEP_SHA1_MGF1SHA1,
        &properties.encode_to_vec(),
        &mut cipher,
        None,
    )
    .unwrap();
    let mut body = ClientCommunication {
        encrypted: vec![7; 32].into(),
        encrypted_cipher: cipher.into(),
        encrypted_cipher_metadata: vec![8; 32].into(),
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
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &properties.hmac_key);
    let tag = hmac::sign(&hmac_key, &covered.concat());
    body.full_hmac = Bytes::copy_from_slice(tag.as_ref());
    body.encode_to_vec().into()
}

#[test]
fn unsound_properties_are_refused_one_by_one() {
    type Change = fn(&mut CipherProperties);
    let cases: [(Change, &str); 8] = [
        (
            |p| p.name = "aes_256_cbc".into(),
            r#"session: cipher "aes_256_cbc" is not supported"#,
        ),
        (
            |p| p.name = String::new(),
            r#"session: cipher "" is not supported"#,
        ),
        (|p| p.hmac_type = 0, "session: hmac type 0 is not supported"),
        (|p| p.hmac_type = 2, "session: hmac type 2 is not supported"),
        (
            |p| p.key = vec![1; 32].into(),
            "session: key of 32 bytes, expected 16",
        ),
        (
            |p| p.metadata_iv = Bytes::new(),
            "session: metadata_iv of 0 bytes, expected 16",
        ),
        (
            |p| p.hmac_key = vec![3; 15].into(),
            "session: hmac_key of 15 bytes, expected 16",
        ),
        // All sound: the HMAC holds, and only then the metadata turn out to be noise.
        (|_| {}, "cipher metadata does not decrypt: bad padding"),
    ];
    for (change, expected) in cases {
        let envelope = Envelope::parse(with_properties(change)).unwrap();
        assert_eq!(
            envelope.unwrap_session(&CAST.keys).unwrap_err().to_string(),
            expected
        );
    }
}

#[test]
fn an_unknown_agent_can_be_asked_for_its_request_and_only_its_own_counts() {
    let stranger = AgentKey::generate().unwrap();
    let session = AgentSession::new(&stranger, CAST.server.public_key()).unwrap();
    let enrol = |pem: String| {
        let csr = Certificate {
            pem: pem.into(),
            ..Default::default()
        };
        let message = VeloMessage {
            session_id: "E:Enrol".into(),
            csr: Some(csr),
            ..Default::default()
        };
        let list = message_list(&[message.encode_to_vec().into()]);
        let plain = Plaintext::new(&[list], Compression::Zlib, "nonce", 1);
        let envelope = Envelope::parse(session.seal(&plain).unwrap()).unwrap();
        let unverified = envelope.unwrap_session(&CAST.keys).unwrap();
        let list = unverified
            .open(&envelope)
            .unwrap()
            .lists(LIMIT)
            .next()
            .unwrap()
            .unwrap();
        let csr = messages(list).next().unwrap().unwrap().payload();
        let key: AgentPublicKey = check_csr(&Certificate::decode(csr).unwrap().pem)?;
        unverified
            .verify(&key)
            .map(|session| session.source().to_owned())
    };
    assert_eq!(
        enrol(stranger.csr_pem().unwrap()).as_deref(),
        Ok(stranger.client_id())
    );
    // Its own key under someone else's name.
    let forged = enrol(stranger.csr_pem_for(CAST.agent.client_id()).unwrap());
    assert!(
        matches!(forged, Err(WireError::BadCsr { .. })),
        "{forged:?}"
    );
    // Someone else's request, sound in itself.
    let stolen = enrol(CAST.agent.csr_pem().unwrap());
    assert!(
        matches!(stolen, Err(WireError::WrongSource { .. })),
        "{stolen:?}"
    );
}

#[test]
fn a_bomb_is_stopped_and_the_lists_around_it_are_read() {
    let bomb = Bytes::from(vec![0; 32 << 20]);
    let lists = [
        message_list(&[message("F.A")]),
        bomb,
        message_list(&[message("F.B")]),
    ];
    let plain = Plaintext::new(&lists, Compression::Zlib, "nonce", 1);
    let body = agent_session().seal(&plain).unwrap();
    assert!(body.len() < 4 << 20);
    let packed = receive(body).unwrap();
    let read: Vec<_> = packed.lists(LIMIT).collect();
    assert_eq!(
        read,
        [
            Ok(lists[0].clone()),
            Err(WireError::ListTooLarge {
                index: 1,
                limit: LIMIT
            }),
            Ok(lists[2].clone()),
        ]
    );
}

#[test]
fn an_agent_believes_its_own_server_only() {
    let agent = agent_session();
    let outbound =
        OutboundSession::new(&CAST.server, CAST.agent.public_key(), SERVER_NAME).unwrap();
    let tasks = [message("F.A"), message("F.B")];
    let body = outbound.seal(&tasks, "nonce", 5).unwrap();
    let answer = agent.open([&pad()[..], &body].concat().into()).unwrap();
    let Answer::Packed(packed) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (packed.compression(), packed.timestamp_us()),
        (Compression::None, 5)
    );
    let read: Vec<_> = answer
        .messages(LIMIT)
        .unwrap()
        .into_iter()
        .map(|m| m.bytes)
        .collect();
    assert_eq!(read, tasks);
    assert_eq!(agent.server_name().as_deref(), Some(SERVER_NAME));
    assert_ne!(
        outbound.seal(&tasks, "nonce", 5).unwrap(),
        body,
        "a fresh iv each time"
    );

    let empty = agent.open(outbound.seal(&[], "nonce", 6).unwrap()).unwrap();
    assert!(empty.messages(LIMIT).unwrap().is_empty());

    let other = OutboundSession::new(&CAST.server, CAST.other.public_key(), SERVER_NAME).unwrap();
    let error = agent
        .open(other.seal(&tasks, "nonce", 5).unwrap())
        .unwrap_err();
    assert_eq!(error, WireError::NotForUs);

    let impostor = ServerKey::generate().unwrap();
    let impostor = OutboundSession::new(&impostor, CAST.agent.public_key(), SERVER_NAME).unwrap();
    let error = agent
        .open(impostor.seal(&tasks, "nonce", 5).unwrap())
        .unwrap_err();
    assert_eq!(
        error,
        WireError::BadSignature {
            source_name: SERVER_NAME.into()
        }
    );
}

#[test]
fn a_repeat_with_a_new_iv_holds_the_same_messages() {
    let session = agent_session();
    let plain = plain("nonce");
    let (first, second) = (session.seal(&plain).unwrap(), session.seal(&plain).unwrap());
    let (one, known) = verified(&first);
    let two = Envelope::parse(second).unwrap();
    assert_eq!(one.cipher(), two.cipher());
    assert_ne!(one.packet_iv(), two.packet_iv());
    assert_eq!(known.open(&one).unwrap(), known.open(&two).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Envelope::parse(bytes.clone()).map(|e| e.is_pad() || e.cipher().len() > 400);
        let _ = Packed::parse(bytes.clone())
            .map(|packed| packed.lists(4096).filter_map(Result::ok).flat_map(messages).count());
        let _ = messages(bytes.clone()).count();
        let _ = Frame::decode(&bytes);
        let _ = check_csr(&bytes);
        let _ = AgentPublicKey::from_der(&bytes);
    }

    #[test]
    fn what_walks_is_what_decodes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        // Whatever the full decoder takes, the walk takes too, and reads the same in it.
        if let Ok(decoded) = VeloMessage::decode(bytes.as_slice()) {
            let walked = nublar_wire::Message::parse(bytes.into()).unwrap();
            prop_assert_eq!(walked.session_id(), decoded.session_id);
            prop_assert_eq!(walked.urgent, decoded.urgent);
        }
    }

    #[test]
    fn what_an_agent_seals_is_what_a_frontend_opens(
        lists in proptest::collection::vec(
            proptest::collection::vec("[ -~]{0,40}", 0..6), 0..4),
        nonce in "\\PC{0,20}",
        timestamp in any::<u64>(),
        compress in any::<bool>(),
    ) {
        let compression = if compress { Compression::Zlib } else { Compression::None };
        let packed_lists: Vec<_> = lists
            .iter()
            .map(|ids| message_list(&ids.iter().map(|id| message(id)).collect::<Vec<_>>()))
            .collect();
        let plain = Plaintext::new(&packed_lists, compression, &nonce, timestamp);
        let packed = receive(agent_session().seal(&plain).unwrap()).unwrap();
        prop_assert_eq!(packed.nonce(), nonce);
        prop_assert_eq!(packed.timestamp_us(), timestamp);
        prop_assert_eq!(packed.len(), lists.len());
        prop_assert_eq!(sessions(&packed), lists.concat());
    }
}
