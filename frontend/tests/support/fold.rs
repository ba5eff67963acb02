//! The foreman's fold over the topics of a test: decisions without a foreman.

use super::{Deployment, PARTITIONS, mac};
use bytes::Bytes;
use nublar_core::fold::{Fold, FoldConfig, Output, version};
use nublar_ports::Log as _;
use nublar_ports::log::{From, TailEvent};
use nublar_schemas::records::{Announce, Header, Notifications, RequestRef, Scheduling};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// A fold at work. Dropping it ends it.
pub(crate) struct Folding {
    task: JoinHandle<()>,
    news: Arc<Mutex<Vec<Notifications>>>,
}

impl Folding {
    /// What it told.
    pub(crate) fn told(&self, kind: &str) -> Vec<serde_json::Value> {
        let news = self.news.lock().unwrap();
        let of = |news: &Notifications| match news {
            Notifications::Notification(news) if news.kind == kind => {
                serde_json::from_str(&news.body).ok()
            }
            _ => None,
        };
        news.iter().filter_map(of).collect()
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deployment {
    /// Tells every partition of a request that the fold may hand out by itself.
    pub(crate) async fn announce(&self, kind: &str, request: RequestRef) {
        let announce = Scheduling::from(Announce {
            header: Header::default(),
            kind: kind.to_owned(),
            request,
            artifacts: Vec::new(),
            queries: 1,
            spec: "{}".to_owned(),
        });
        let value = Bytes::from(announce.encode().unwrap());
        for partition in 0..PARTITIONS {
            let log = self.log.inner();
            let append = log.append("scheduling", partition, Bytes::new(), value.clone());
            append.await.unwrap();
        }
    }

    /// Folds `scheduling`, and appends what is for frontends.
    pub(crate) fn fold(&self, change: impl FnOnce(&mut FoldConfig)) -> Folding {
        let mut config = FoldConfig::new(mac());
        (config.interrogate, config.monitor) = (false, false);
        change(&mut config);
        let (config, log) = (Arc::new(config), self.log.inner().clone());
        let news: Arc<Mutex<Vec<Notifications>>> = Arc::default();
        let told = Arc::clone(&news);
        let task = tokio::spawn(async move {
            let all: Vec<u32> = (0..PARTITIONS).collect();
            let mut tail = log.tail("scheduling", &all, From::Earliest).await.unwrap();
            let mut folds: BTreeMap<u32, Fold> = BTreeMap::new();
            loop {
                let TailEvent::Record(record) = tail.next().await.unwrap() else {
                    continue;
                };
                let fold = folds
                    .entry(record.partition)
                    .or_insert_with(|| Fold::new(config.clone()));
                let version = version(record.position.generation, record.position.offset);
                let input = Scheduling::decode(&record.value).unwrap();
                for output in fold.apply(version, &input) {
                    match output {
                        Output::Task(task) => {
                            let key = task.header().client.clone().into();
                            let value = task.encode().unwrap().into();
                            log.append("tasks", record.partition, key, value)
                                .await
                                .unwrap();
                        }
                        Output::Notify(news) => told.lock().unwrap().push(news),
                        Output::State(_) | Output::Setting(_) | Output::Life(_) => {}
                    }
                }
            }
        });
        Folding { task, news }
    }
}
