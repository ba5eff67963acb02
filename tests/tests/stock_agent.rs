//! A stock agent's life against the server: `NUBLAR_AGENT=PATH cargo test -p nublar-tests --test
//! stock_agent -- --nocapture`, or `make agent-test AGENT=PATH`. The agent is not ours and is not
//! here; without the variable this says so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use nublar_tests::{Api, Installation, Server, Services, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The agent's process. It is killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(program: &Path, server: &Server, installation: &Installation) -> Self {
        let config = installation.beside("client.config.yaml");
        let writeback = installation.beside("writeback.yaml").display().to_string();
        let yaml = server.order(
            installation,
            &["client-config", "--writeback-linux", &writeback],
        );
        std::fs::write(&config, yaml).unwrap();
        let log = std::fs::File::create(installation.beside("agent.log")).unwrap();
        let child = Command::new(program)
            .args(["--nobanner", "--nocolor", "client", "-v", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench {
    api: Api,
    client: String,
}

impl Bench {
    async fn collect(&self, artifact: &str, parameters: Value) -> String {
        let wish = json!({"artifacts": [artifact], "parameters": parameters});
        let path = format!("/clients/{}/flows", self.client);
        let (status, answer) = self.api.post(&path, &wish).await;
        assert_eq!(status, 201, "{answer}");
        answer["flow_id"].as_str().unwrap().to_owned()
    }

    async fn flow(&self, flow: &str) -> Value {
        self.api
            .json(&format!("/clients/{}/flows/{flow}", self.client))
            .await
    }

    async fn until(&self, flow: &str, state: &str) -> Value {
        eventually("the flow's state", async || {
            let found = self.flow(flow).await;
            if found["state"] == state {
                Ok(found)
            } else {
                Err(found)
            }
        })
        .await
    }
}

fn agent_program() -> Option<PathBuf> {
    let path = std::env::var_os("NUBLAR_AGENT").map(PathBuf::from);
    if path.is_none() {
        eprintln!("not run: NUBLAR_AGENT names no stock agent");
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_agent_lives_on_one_machine() {
    if let Some(program) = agent_program() {
        live(&program, Installation::empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_agent_lives_on_real_services() {
    let (Some(program), Some(services)) = (agent_program(), Services::from_env()) else {
        eprintln!("not run: it takes NUBLAR_AGENT and NUBLAR_TEST_SERVICES");
        return;
    };
    let installation = Installation::empty();
    let storage = services.storage(&installation.beside("keys"));
    live(&program, installation.with(&storage)).await;
}

async fn live(program: &Path, installation: Installation) {
    let mut server = Server::start(&installation).await;
    let api = server.api();
    let started = Instant::now();
    let _agent = Agent::start(program, &server, &installation);

    // From the answer to its CSR to its name.
    eventually("the agent's enrolment", async || {
        let printed = server.printed();
        if printed.contains("is registered now") {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    let registered = Instant::now();
    let client = eventually("the agent's host name", async || {
        let clients = api.json("/clients").await;
        let client = clients["clients"][0].clone();
        if client["hostname"].is_string() {
            Ok(client)
        } else {
            Err(clients)
        }
    })
    .await;
    let named = registered.elapsed();
    let bench = Bench {
        api: server.api(),
        client: client["client_id"].as_str().unwrap().to_owned(),
    };
    let interrogation = client["last_interrogate_flow_id"].as_str().unwrap();
    let info = bench.until(interrogation, "FINISHED").await;
    let interrogated = registered.elapsed();
    assert!(info["total_collected_rows"].as_i64() > Some(0), "{info}");
    println!(
        "enrolled {:?} after its start; named {named:?} after that, interrogated {interrogated:?}",
        registered - started
    );
    assert!(named < Duration::from_millis(1_500), "{named:?}");
    assert!(interrogated < Duration::from_secs(4), "{interrogated:?}");

    for (name, parameters, query) in [
        (
            "Custom.Upload",
            "parameters: [{name: Path}]\n",
            "SELECT upload(file=Path) AS U FROM scope()",
        ),
        ("Custom.Slow", "", "SELECT * FROM clock(period=1)"),
        (
            "Custom.Fail",
            "",
            "SELECT log(message='it broke here', level='ERROR') AS L FROM scope()",
        ),
    ] {
        let yaml = format!("name: {name}\n{parameters}sources:\n  - query: |\n      {query}\n");
        let file = installation.beside(name);
        std::fs::write(&file, yaml).unwrap();
        server.order(
            &installation,
            &["artifacts", "add", &file.display().to_string()],
        );
    }

    // Three megabytes that do not compress well arrive whole.
    let file = installation.beside("three megabytes");
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(&file, &bytes).unwrap();
    let asked = Instant::now();
    let upload = bench
        .collect("Custom.Upload", json!({"Path": file.display().to_string()}))
        .await;
    let done = bench.until(&upload, "FINISHED").await;
    println!(
        "an upload of 3 MB: {:?} from the wish to FINISHED",
        asked.elapsed()
    );
    assert_eq!(done["total_uploaded_bytes"], 3_000_000);
    let uploads = bench
        .api
        .json(&format!("/clients/{}/flows/{upload}/uploads", bench.client))
        .await;
    let id = uploads[0]["upload_id"].as_str().unwrap();
    let stored = bench
        .api
        .get(&format!(
            "/clients/{}/flows/{upload}/uploads/{id}",
            bench.client
        ))
        .await;
    assert!(
        stored == bytes,
        "the upload differs: {} bytes",
        stored.len()
    );

    let failing = bench.collect("Custom.Fail", json!({})).await;
    let failed = bench.until(&failing, "ERROR").await;
    assert_eq!(
        (&failed["reason"], &failed["status"]),
        (&json!("failed"), &json!("it broke here"))
    );

    let slow = bench.collect("Custom.Slow", json!({})).await;
    bench.until(&slow, "IN_PROGRESS").await;
    let (status, answer) = bench
        .api
        .post(
            &format!("/clients/{}/flows/{slow}/cancel", bench.client),
            &json!({}),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    let cancelled = bench.until(&slow, "ERROR").await;
    assert_eq!(cancelled["reason"], "cancelled");

    // The server dies while a flow runs; the agent finds it again, and both go on.
    let running = bench.collect("Custom.Slow", json!({})).await;
    bench.until(&running, "IN_PROGRESS").await;
    server.kill9().await;
    server.restart().await;
    let next = bench.collect("Custom.Fail", json!({})).await;
    bench.until(&next, "ERROR").await;
    assert_eq!(bench.flow(&running).await["state"], "IN_PROGRESS");
    let (status, answer) = bench
        .api
        .post(
            &format!("/clients/{}/flows/{running}/cancel", bench.client),
            &json!({}),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    server.stop().await;
}
