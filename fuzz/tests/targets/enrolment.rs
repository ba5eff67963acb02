//! Requests for certificates: nobody gets in under an id that does not follow from his own key.

use crate::captured::CAPTURED;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nublar_fuzz::{Chance, Target, behaviour, fuzz, mutate};
use nublar_wire::check_csr;

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----\n";

fn pem(der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<u8> = lines.flat_map(|line| [line, b"\n"].concat()).collect();
    [BEGIN.as_bytes(), &lines, END.as_bytes()].concat()
}

fn der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.strip_prefix(BEGIN)?.split("-----").next()?;
    STANDARD.decode(body.replace(['\n', '\r'], "")).ok()
}

/// Mostly what is inside: a damaged PEM says little.
fn change(chance: &mut Chance, input: &mut Vec<u8>) {
    match der(input) {
        Some(mut inner) if chance.below(8) > 0 => {
            mutate(chance, &mut inner, &[&[0x30, 0x82], &[2, 1, 0], &[5, 0]]);
            inner.truncate(4 << 10);
            *input = pem(&inner);
        }
        _ => mutate(chance, input, &[BEGIN.as_bytes(), END.as_bytes()]),
    }
}

#[test]
fn nobody_gets_in_under_another_id_than_his_own() {
    let agent = &CAPTURED.agent;
    let own = agent.csr_pem().unwrap().into_bytes();
    let named = agent.csr_pem_for("C.0123456789abcdef").unwrap();
    assert!(check_csr(&own).is_ok());
    let ran = fuzz(&Target {
        name: "enrolment",
        seeds: vec![own, named.into_bytes()],
        change: &change,
        check: &|input| match check_csr(input) {
            Ok(key) => {
                assert_eq!(key.client_id(), agent.client_id());
                behaviour(&["taken"])
            }
            Err(error) => behaviour(&[&error.to_string()]),
        },
    });
    assert!(ran.behaviours > 5, "{ran:?}");
}
