//! Files for agents under `public/`: whole, in parts, and by nothing but their hash.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use nublar_core::tools::{Manifest, PIECE, piece_key};
use nublar_ports::Objects as _;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use std::fmt::Write as _;
use support::agent::{Version, client};
use support::{Deployment, Running};

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Stores a file as the people's side does; its hash.
async fn store(deployment: &Deployment, file: &[u8]) -> String {
    let mut pieces = Vec::new();
    for piece in file.chunks(PIECE) {
        let hash = sha256(piece);
        let piece = bytes::Bytes::copy_from_slice(piece);
        deployment
            .objects
            .put(&piece_key(&hash), piece)
            .await
            .unwrap();
        pieces.push(hash);
    }
    let size = file.len() as u64;
    let manifest = Manifest { size, pieces }.write().unwrap();
    let hash = sha256(file);
    let key = Manifest::key(&hash).unwrap();
    deployment.objects.put(&key, manifest.into()).await.unwrap();
    hash
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answered {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(
    deployment: &Deployment,
    running: &Running,
    version: Version,
    (method, path): (Method, &str),
    said: &[(&str, &str)],
) -> Result<Answered, reqwest::Error> {
    let url = match version {
        Version::Plain => format!("http://localhost:{}{path}", running.http.port()),
        _ => format!("https://localhost:{}{path}", running.https.port()),
    };
    let mut request = client(deployment, version).request(method, url);
    for (name, value) in said {
        request = request.header(*name, *value);
    }
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await?.to_vec();
    Ok(Answered {
        status,
        headers,
        body,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_served_whole_and_in_parts_under_the_base_path() {
    let deployment = Deployment::new().await;
    let running = deployment
        .start_with(|config| config.base_path = "/velo".into())
        .await;
    let file: Vec<u8> = (0..2 * PIECE + 1_000)
        .map(|at| (at * 31 % 251) as u8)
        .collect();
    let hash = store(&deployment, &file).await;
    let path = format!("/velo/public/{hash}");
    for version in [Version::Plain, Version::Tls1, Version::Tls2] {
        let get = async |said: &[(&str, &str)]| {
            let get = (Method::GET, path.as_str());
            ask(&deployment, &running, version, get, said)
                .await
                .unwrap()
        };
        let whole = get(&[]).await;
        assert_eq!(whole.status, StatusCode::OK);
        assert!(whole.body == file);
        let tag = format!("\"{hash}\"");
        assert_eq!(whole.header("etag"), tag);
        assert_eq!(whole.header("accept-ranges"), "bytes");
        let head = (Method::HEAD, path.as_str());
        let head = ask(&deployment, &running, version, head, &[])
            .await
            .unwrap();
        assert_eq!(head.header("content-length"), file.len().to_string());
        assert!(head.body.is_empty());

        // A download that broke off goes on where it was, across the border of two pieces.
        let part = get(&[("range", "bytes=1048570-1048581"), ("if-range", &tag)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.body, file[1_048_570..=1_048_581]);
        let of = format!("bytes 1048570-1048581/{}", file.len());
        assert_eq!(part.header("content-range"), of);
        let rest = get(&[("range", "bytes=2097152-")]).await;
        assert_eq!(rest.body, file[2 * PIECE..]);
        let other = get(&[("range", "bytes=0-1"), ("if-range", "\"another\"")]).await;
        assert_eq!(
            (other.status, other.body.len()),
            (StatusCode::OK, file.len())
        );
        let beyond = get(&[("range", "bytes=99999999-")]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        let known = get(&[("if-none-match", &tag)]).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        assert!(known.body.is_empty());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_hash_names_a_file_and_what_breaks_is_never_taken_for_whole() {
    let deployment = Deployment::new().await;
    let running = deployment.start().await;
    let file = vec![5; PIECE + 1];
    let hash = store(&deployment, &file).await;
    let piece = sha256(&file[..PIECE]);
    let nothing = "0".repeat(64);
    for name in [
        "",
        "tools",
        "../tools/files",
        &hash[1..],
        &hash.to_uppercase(),
        &format!("{hash}/"),
        &nothing,
        // A piece is no file.
        &piece,
    ] {
        let get = (Method::GET, format!("/public/{name}"));
        let get = (get.0, get.1.as_str());
        let answer = ask(&deployment, &running, Version::Plain, get, &[]).await;
        assert_eq!(answer.unwrap().status, StatusCode::NOT_FOUND, "{name}");
    }
    // Its second piece is gone.
    let second = piece_key(&sha256(&file[PIECE..]));
    deployment.objects.delete(&second).await.unwrap();
    let path = format!("/public/{hash}");
    for version in [Version::Plain, Version::Tls2] {
        let get = (Method::GET, path.as_str());
        let answer = ask(&deployment, &running, version, get, &[]).await;
        assert!(answer.is_err(), "a part was taken for the whole");
    }
    running.stop().await;
}
