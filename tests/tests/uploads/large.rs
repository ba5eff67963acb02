//! A file that is larger than memory, while the server is killed and the link is cut.

use crate::agent::{Agent, File, ROWS, end, hex, noise, rows, sealed, sha256};
use crate::figures::{disk, megabytes, peak_of};
use aws_lc_rs::digest;
use bytes::Bytes;
use nublar_tests::{
    Forwarder, Installation, Player, Recorded, Role, Server, Way, is_long, program,
};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FLOW: &str = "F.LARGE";
const BUFFER: u64 = 1 << 20;
/// Buffers of the large file in one POST; agents send about 5 MiB.
const BUFFERS: u64 = 4;
/// What no process may need, whatever the size of the file.
const MOST_MEMORY: u64 = 640 << 20;

struct Plan {
    bytes: u64,
    kills: u64,
    cuts: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_larger_than_memory_outlives_kills_and_cuts() {
    let plan = if is_long("a large upload") {
        Plan {
            bytes: 5_000_000_000,
            kills: 12,
            cuts: 40,
        }
    } else {
        Plan {
            bytes: 96_000_000,
            kills: 2,
            cuts: 4,
        }
    };
    let seed = std::env::var("NUBLAR_SEED").map_or(1, |seed| seed.parse().unwrap());
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded);
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let client = recorded.client_id().to_owned();
    let way = Forwarder::to_url(&server.agents()[1]).await;
    let urls = [format!("{}/", way.url())];
    let player = Player::new(&server.secrets().ca.certificate, &urls);
    let mut agent = Agent::enrolled(&recorded, &server, player).await;

    let taken = AtomicU64::new(0);
    let mut peak = 0;
    let begun = Instant::now();
    let (hashes, ()) = tokio::join!(
        upload(&mut agent, plan.bytes, &taken),
        disturb(&plan, seed, &taken, &mut server, &way, &mut peak)
    );
    let uploading = begun.elapsed();
    let drained = Instant::now();
    let uploads = sealed(&server, &client, FLOW).await;
    let sealing = drained.elapsed();
    peak = peak.max(server.peak_memory());

    let by_path = |path: &str| {
        uploads
            .iter()
            .find(|upload| upload["path"] == path)
            .unwrap()
    };
    let (large, text, part) = (by_path("/large"), by_path("/text"), by_path("/part"));
    for (upload, hash) in [(large, &hashes.large), (text, &hashes.text)] {
        assert_eq!(upload["complete"], true, "{upload}");
        assert_eq!(upload["verdict"], "verified", "{upload}");
        assert_eq!(upload["sha256"], **hash, "{upload}");
        assert_eq!(upload["sent_twice"], false, "{upload}");
    }
    assert_eq!(
        (&part["complete"], &part["percent"]),
        (&false.into(), &50.0.into())
    );
    assert!(part["sha256"].is_null(), "{part}");

    let fetched = fetch(&installation, &server, &client).await;
    assert_eq!(
        fetched.hash, hashes.large,
        "what is fetched is another file"
    );
    assert_eq!(fetched.bytes, plan.bytes);
    peak = peak.max(server.peak_memory());
    let baseline = disk(installation.data(), 256_000_000, 5 << 20);
    println!(
        "uploads, large: {:.0} MB, seed {seed}, {} kills, {} cuts, {} POSTs again: taken in {:.1} s ({:.0} MB/s \
         without outages; the disk alone, synced every 5 MiB, {baseline:.0} MB/s), stored and sealed {:.1} s \
         later, fetched at {:.0} MB/s; at most {} MiB in the server, {} MiB in the command",
        megabytes(plan.bytes),
        plan.kills,
        plan.cuts,
        agent.repeats,
        uploading.as_secs_f64(),
        megabytes(plan.bytes) / agent.taking.as_secs_f64(),
        sealing.as_secs_f64(),
        megabytes(fetched.bytes) / fetched.seconds,
        peak >> 20,
        fetched.peak >> 20,
    );
    assert!(peak < MOST_MEMORY, "{} MiB", peak >> 20);
    assert!(fetched.peak < MOST_MEMORY / 4, "{} MiB", fetched.peak >> 20);
    server.stop().await;
}

struct Hashes {
    large: String,
    text: String,
}

