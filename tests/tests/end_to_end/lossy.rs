//! A tool over a link that breaks again and again.

use nublar_simulator::Chance;
use nublar_tests::{Forwarder, Installation, Role, Server, Way, is_long};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const PIECE: usize = 1 << 20;

/// The head of an answer, and the stream behind it.
async fn ask(address: &str, path: &str, from: u64) -> Option<(String, TcpStream)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: tools\r\nConnection: close\r\nRange: bytes={from}-\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.ok()?);
    }
    Some((String::from_utf8(answer).unwrap().to_lowercase(), stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_comes_whole_over_a_link_that_breaks() {
    let pieces = if is_long("a tool of 2 GB") { 2048 } else { 64 };
    let installation = Installation::empty();
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let file = installation.beside("tool.bin");
    let mut chance = Chance::new(7);
    let piece = chance.bytes(PIECE);
    {
        use std::io::Write as _;
        let mut out = std::fs::File::create(&file).unwrap();
        for number in 0..pieces {
            let mut piece = piece.clone();
            piece[..8].copy_from_slice(&(number as u64).to_le_bytes());
            out.write_all(&piece).unwrap();
        }
    }
    let path = file.display().to_string();
    server.order(&installation, &["tools", "add", "Large", &path]);
    let shown = server.order(&installation, &["tools", "show", "Large", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let hash = shown["sha256"].as_str().unwrap().to_owned();

    let plain = server.agents()[1].trim_end_matches('/').to_owned();
    let way = Forwarder::to_url(&plain).await;
    let address = way.url().strip_prefix("http://").unwrap().to_owned();
    let (mut have, mut whole, mut breaks) = (0, u64::MAX, 0);
    let begun = Instant::now();
    while have < whole {
        assert!(
            begun.elapsed() < Duration::from_secs(300),
            "{have} of {whole}"
        );
        let Some((head, mut stream)) = ask(&address, &format!("/public/{hash}"), have).await else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        assert!(head.starts_with("http/1.1 206 "), "{head}");
        assert!(head.contains(&format!("etag: \"{hash}\"")), "{head}");
        let of = head
            .lines()
            .find_map(|line| line.strip_prefix("content-range: "))
            .unwrap();
        whole = of.rsplit('/').next().unwrap().parse().unwrap();
        // A tenth of it at most before the link breaks, if it is not the last.
        let most = (whole / 10).min(64 << 20) + chance.below(PIECE) as u64;
        let (mut taken, mut broken, mut buffer) = (0, false, vec![0; 64 << 10]);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            for (place, byte) in buffer[..read].iter().enumerate() {
                let at = have + place as u64;
                let (number, within) = (at / PIECE as u64, (at % PIECE as u64) as usize);
                let right = match within {
                    0..8 => number.to_le_bytes()[within],
                    _ => piece[within],
                };
                assert_eq!(*byte, right, "at byte {at}");
            }
            have += read as u64;
            taken += read as u64;
            if taken > most && !broken {
                way.set(Way::Refused);
                broken = true;
                breaks += 1;
            }
        }
        way.set(Way::Open);
    }
    assert_eq!(have, (pieces * PIECE) as u64);
    assert!(breaks >= 5, "{breaks}");
    println!(
        "a tool of {} MiB, {breaks} breaks, {:?}",
        have >> 20,
        begun.elapsed()
    );
    server.stop().await;
}
