//! Objects in S3.

use crate::services::{Services, services, unique, within};
use async_trait::async_trait;
use bytes::Bytes;
use nublar_ports::objects::s3::{S3Config, S3Objects};
use nublar_ports::objects::suite::Stage;
use nublar_ports::objects::{Objects, ObjectsError};
use std::sync::Arc;
use tokio::sync::RwLockReadGuard;

mod suite {
    use super::{Real, services};

    nublar_ports::objects_suite!(
        (match services() {
            Some(services) => move || Real::new(services),
            None => return,
        })
    );
}

/// A bucket of its own on the real S3.
struct Real {
    config: S3Config,
    _calm: RwLockReadGuard<'static, ()>,
}

impl Real {
    async fn new(services: Services) -> Self {
        Self {
            _calm: services.calm().await,
            config: config(&services),
        }
    }
}

fn config(services: &Services) -> S3Config {
    S3Config {
        endpoint: Some(services.get("S3")),
        region: "us-east-1".to_owned(),
        bucket: unique("bucket"),
        access_key: services.get("S3_ACCESS_KEY"),
        secret_key: services.get("S3_SECRET_KEY"),
        path_style: true,
    }
}

#[async_trait]
impl Stage for Real {
    async fn open(&self) -> Arc<dyn Objects> {
        Arc::new(S3Objects::new(self.config.clone()))
    }
}

/// S3 dies: that is told; after its return everything is there and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_s3_is_told_and_got_over() {
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let config = config(&services);
    let objects = S3Objects::new(config.clone());
    within(objects.prepare()).await.unwrap();
    within(objects.put("a/b", Bytes::from_static(b"first")))
        .await
        .unwrap();
    services.order("kill", "s3").await;
    let failed = within(objects.put("a/c", Bytes::from_static(b"second"))).await;
    let endpoint = config.endpoint.unwrap();
    assert!(
        matches!(&failed, Err(ObjectsError::Unavailable(text)) if text.contains(&endpoint)),
        "{failed:?}"
    );
    let failed = within(objects.get("a/b", None)).await;
    assert!(
        matches!(failed, Err(ObjectsError::Unavailable(_))),
        "{failed:?}"
    );
    services.order("start", "s3").await;
    within(objects.put("a/c", Bytes::from_static(b"second")))
        .await
        .unwrap();
    assert_eq!(within(objects.get("a/b", None)).await.unwrap(), "first");
    assert_eq!(within(objects.get("a/c", None)).await.unwrap(), "second");
}

/// A wrong key: no repetition helps, and the error names the place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let config = S3Config {
        secret_key: "not-the-secret".to_owned(),
        ..config(&services)
    };
    assert!(!format!("{config:?}").contains("not-the-secret"));
    let objects = S3Objects::new(config.clone());
    for refused in [
        within(objects.prepare()).await,
        within(objects.put("a/b", Bytes::from_static(b"x"))).await,
        within(objects.get("a/b", None)).await.map(|_| ()),
        within(objects.list("a/", None, 1)).await.map(|_| ()),
    ] {
        let Err(ObjectsError::Refused(text)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            text.contains(&config.bucket) && text.contains("127.0.0.1"),
            "{text}"
        );
    }
}

/// A bucket that was never made is not an object that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_bucket_is_refused() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let objects = S3Objects::new(config(&services));
    for refused in [
        within(objects.put("a/b", Bytes::from_static(b"x"))).await,
        within(objects.get("a/b", None)).await.map(|_| ()),
        within(objects.list("a/", None, 1)).await.map(|_| ()),
    ] {
        assert!(
            matches!(&refused, Err(ObjectsError::Refused(text)) if text.contains("does not exist")),
            "{refused:?}"
        );
    }
}

/// Nobody there: the error says where it was looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_store_is_named() {
    let config = S3Config {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        region: "us-east-1".to_owned(),
        bucket: "bucket".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        path_style: true,
    };
    let failed = within(S3Objects::new(config).prepare()).await;
    assert!(
        matches!(&failed, Err(ObjectsError::Unavailable(text)) if text.contains("http://127.0.0.1:1")),
        "{failed:?}"
    );
}