/// Sends three files whose buffers interleave: a large one, a text that is sent packed, and one of
/// which the second half never comes.
async fn upload(agent: &mut Agent<'_>, bytes: u64, taken: &AtomicU64) -> Hashes {
    let large = File::plain(FLOW, "/large", 0, bytes);
    let lines = "all of it, and once\n".repeat(200_000).into_bytes();
    let text = File::plain(FLOW, "/text", 1, lines.len() as u64);
    let half = noise(2, 0, 100_000);
    let part = File::plain(FLOW, "/part", 2, 2 * half.len() as u64);
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut at, mut of_text) = (0, 0);
    agent.post(&[part.part(0, half.clone())]).await;
    while at < bytes {
        let mut messages: Vec<Bytes> = Vec::new();
        for _ in 0..BUFFERS {
            let length = BUFFER.min(bytes - at);
            if length == 0 {
                break;
            }
            let data = noise(1, at, usize::try_from(length).unwrap());
            context.update(&data);
            messages.push(large.part(at, data));
            at += length;
        }
        if of_text < lines.len() {
            let upto = lines.len().min(of_text + (1 << 18));
            messages.push(text.packed(of_text as u64, &lines[of_text..upto]));
            of_text = upto;
        }
        agent.post(&messages).await;
        taken.store(at, Ordering::Relaxed);
    }
    while of_text < lines.len() {
        let upto = lines.len().min(of_text + (1 << 18));
        agent
            .post(&[text.packed(of_text as u64, &lines[of_text..upto])])
            .await;
        of_text = upto;
    }
    let hashes = Hashes {
        large: hex(context.finish().as_ref()),
        text: sha256(&lines),
    };
    let stored = bytes + (lines.len() + half.len()) as u64;
    let reports = [large.row(&hashes.large), text.row(&hashes.text)];
    let ends = [
        large.end(bytes, &[]),
        text.end(lines.len() as u64, &[]),
        rows(FLOW, ROWS, &reports),
        end(FLOW, 2, 2, stored, &[ROWS]),
    ];
    agent.post(&ends).await;
    hashes
}

/// Kills the server and cuts the link at moments that the seed chooses.
async fn disturb(
    plan: &Plan,
    seed: u64,
    taken: &AtomicU64,
    server: &mut Server,
    way: &Forwarder,
    peak: &mut u64,
) {
    let moments = plan.kills + plan.cuts;
    let chance = |number: u64| {
        let bytes = noise(seed, number + 1, 8);
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    let every = (moments / plan.kills).max(1);
    let mut kills = 0;
    for moment in 0..moments {
        // One in each stretch of the file, somewhere within it.
        let stretch = plan.bytes / (moments + 1);
        let due = stretch * moment + chance(moment) % stretch;
        while taken.load(Ordering::Relaxed) < due {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // In the middle of whatever happens then.
        tokio::time::sleep(Duration::from_micros(chance(moment + moments) % 30_000)).await;
        if moment % every == every - 1 && kills < plan.kills {
            kills += 1;
            *peak = (*peak).max(server.peak_memory());
            server.kill9().await;
            server.restart().await;
        } else {
            let how = if chance(moment) % 3 == 0 {
                Way::Silent
            } else {
                Way::Refused
            };
            way.set(how);
            tokio::time::sleep(Duration::from_millis(100)).await;
            way.set(Way::Open);
        }
    }
    assert_eq!(kills, plan.kills);
}

struct Fetched {
    hash: String,
    bytes: u64,
    seconds: f64,
    /// The most memory of the command.
    peak: u64,
}

/// What the command prints of the large file, while its link to the API is cut twice.
async fn fetch(installation: &Installation, server: &Server, client: &str) -> Fetched {
    let way = Forwarder::to_url(&server.gui()).await;
    let (url, data) = (way.url(), installation.data().to_owned());
    let client = client.to_owned();
    let (progress, seen) = tokio::sync::watch::channel(0);
    let fetching = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut command = Command::new(program())
            .args(["uploads", &client, FLOW, "--get", "/large", "--out", "-"])
            .args(["--server", &url, "--data"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = command.stdout.take().unwrap();
        let mut context = digest::Context::new(&digest::SHA256);
        let (mut bytes, mut peak) = (0, 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = stdout.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
            bytes += read as u64;
            peak = peak_of(command.id()).unwrap_or(0).max(peak);
            progress.send_replace(bytes);
        }
        assert!(command.wait().unwrap().success());
        Fetched {
            hash: hex(context.finish().as_ref()),
            bytes,
            seconds: begun.elapsed().as_secs_f64(),
            peak,
        }
    });
    for due in [10_000_000, 40_000_000] {
        let mut seen = seen.clone();
        // It may have ended before.
        let _ = seen.wait_for(|bytes| *bytes > due).await;
        way.set(Way::Refused);
        tokio::time::sleep(Duration::from_millis(100)).await;
        way.set(Way::Open);
    }
    fetching.await.unwrap()
}
