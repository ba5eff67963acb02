//! An upload that breaks off with its agent goes on where it stopped.

use crate::agent::{Agent, Home, homes};
use crate::bench::{Bench, add_artifact};
use nublar_tests::{Installation, Server, within};
use serde_json::{Value, json};
use std::time::Duration;

/// Long enough to break off in between.
const SIZE: usize = 400_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_goes_on_where_it_stopped() {
    for home in homes().into_iter().filter(|home| home.resumes) {
        let installation = Installation::empty();
        let mut server = Server::start(&installation).await;
        break_off(&home, &server, &installation).await;
        server.stop().await;
    }
}

async fn break_off(home: &Home, server: &Server, installation: &Installation) {
    add_artifact(
        server,
        installation,
        "Custom.Upload",
        "parameters: [{name: Path}]\n",
        "SELECT upload(file=Path) AS U FROM scope()",
    );
    let file = installation.beside("large");
    let whole = noise();
    std::fs::write(&file, &whole).unwrap();
    let agent = Agent::start(home, server, installation);
    let (api, client) = (server.api(), agent.client_id().await);
    let bench = Bench { api, client };
    within(PATIENCE, "the client", async || {
        let path = format!("/clients/{}", bench.client);
        let (status, _) = bench
            .api
            .try_get(&path)
            .await
            .map_err(|error| error.to_string())?;
        if status == 200 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;

    let path = json!({"Path": file.display().to_string()});
    let flow = bench.collect("Custom.Upload", path).await;
    let begun = within(PATIENCE, "a part of the upload", async || {
        let upload = bench.of_flow(&flow, "/uploads").await[0].clone();
        let percent = upload["percent"].as_f64().unwrap_or(0.0);
        if percent > 2.0 {
            Ok(percent)
        } else {
            Err(upload)
        }
    })
    .await;
    drop(agent);
    let _agent = Agent::start(home, server, installation);
    let lost = bench.within(PATIENCE, &flow, "ERROR").await;
    assert_eq!(lost["reason"], "lost", "{lost}");
    let part = bench.of_flow(&flow, "/uploads").await[0].clone();
    assert!(part["complete"] == json!(false), "{begun}: {part}");

    let resume = format!("/clients/{}/flows/{flow}/resume", bench.client);
    let (status, answer) = bench.api.post(&resume, &json!({})).await;
    assert_eq!((status, &answer["uploads"]), (200, &json!(1)), "{answer}");
    let done = within(PATIENCE, "the whole upload", async || {
        let upload = bench.of_flow(&flow, "/uploads").await[0].clone();
        if upload["complete"] == json!(true) {
            Ok(upload)
        } else {
            Err(upload)
        }
    })
    .await;
    assert_eq!(
        done["sent_twice"],
        json!(false),
        "not from its beginning: {done}"
    );
    let id = done["upload_id"].as_str().unwrap();
    assert!(bench.upload(&flow, id).await == whole, "the bytes differ");
    let flow = within(PATIENCE, "the end of the resumption", async || {
        let found = bench.flow(&flow).await;
        if found["resumed"]["state"] == "done" {
            Ok(found)
        } else {
            Err(found)
        }
    })
    .await;
    assert_eq!(
        (&flow["state"], &flow["reason"]),
        (&json!("ERROR"), &json!("lost"))
    );
    println!(
        "{}: broke off at {} %, went on from there and is whole",
        home.name,
        Value::clone(&part["percent"])
    );
}

fn noise() -> Vec<u8> {
    let words = 0..u32::try_from(SIZE / 4).unwrap();
    let mix = |n: u32| n.wrapping_mul(2_654_435_761) ^ n.rotate_left(13);
    words.flat_map(|n| mix(n).to_le_bytes()).collect()
}
