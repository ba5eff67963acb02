//! Secrets: sealed before they stand anywhere, and masked in whatever is answered.

use super::stage::{CLIENT, Stage, keys, until};
use axum::http::{Method, StatusCode};
use nublar_core::sealed::SealKeys;
use nublar_schemas::agent::FlowRequest;
use nublar_schemas::codec::Record;
use nublar_schemas::records::Request;
use nublar_schemas::topics::{self, Partitions};
use prost::Message;

const TEXT: &str = "\
name: Custom.Login
parameters:
  - name: Password
    type: redacted
  - name: Host
sources:
  - query: SELECT Password FROM scope()
";

const SECRET: &str = "correct-horse-battery";
const MASK: &str = "********";

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn a_secret_stands_in_no_topic_and_in_no_answer_and_reaches_the_agent() {
    let stage = Stage::new().await;
    let foreman = stage.settings_foreman();
    let put = Stage::request(Method::PUT, "/artifacts", TEXT);
    assert_eq!(stage.send(put).await.status, StatusCode::OK);
    let path = format!("/clients/{CLIENT}/flows");
    let wish = |password: &str| {
        let body = format!(
            r#"{{"artifacts":["Custom.Login"],"parameters":{{"Password":"{password}","Host":"db.example"}}}}"#
        );
        let mut request = Stage::request(Method::POST, &path, body);
        let key = "one wish".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        request
    };
    let made = stage.send(wish(SECRET)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let flow = made.json()["flow_id"].as_str().unwrap().to_owned();
    // Again is the same flow; the same key with another secret is another wish.
    let again = stage.send(wish(SECRET)).await;
    assert_eq!(again.json()["flow_id"], flow.as_str());
    let other = stage.send(wish("another")).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{other:?}");
    // A copy of what is shown holds no secret.
    let copied = stage.send(wish(MASK)).await;
    assert_eq!(copied.status, StatusCode::BAD_REQUEST, "{copied:?}");
    assert!(copied.text().contains("give it anew"), "{copied:?}");

    let (mut found, mut bodies) = (0, Vec::new());
    for topic in topics::ALL {
        let partitions = match topic.partitions {
            Partitions::PerClients => 4,
            Partitions::Fixed(partitions) => partitions,
        };
        for record in stage.records(topic.name, partitions).await {
            assert!(!holds(&record, SECRET), "{}", topic.name);
            found += usize::from(holds(&record, "db.example"));
            if topic.name == "requests" {
                bodies.push(Request::decode(&record).unwrap().body);
            }
        }
    }
    // What is no secret of the same wish is found by the same search: in the flow's document.
    assert_eq!(found, 1);
    until(|| stage.app.settings.artifacts().get("Custom.Login").is_some()).await;
    let shown = stage.get(&format!("{path}/{flow}")).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    assert!(!shown.text().contains(SECRET));
    let given = &shown.json()["request"]["artifacts"][0]["parameters"];
    assert_eq!(
        (given["Password"].as_str(), given["Host"].as_str()),
        (Some(MASK), Some("db.example"))
    );
    let compile = Stage::request(
        Method::POST,
        "/artifacts/Custom.Login/compile",
        format!(r#"{{"parameters":{{"Password":"{SECRET}"}}}}"#),
    );
    let compiled = stage.send(compile).await;
    assert_eq!(compiled.status, StatusCode::OK, "{compiled:?}");
    assert!(!compiled.text().contains(SECRET) && compiled.text().contains(MASK));

    // Only whoever has the secrets file reads it: a frontend.
    assert_eq!(bodies.len(), 1);
    let opened = SealKeys::of(&keys()).open(&bodies[0]).unwrap();
    let request = FlowRequest::decode(opened).unwrap();
    let variable = &request.vql_client_actions[0].env[0];
    assert_eq!(
        (variable.key.as_str(), variable.value.as_str()),
        ("Password", SECRET)
    );
    foreman.abort();
    stage.end().await;
}
