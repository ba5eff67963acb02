//! The index on OpenSearch.

use crate::services::{Services, services, unique, within};
use async_trait::async_trait;
use bytes::Bytes;
use nublar_ports::index::opensearch::{OpenSearchConfig, OpenSearchIndex};
use nublar_ports::index::suite::Stage;
use nublar_ports::index::{Bucket, Collection, Document, Index, IndexError, Outcome, Query};
use opensearch::http::Method;
use opensearch::http::headers::HeaderMap;
use opensearch::http::transport::Transport;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLockReadGuard;

mod suite {
    use super::{Real, services};

    nublar_ports::index_suite!(
        (match services() {
            Some(services) => move || Real::new(services),
            None => return,
        })
    );
}

/// Indices of its own on the real OpenSearch. They are deleted in the end.
struct Real {
    config: OpenSearchConfig,
    _calm: Option<RwLockReadGuard<'static, ()>>,
}

impl Real {
    async fn new(services: Services) -> Self {
        let calm = services.calm().await;
        let mut real = Self::disturbed(&services);
        real._calm = Some(calm);
        real
    }

    /// For a test that disturbs OpenSearch.
    fn disturbed(services: &Services) -> Self {
        let prefix = format!("{}-", unique("test"));
        let config = OpenSearchConfig {
            url: services.get("OPENSEARCH"),
            prefix,
            replicas: 0,
            ..OpenSearchConfig::default()
        };
        Self {
            config,
            _calm: None,
        }
    }

    fn index(&self) -> OpenSearchIndex {
        OpenSearchIndex::new(self.config.clone()).unwrap()
    }

    fn index_name(&self, rest: &str) -> String {
        format!("{}{rest}", self.config.prefix)
    }

    /// Asks OpenSearch beside the adapter.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        let transport = Transport::single_node(&self.config.url).unwrap();
        let body = (!body.is_null()).then(|| body.to_string());
        let answer = transport
            .send(method, path, HeaderMap::new(), None::<&()>, body, None)
            .await
            .unwrap();
        assert!(
            answer.status_code().is_success(),
            "{path}: {}",
            answer.text().await.unwrap()
        );
        answer.json().await.unwrap()
    }
}

#[async_trait]
impl Stage for Real {
    async fn open(&self) -> Arc<dyn Index> {
        Arc::new(self.index())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let address = self.config.url.trim_start_matches("http://");
        for path in [
            format!("/{}*", self.config.prefix),
            format!("/_index_template/{}documents", self.config.prefix),
        ] {
            let Ok(mut stream) = TcpStream::connect(address) else {
                return;
            };
            let _ = write!(
                stream,
                "DELETE {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

fn document(id: &str, order: i64) -> Document {
    Document {
        id: id.to_owned(),
        bucket: Some(Bucket::Week(2_900)),
        client: "C.1".to_owned(),
        flow: "F.1".to_owned(),
        source: "A.B".to_owned(),
        order,
        text: String::new(),
        hashes: Vec::new(),
        version: 0,
        size: 1,
        body: Bytes::from_static(b"body"),
    }
}

/// OpenSearch dies: that is told; after its return the repeated bulk finds what it had written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_opensearch_is_told_and_got_over() {
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let real = Real::disturbed(&services);
    let index = real.index();
    within(index.prepare()).await.unwrap();
    let bulk = |from: i64, to: i64| {
        (from..to)
            .map(|number| document(&number.to_string(), number))
            .collect::<Vec<_>>()
    };
    let outcomes = within(index.create(Collection::Rows, "o1", bulk(0, 50)))
        .await
        .unwrap();
    assert_eq!(outcomes, vec![Outcome::Written; 50]);

    services.order("kill", "opensearch").await;
    let failed = within(index.create(Collection::Rows, "o1", bulk(0, 100))).await;
    assert!(
        matches!(&failed, Err(IndexError::Unavailable(text)) if text.contains(&real.config.url)),
        "{failed:?}"
    );
    let failed = within(index.query(
        Collection::Rows,
        "o1",
        &Query {
            limit: 1,
            ..Query::default()
        },
    ))
    .await;
    assert!(
        matches!(&failed, Err(IndexError::Unavailable(_))),
        "{failed:?}"
    );

    services.order("start", "opensearch").await;
    let outcomes = within(async {
        loop {
            match index.create(Collection::Rows, "o1", bulk(0, 100)).await {
                Ok(outcomes) => break outcomes,
                Err(error) => assert!(matches!(error, IndexError::Unavailable(_)), "{error}"),
            }
        }
    });
    assert!(
        outcomes
            .await
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Written | Outcome::Exists))
    );
    within(index.refresh(Collection::Rows)).await.unwrap();
    assert_eq!(
        within(index.count(Collection::Rows, "o1", &Query::default())).await,
        Ok(100)
    );
}

/// An index that was deleted is made again before it is written to, with the right mapping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_vanished_is_made_again() {
    let Some(services) = services() else { return };
    let real = Real::new(services).await;
    let index = real.index();
    within(index.prepare()).await.unwrap();
    let name = real.index_name("rows-w2900");
    for _ in 0..3 {
        let outcomes = within(index.create(Collection::Rows, "o1", vec![document("a", 1)]))
            .await
            .unwrap();
        assert_eq!(outcomes, [Outcome::Written]);
        let mapping = real
            .ask(Method::Get, &format!("/{name}/_mapping"), Value::Null)
            .await;
        assert_eq!(mapping[&name]["mappings"]["dynamic"], "false");
        assert_eq!(
            mapping[&name]["mappings"]["properties"]["order"]["type"],
            "long"
        );
        real.ask(Method::Delete, &format!("/{name}"), Value::Null)
            .await;
    }
}

