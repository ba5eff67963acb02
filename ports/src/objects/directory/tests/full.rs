//! A full disk: writes say so, reads go on, and writes go on when there is room again.

use super::{DirectoryObjects, ObjectsError};
use crate::objects::Objects;
use crate::objects::killed::content;
use crate::objects::small_disk::SmallDisk;
use bytes::Bytes;

#[tokio::test]
async fn a_full_disk_is_full_until_it_is_not() {
    let Some(disk) = SmallDisk::mount(6) else {
        return;
    };
    let objects = DirectoryObjects::new(disk.path().join("store"));
    objects.prepare().await.unwrap();
    let object = |key: &str| Bytes::from(content(key, 700_000));
    let mut durable = Vec::new();
    let refused = loop {
        let key = format!("a/{}", durable.len());
        match objects.put(&key, object(&key)).await {
            Ok(()) => durable.push(key),
            Err(error) => break (key, error),
        }
        assert!(durable.len() < 20, "the disk is not small");
    };
    assert!(matches!(refused.1, ObjectsError::Full(_)), "{}", refused.1);
    assert!(!durable.is_empty());
    for _ in 0..3 {
        let put = objects.put(&refused.0, object(&refused.0)).await;
        assert!(matches!(put, Err(ObjectsError::Full(_))), "{put:?}");
    }
    let got = objects.get(&refused.0, None).await;
    assert_eq!(got, Err(ObjectsError::NotFound(refused.0.clone())));
    for key in &durable {
        assert!(objects.get(key, None).await.unwrap() == object(key));
    }
    assert_eq!(
        objects.list("", None, 100).await.unwrap().len(),
        durable.len()
    );

    objects.delete(&durable[0]).await.unwrap();
    objects.put(&refused.0, object(&refused.0)).await.unwrap();
    assert!(objects.get(&refused.0, None).await.unwrap() == object(&refused.0));
}
