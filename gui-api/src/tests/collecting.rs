//! Wishes, and their cancelling.

use super::stage::{Answered, CLIENT, Stage, keys};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use nublar_core::fold::{Fold, FoldConfig, Output};
use nublar_core::ids::{ClientKey, FlowId};
use nublar_ports::log::faulty::AppendFault;
use nublar_schemas::agent::FlowRequest;
use nublar_schemas::codec::Record;
use nublar_schemas::records::{FlowCreated, Request as Compiled, Scheduling};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn wish(key: Option<&str>, body: &Value) -> Request<Body> {
    let path = format!("/clients/{CLIENT}/flows");
    let mut request = Stage::request(Method::POST, &path, body.to_string());
    if let Some(key) = key {
        request
            .headers_mut()
            .insert("idempotency-key", key.parse().unwrap());
    }
    request
}

fn id(answered: &Answered) -> FlowId {
    answered.json()["flow_id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

async fn created(stage: &Stage) -> Vec<FlowCreated> {
    let records = stage.scheduled().await.into_iter();
    let created = records.filter_map(|record| match record {
        Scheduling::FlowCreated(created) => Some(created),
        _ => None,
    });
    created.collect()
}

#[tokio::test]
async fn a_wish_becomes_a_request_and_a_record_and_is_seen_at_once() {
    let stage = Stage::new().await;
    let body = json!({
        "artifacts": ["Generic.Client.Info"], "parameters": {"EXTRA": true, "N": 5},
        "urgent": true, "timeout": 30, "max_rows": 7, "deadline_s": 60,
    });
    let answered = stage.send(wish(None, &body)).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    let flow = id(&answered);
    assert_eq!(
        answered.header("location"),
        format!("/api/v1/clients/{CLIENT}/flows/{flow}")
    );
    let results = answered.json()["results"].as_array().unwrap().clone();
    assert!(results.contains(&json!("Generic.Client.Info/BasicInformation")));

    let all = created(&stage).await;
    let [one] = all.as_slice() else {
        panic!("{all:?}")
    };
    let key = ClientKey::of(&one.header).unwrap();
    assert!(keys().made_for(&flow, &key, 1));
    assert_eq!(
        (one.flow_id.as_str(), one.urgent, one.creator.as_str()),
        (flow.as_str(), true, "admin")
    );
    assert_eq!(one.deadline_us - one.header.at_us, 60_000_000);
    // The request stands where the record says.
    let requests = stage.records("requests", 4).await;
    let request = Compiled::decode(&requests[0]).unwrap();
    assert_eq!(request.hash, one.request.hash);
    assert_eq!(
        request.hash,
        blake3::hash(&request.body).as_bytes().as_slice()
    );
    assert_eq!(one.request.partition, i32::from(request.hash[0]) % 4);
    let compiled = FlowRequest::decode(request.body.clone()).unwrap();
    assert_eq!(compiled.max_rows, 7);
    assert_eq!(
        usize::try_from(one.queries).unwrap(),
        compiled.vql_client_actions.len()
    );
    let env = &compiled.vql_client_actions[0].env;
    let value = |name: &str| {
        env.iter()
            .find(|env| env.key == name)
            .map(|env| env.value.as_str())
    };
    assert_eq!((value("EXTRA"), value("N")), (Some("Y"), Some("5")));

    let seen = stage.json(&format!("/clients/{CLIENT}/flows/{flow}")).await;
    assert_eq!(
        (seen["state"].as_str(), seen["urgent"].as_bool()),
        (Some("RUNNING"), Some(true))
    );
    let listed = stage.json(&format!("/clients/{CLIENT}/flows")).await;
    assert_eq!(listed["flows"][0]["flow_id"], json!(flow));

    // The same request is not put into the log again.
    stage.send(wish(None, &body)).await;
    assert_eq!(stage.records("requests", 4).await.len(), 1);
    assert_eq!(created(&stage).await.len(), 2);
    stage.end().await;
}

#[tokio::test]
async fn a_repeated_key_makes_one_flow() {
    let stage = Stage::new().await;
    let body = json!({ "artifacts": [{"name": "Generic.Client.Info"}] });
    let (first, second) = tokio::join!(
        stage.send(wish(Some("k1"), &body)),
        stage.send(wish(Some("k1"), &body))
    );
    assert_eq!(
        (first.status, second.status),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    assert_eq!(id(&first), id(&second));
    let replayed =
        [&first, &second].map(|answered| answered.header("idempotency-replayed") == "true");
    assert_eq!(replayed.iter().filter(|replayed| **replayed).count(), 1);
    assert_eq!(created(&stage).await.len(), 1);
    let other = stage.send(wish(Some("k2"), &body)).await;
    assert_ne!(id(&other), id(&first));
    let changed = stage
        .send(wish(
            Some("k1"),
            &json!({ "artifacts": ["Generic.Client.Info"], "urgent": true }),
        ))
        .await;
    assert_eq!(changed.status, StatusCode::CONFLICT);
    assert_eq!(
        stage.send(wish(Some(""), &body)).await.status,
        StatusCode::BAD_REQUEST
    );
    stage.end().await;
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_is_the_same_flow() {
    let stage = Stage::new().await;
    let body = json!({ "artifacts": ["Generic.Client.Info"] });
    let fault = |fault| stage.log_faults.appends("scheduling", fault);
    fault(AppendFault::HappensButFails);
    let lost = stage.send(wish(Some("k"), &body)).await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{lost:?}");
    fault(AppendFault::Full);
    let lost = stage.send(wish(Some("k"), &body)).await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{lost:?}");
    fault(AppendFault::None);
    let answered = stage.send(wish(Some("k"), &body)).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    // Told twice, with one id and one time: the foreman takes it for one.
    let all = created(&stage).await;
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|one| one.flow_id == id(&answered).as_str()));
    assert_eq!(all[0].header.at_us, all[1].header.at_us);
    stage.end().await;
}

/// What the foreman makes of everything that stands in `scheduling`: the flows.
async fn flows(stage: &Stage) -> BTreeSet<String> {
    let mut fold = Fold::new(Arc::new(FoldConfig::new(keys())));
    let records = stage.scheduled().await.into_iter().zip(1..);
    let outputs = records.flat_map(|(record, version)| fold.apply(version, &record));
    let ids = outputs.filter_map(|output| match output {
        Output::State(document) if document.kind == "flow" => Some(document.id),
        _ => None,
    });
    ids.collect()
}

#[tokio::test]
async fn a_key_outlives_the_server() {
    let stage = Stage::new().await;
    let body = json!({ "artifacts": ["Generic.Client.Info"] });
    let first = stage.send(wish(Some("k"), &body)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    // The answer of this one is lost, and nobody knows whether the foreman was told.
    stage.log_faults.appends("scheduling", AppendFault::Full);
    let lost = stage.send(wish(Some("lost"), &body)).await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{lost:?}");
    stage.log_faults.appends("scheduling", AppendFault::None);
    // The key of this one may stand in the log or not.
    stage
        .log_faults
        .appends("wishes", AppendFault::HappensButFails);
    let unsure = stage.send(wish(Some("unsure"), &body)).await;
    assert_eq!(unsure.status, StatusCode::SERVICE_UNAVAILABLE, "{unsure:?}");
    stage.log_faults.appends("wishes", AppendFault::None);
    assert_eq!(flows(&stage).await.len(), 1);

    let again = stage.another().await;
    stage.end().await;
    let repeated = again.send(wish(Some("k"), &body)).await;
    assert_eq!(repeated.status, StatusCode::CREATED, "{repeated:?}");
    assert_eq!(id(&repeated), id(&first));
    assert_eq!(repeated.header("idempotency-replayed"), "true");
    let other = json!({ "artifacts": ["Generic.Client.Info"], "urgent": true });
    let changed = again.send(wish(Some("k"), &other)).await;
    assert_eq!(changed.status, StatusCode::CONFLICT, "{changed:?}");
    assert_eq!(flows(&again).await.len(), 1);

    for key in ["lost", "unsure"] {
        let answered = again.send(wish(Some(key), &body)).await;
        assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
        let once_more = again.send(wish(Some(key), &body)).await;
        assert_eq!(id(&answered), id(&once_more));
        assert!(
            flows(&again)
                .await
                .contains(&format!("{CLIENT}/{}", id(&answered)))
        );
    }
    assert_eq!(flows(&again).await.len(), 3);
    again.end().await;
}

#[tokio::test]
async fn two_servers_make_one_flow_of_a_key() {
    let (one, mut ids) = (Stage::new().await, BTreeSet::new());
    let two = one.another().await;
    let body = json!({ "artifacts": ["Generic.Client.Info"] });
    for n in 0..50 {
        let key = format!("k{n}");
        let (first, second) = tokio::join!(
            one.send(wish(Some(&key), &body)),
            two.send(wish(Some(&key), &body))
        );
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        assert_eq!(second.status, StatusCode::CREATED, "{second:?}");
        assert_eq!(id(&first), id(&second));
        ids.insert(format!("{CLIENT}/{}", id(&first)));
    }
    assert_eq!(ids.len(), 50);
    assert_eq!(flows(&one).await, ids);
    // The same key for two wishes at one moment: one of them is refused.
    let other = json!({ "artifacts": ["Generic.Client.Info"], "urgent": true });
    let (first, second) = tokio::join!(
        one.send(wish(Some("x"), &body)),
        two.send(wish(Some("x"), &other))
    );
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::CREATED, StatusCode::CONFLICT]);
    assert_eq!(flows(&one).await.len(), 51);
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_wish_is_named() {
    let stage = Stage::new().await;
    for (body, named) in [
        (
            json!({"artifacts": ["Generic.Client.Inf"]}),
            "Generic.Client.Inf",
        ),
        (
            json!({"artifacts": ["Generic.Client.Info/Nothing"]}),
            "Nothing",
        ),
        (
            json!({"artifacts": ["Generic.Client.Info"], "parameters": {"Extra": 1}}),
            "Generic.Client.Info: no parameter Extra; it has none",
        ),
        (
            json!({
                "artifacts": ["System.VFS.DownloadFile", "Generic.Client.Info"],
                "parameters": {"Pth": "/etc/hostname"},
            }),
            "System.VFS.DownloadFile, Generic.Client.Info: no parameter Pth: did you mean Path; they have Accessor, Components, Path",
        ),
        (
            json!({"artifacts": [
                {"name": "System.VFS.DownloadFile"},
                {"name": "Generic.Client.Info", "parameters": {"Path": "/etc/hostname"}},
            ]}),
            "Generic.Client.Info: no parameter Path",
        ),
        (json!({"artifacts": []}), "artifact"),
        (json!({}), "artifacts"),
        (json!({"artifacts": [5]}), "an artifact is a name"),
        (
            json!({"artifacts": ["Generic.Client.Info"], "max_row": 1}),
            "max_row",
        ),
        (
            json!({"artifacts": ["Generic.Client.Info"], "deadline_s": 0}),
            "deadline_s",
        ),
        (
            json!({"artifacts": ["Generic.Client.Info", "Generic.Client.Info"]}),
            "Generic.Client.Info",
        ),
    ] {
        let answered = stage.send(wish(None, &body)).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{body}");
        let error = answered.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(named), "{body}: {error}");
    }
    let request = Stage::request(
        Method::POST,
        "/clients/C.00000000000000ff/flows",
        r#"{"artifacts":["Generic.Client.Info"]}"#,
    );
    assert_eq!(stage.send(request).await.status, StatusCode::NOT_FOUND);
    assert!(created(&stage).await.is_empty());
    stage.end().await;
}

#[tokio::test]
async fn a_cancel_waits_for_the_foreman() {
    let stage = Stage::new().await;
    let answered = stage
        .send(wish(None, &json!({"artifacts": ["Generic.Client.Info"]})))
        .await;
    let flow = id(&answered);
    let cancel = |flow: &str| {
        Stage::request(
            Method::POST,
            &format!("/clients/{CLIENT}/flows/{flow}/cancel"),
            Body::empty(),
        )
    };
    assert_eq!(
        stage.send(cancel("F.NOSUCHFLOW")).await.status,
        StatusCode::NOT_FOUND
    );

    // Nobody answers: the command is in the log all the same.
    let answered = stage.send(cancel(flow.as_str())).await;
    assert_eq!(answered.status, StatusCode::ACCEPTED, "{answered:?}");
    let command = answered.json()["command_id"].as_str().unwrap().to_owned();
    assert_eq!(
        stage.get(&format!("/commands/{command}")).await.status,
        StatusCode::NOT_FOUND
    );

    let wanted = flow.to_string();
    let foreman = stage.foreman(move |kind, target, _| {
        assert_eq!((kind, target), ("cancel", wanted.as_str()));
        (String::new(), String::new())
    });
    let answered = stage.send(cancel(flow.as_str())).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    // The late answer to the first is found by its id.
    let late = stage.json(&format!("/commands/{command}")).await;
    assert_eq!(late["done"], json!(true));
    foreman.abort();

    let foreman = stage.foreman(|_, target, _| {
        (
            format!("flow {target} has ended: nothing to cancel"),
            String::new(),
        )
    });
    let answered = stage.send(cancel(flow.as_str())).await;
    assert_eq!(answered.status, StatusCode::CONFLICT);
    assert!(
        answered.json()["error"]
            .as_str()
            .unwrap()
            .contains("nothing to cancel")
    );
    foreman.abort();
    stage.end().await;
}