/// An index with another mapping is refused and named: its documents are not poison.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_mapping_is_refused() {
    let Some(services) = services() else { return };
    let real = Real::new(services).await;
    let index = real.index();
    within(index.prepare()).await.unwrap();
    let name = real.index_name("rows-w2900");
    let mappings = json!({ "mappings": { "properties": { "order": { "type": "boolean" } } } });
    real.ask(Method::Put, &format!("/{name}"), mappings).await;
    let refused = within(index.create(Collection::Rows, "o1", vec![document("a", 5)])).await;
    let Err(IndexError::Refused(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains(&name) && text.contains("order"), "{text}");
}

/// The same when the mapping goes wrong after the index was looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapping_that_changes_later_is_refused() {
    let Some(services) = services() else { return };
    let real = Real::new(services).await;
    let index = real.index();
    within(index.prepare()).await.unwrap();
    within(index.create(Collection::Rows, "o1", vec![document("a", 5)]))
        .await
        .unwrap();
    let name = real.index_name("rows-w2900");
    real.ask(Method::Delete, &format!("/{name}"), Value::Null)
        .await;
    let mappings = json!({ "mappings": { "properties": { "order": { "type": "boolean" } } } });
    real.ask(Method::Put, &format!("/{name}"), mappings).await;
    let refused = within(index.create(Collection::Rows, "o1", vec![document("b", 5)])).await;
    let Err(IndexError::Refused(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains(&name) && text.contains("order"), "{text}");
}

/// An index that OpenSearch has closed for writing, as it does when a disk fills, is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_full() {
    let Some(services) = services() else { return };
    let real = Real::new(services).await;
    let index = real.index();
    within(index.prepare()).await.unwrap();
    within(index.create(Collection::Rows, "o1", vec![document("a", 1)]))
        .await
        .unwrap();
    let settings = format!("/{}/_settings", real.index_name("rows-w2900"));
    real.ask(
        Method::Put,
        &settings,
        json!({ "index.blocks.read_only_allow_delete": true }),
    )
    .await;
    let full = within(index.create(Collection::Rows, "o1", vec![document("b", 1)])).await;
    assert!(matches!(full, Err(IndexError::Full(_))), "{full:?}");
    real.ask(
        Method::Put,
        &settings,
        json!({ "index.blocks.read_only_allow_delete": null }),
    )
    .await;
    let outcomes = within(index.create(Collection::Rows, "o1", vec![document("b", 1)]))
        .await
        .unwrap();
    assert_eq!(outcomes, [Outcome::Written]);
}

/// Values of any length are told apart, also where only their hash is indexed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_of_any_length_are_exact() {
    let Some(services) = services() else { return };
    let real = Real::new(services).await;
    let index = real.index();
    within(index.prepare()).await.unwrap();
    let long = "x".repeat(40_000);
    let sources = [
        "",
        "a",
        "A",
        "#a",
        "a/b",
        &long,
        &format!("{long}y"),
        &long[..256],
        &long[..257],
    ]
    .map(str::to_owned);
    let documents = (0..).zip(&sources).map(|(order, source)| Document {
        source: source.clone(),
        ..document(&format!("{order}"), order)
    });
    let outcomes = within(index.create(Collection::Rows, "o1", documents.collect()))
        .await
        .unwrap();
    assert_eq!(outcomes, vec![Outcome::Written; sources.len()]);
    within(index.refresh(Collection::Rows)).await.unwrap();
    for (order, source) in (0..).zip(&sources) {
        let query = Query {
            source: Some(source.clone()),
            limit: 10,
            ..Query::default()
        };
        let page = within(index.query(Collection::Rows, "o1", &query))
            .await
            .unwrap();
        let found: Vec<(i64, &str)> = page
            .documents
            .iter()
            .map(|one| (one.order, one.source.as_str()))
            .collect();
        assert_eq!(found, [(order, source.as_str())]);
    }
}

/// Nobody there: the error says where it was looked for.
#[tokio::test]
async fn an_unreachable_opensearch_is_named() {
    let config = OpenSearchConfig {
        url: "http://127.0.0.1:1".to_owned(),
        ..OpenSearchConfig::default()
    };
    let failed = within(OpenSearchIndex::new(config).unwrap().prepare()).await;
    assert!(
        matches!(&failed, Err(IndexError::Unavailable(text)) if text.contains("http://127.0.0.1:1")),
        "{failed:?}"
    );
}

/// A server that wants another password (the one in the tests wants none, so this one only
/// plays it).
#[tokio::test]
async fn a_wrong_password_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request ends early");
            request.extend_from_slice(&buffer[..read]);
        }
        let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\nConnection: close\r\n\r\nUnauthorized";
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    let config = OpenSearchConfig {
        url: format!("http://{address}"),
        user: Some("nublar".to_owned()),
        password: Some("secret".to_owned()),
        ..OpenSearchConfig::default()
    };
    assert!(!format!("{config:?}").contains("secret"));
    let refused = within(
        OpenSearchIndex::new(config)
            .unwrap()
            .refresh(Collection::Flows),
    )
    .await;
    let Err(IndexError::Refused(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        text.contains(&address.to_string())
            && text.contains("password")
            && !text.contains("secret"),
        "{text}"
    );
    let request = server.join().unwrap().to_lowercase();
    assert!(request.contains("authorization: basic"), "{request}");
}
