//! The log on Kafka.

use crate::services::{Services, services, unique, within};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use nublar_ports::log::kafka::{KafkaConfig, KafkaLog, MAX_RECORD};
use nublar_ports::log::suite::{Factory, Subject};
use nublar_ports::log::{
    From, Group, GroupEvent, Log, LogError, Retention, Tail, TailEvent, TopicSpec,
};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::RwLockReadGuard;

nublar_ports::log_suite!(match services() {
    Some(services) => Real::new(services).await,
    None => return,
});

/// Logs with topics of their own on the real Kafka.
struct Real {
    services: Services,
    _calm: RwLockReadGuard<'static, ()>,
}

impl Real {
    async fn new(services: Services) -> Self {
        let _calm = services.calm().await;
        Self { services, _calm }
    }
}

#[async_trait]
impl Factory for Real {
    async fn fresh(&self) -> Box<dyn Subject> {
        Box::new(KafkaSubject::new(&self.services))
    }
}

/// A log, and the way to Kafka beside it. Its topics are deleted in the end.
struct KafkaSubject {
    config: KafkaConfig,
    log: Arc<KafkaLog>,
}

fn config(services: &Services) -> KafkaConfig {
    KafkaConfig {
        brokers: services.get("KAFKA"),
        prefix: format!("{}.", unique("test")),
        replication: 1,
        min_insync: 1,
        ..KafkaConfig::default()
    }
}

impl KafkaSubject {
    fn new(services: &Services) -> Self {
        let config = config(services);
        let log = Arc::new(KafkaLog::new(config.clone()).unwrap());
        Self { config, log }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.config.brokers)
            .create()
            .unwrap()
    }

    fn kafka_topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.config.prefix)
    }

    /// Deletes every record, as retention would.
    async fn delete_all(&self, topic: &str) {
        let mut all = TopicPartitionList::new();
        for partition in 0..self.log.partitions(topic).await.unwrap() {
            all.add_partition_offset(
                &self.kafka_topic(topic),
                partition.cast_signed(),
                Offset::End,
            )
            .unwrap();
        }
        let deleted = self
            .admin()
            .delete_records(&all, &AdminOptions::new())
            .await
            .unwrap();
        assert!(
            deleted
                .elements()
                .iter()
                .all(|element| element.error().is_ok())
        );
    }

    /// The settings that Kafka has for a topic.
    async fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let name = self.kafka_topic(topic);
        let described = self
            .admin()
            .describe_configs([&ResourceSpecifier::Topic(&name)], &AdminOptions::new())
            .await;
        let resource = described.unwrap().remove(0).unwrap();
        resource
            .entries
            .into_iter()
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect()
    }
}

#[async_trait]
impl Subject for KafkaSubject {
    fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    fn max_record_bytes(&self) -> usize {
        MAX_RECORD
    }

    /// Another process, as far as Kafka can see.
    async fn restart(&mut self) -> bool {
        self.log = Arc::new(KafkaLog::new(self.config.clone()).unwrap());
        true
    }

    /// Deletes every record, as retention would; not in topics with groups, which Kafka's
    /// retention does not know.
    async fn expire(&self, topic: &str) -> bool {
        for group in ["g", "slow", "fast"] {
            if self.log.lag(group, topic).await.is_ok() {
                return false;
            }
        }
        self.delete_all(topic).await;
        true
    }
}

impl Drop for KafkaSubject {
    fn drop(&mut self) {
        let (admin, prefix) = (self.admin(), self.config.prefix.clone());
        let clean = move || {
            let metadata = admin
                .inner()
                .fetch_metadata(None, Duration::from_secs(10))
                .ok()?;
            let names: Vec<&str> = metadata
                .topics()
                .iter()
                .map(|topic| topic.name())
                .filter(|name| name.starts_with(&prefix))
                .collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime
                .block_on(admin.delete_topics(&names, &AdminOptions::new()))
                .ok()
        };
        let _ = std::thread::spawn(clean).join();
    }
}

fn spec(name: &str, partitions: u32, age: Duration, groups: &[&str]) -> TopicSpec {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    TopicSpec {
        name: name.to_owned(),
        partitions,
        retention: Retention::Age(age),
        groups,
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn numbered(number: usize) -> Bytes {
    Bytes::from(format!("{number}"))
}

/// Reads on until these numbers have come.
async fn tail_until(tail: &mut Box<dyn Tail>, seen: &mut BTreeSet<usize>, count: usize) {
    while seen.len() < count {
        match within(tail.next()).await {
            Ok(TailEvent::Record(record)) => _ = seen.insert(number_in(&record.value)),
            Ok(TailEvent::CaughtUp { .. }) | Err(LogError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// The same for a member of a group.
async fn group_until(group: &mut Box<dyn Group>, seen: &mut BTreeSet<usize>, count: usize) {
    while seen.len() < count {
        match within(group.next()).await {
            Ok(GroupEvent::Record(record)) => _ = seen.insert(number_in(&record.value)),
            Ok(_) | Err(LogError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

fn number_in(value: &[u8]) -> usize {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Kafka hangs for a while: what was appended meanwhile is late, not lost, and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_kafka_is_waited_out() {
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    within(log.declare(&[spec("topic", 1, DAY, &["g"])]))
        .await
        .unwrap();
    within(log.append("topic", 0, Bytes::new(), numbered(0)))
        .await
        .unwrap();
    let mut tail = within(log.tail("topic", &[0], From::Earliest))
        .await
        .unwrap();
    let mut group = within(log.group("g", "topic")).await.unwrap();
    let (mut tailed, mut grouped) = (BTreeSet::new(), BTreeSet::new());
    tail_until(&mut tail, &mut tailed, 1).await;
    group_until(&mut group, &mut grouped, 1).await;

    services.order("pause", "kafka").await;
    let appends: Vec<_> = (1..200)
        .map(|number| log.append("topic", 0, Bytes::new(), numbered(number)))
        .collect();
    let waiting = join_all(appends);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(early.is_err(), "acknowledged by a broker that hangs");
    services.order("resume", "kafka").await;
    let positions: Vec<_> = within(waiting)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
    tail_until(&mut tail, &mut tailed, 200).await;
    group_until(&mut group, &mut grouped, 200).await;
}

/// Kafka hangs for longer than requests may take, while records come all the time: when it is
/// back, records are taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_requests_do_not_outlast_is_got_over() {
    const TOPICS: [&str; 3] = ["scheduling", "state", "results"];
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    within(log.declare(&TOPICS.map(|topic| spec(topic, 4, DAY, &[]))))
        .await
        .unwrap();
    let places = || {
        TOPICS
            .iter()
            .flat_map(|topic| (0..4).map(move |partition| (*topic, partition)))
    };
    let back = tokio_util::sync::CancellationToken::new();
    let mut appending = tokio::task::JoinSet::new();
    for (topic, partition) in places() {
        let (log, back) = (log.clone(), back.clone());
        appending.spawn(async move {
            while !back.is_cancelled() {
                let window =
                    (0..8).map(|n| log.append(topic, partition, Bytes::new(), numbered(n)));
                let _ = join_all(window).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    services.order("pause", "kafka").await;
    tokio::time::sleep(Duration::from_secs(13)).await;
    services.order("resume", "kafka").await;
    back.cancel();
    while within(appending.join_next()).await.is_some() {}
    for (topic, partition) in places() {
        let append = async || {
            let appended = log
                .append(topic, partition, Bytes::new(), numbered(0))
                .await;
            appended
                .map_err(|error| eprintln!("{topic}/{partition}: {error}"))
                .is_ok()
        };
        within(async { while !append().await {} }).await;
    }
}

/// Kafka dies: that is told, and after its return everything goes on; nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_kafka_is_told_and_got_over() {
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    within(log.declare(&[spec("topic", 2, DAY, &["g"])]))
        .await
        .unwrap();
    let append =
        |number: usize| log.append("topic", (number % 2) as u32, Bytes::new(), numbered(number));
    for append in (0..100).map(append).collect::<Vec<_>>() {
        within(append).await.unwrap();
    }
    let mut tail = within(log.tail("topic", &[0, 1], From::Earliest))
        .await
        .unwrap();
    let mut group = within(log.group("g", "topic")).await.unwrap();
    let (mut tailed, mut grouped) = (BTreeSet::new(), BTreeSet::new());
    tail_until(&mut tail, &mut tailed, 100).await;
    group_until(&mut group, &mut grouped, 50).await;

    services.order("kill", "kafka").await;
    let failed = within(append(100)).await;
    assert!(
        matches!(&failed, Err(LogError::Unavailable(text)) if text.contains(&subject.config.brokers)),
        "{failed:?}"
    );
    let asked = within(log.end("topic", 0)).await;
    assert!(
        matches!(&asked, Err(LogError::Unavailable(text)) if text.contains(&subject.config.brokers)),
        "{asked:?}"
    );
    let told = within(async {
        loop {
            if let Err(error) = tail.next().await {
                break error;
            }
        }
    });
    assert!(matches!(told.await, LogError::Unavailable(_)));

    services.order("start", "kafka").await;
    for number in 100..200 {
        while let Err(error) = within(append(number)).await {
            assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        }
    }
    tail_until(&mut tail, &mut tailed, 200).await;
    group_until(&mut group, &mut grouped, 200).await;
    let again = KafkaLog::new(subject.config.clone()).unwrap();
    let mut tail = within(again.tail("topic", &[0, 1], From::Earliest))
        .await
        .unwrap();
    let mut kept = BTreeSet::new();
    tail_until(&mut tail, &mut kept, 200).await;
}

/// Marks that were flushed are kept by Kafka, and the lag is told after its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_survive_a_restart_of_kafka() {
    let Some(services) = services() else { return };
    let _alone = services.alone().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    within(log.declare(&[spec("topic", 1, DAY, &["g"])]))
        .await
        .unwrap();
    for number in 0..10 {
        within(log.append("topic", 0, Bytes::new(), numbered(number)))
            .await
            .unwrap();
    }
    let mut group = within(log.group("g", "topic")).await.unwrap();
    let (partition, epoch, mark) = loop {
        if let GroupEvent::Assigned {
            partition,
            epoch,
            mark,
        } = within(group.next()).await.unwrap()
        {
            break (partition, epoch, mark);
        }
    };
    let next = nublar_ports::log::Position {
        offset: mark.offset + 7,
        ..mark
    };
    group.mark(partition, epoch, next).unwrap();
    within(group.flush()).await.unwrap();
    services.order("restart", "kafka").await;
    let lag = within(log.lag("g", "topic")).await.unwrap();
    assert_eq!((lag[0].mark, lag[0].end.offset), (next, 10));
    assert!(lag[0].oldest_unmarked.is_some());
}

/// Records that a group had not read were deleted (by hand, or by a retention that was too short):
/// it is told, and does not jump.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_overtaken_is_told() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    within(log.declare(&[spec("topic", 1, DAY, &["g"])]))
        .await
        .unwrap();
    let mut last = None;
    for number in 0..10 {
        last = Some(
            within(log.append("topic", 0, Bytes::new(), numbered(number)))
                .await
                .unwrap(),
        );
    }
    subject.delete_all("topic").await;
    let mut group = within(log.group("g", "topic")).await.unwrap();
    let error = within(async {
        loop {
            match group.next().await {
                Ok(GroupEvent::Assigned { mark, .. }) => assert_eq!(mark.offset, 0),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        }
    });
    let last = last.unwrap();
    let earliest = nublar_ports::log::Position {
        offset: last.offset + 1,
        ..last
    };
    assert_eq!(error.await, LogError::OutOfRange { earliest });
}

/// Nobody there: the error says where it was looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_broker_is_named() {
    let Some(services) = services() else { return };
    let config = KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),
        ..config(&services)
    };
    let log = KafkaLog::new(config).unwrap();
    let declared = within(log.declare(&[spec("topic", 1, DAY, &[])])).await;
    assert!(
        matches!(&declared, Err(LogError::Unavailable(text)) if text.contains("127.0.0.1:1")),
        "{declared:?}"
    );
}

/// A log that speaks to the broker in a way that it does not expect.
fn speaking(services: &Services, properties: &[(&str, &str)]) -> (KafkaLog, String) {
    let properties = properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let config = KafkaConfig {
        properties,
        ..config(services)
    };
    let brokers = config.brokers.clone();
    (KafkaLog::new(config).unwrap(), brokers)
}

/// A broker that does not let the user in: no repetition helps, a person has to act.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_not_let_in_is_refused() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let (log, brokers) = speaking(
        &services,
        &[
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "nublar"),
            ("sasl.password", "not-the-password"),
        ],
    );
    let declared = within(log.declare(&[spec("topic", 1, DAY, &[])])).await;
    let Err(LogError::Refused(text)) = declared else {
        panic!("{declared:?}")
    };
    assert!(
        text.contains(&brokers) && text.contains("check user and password"),
        "{text}"
    );
    let appended = within(log.append("topic", 0, Bytes::new(), numbered(0))).await;
    assert!(
        matches!(appended, Err(LogError::Refused(_))),
        "{appended:?}"
    );
}

/// A broker that does not speak TLS: the error says where to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_tls_is_named() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let (log, brokers) = speaking(&services, &[("security.protocol", "ssl")]);
    let text = within(log.partitions("topic"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(&brokers) && text.contains("check security.protocol"),
        "{text}"
    );
}

/// A property that librdkafka does not know is named.
#[test]
fn an_unknown_property_is_named() {
    let properties = BTreeMap::from([("sasl.pasword".to_owned(), "secret".to_owned())]);
    let config = KafkaConfig {
        properties,
        ..KafkaConfig::default()
    };
    assert!(!format!("{config:?}").contains("secret"));
    let Err(LogError::Refused(text)) = KafkaLog::new(config) else {
        panic!("taken")
    };
    assert!(
        text.contains("sasl.pasword") && !text.contains("secret"),
        "{text}"
    );
}

/// Topics have the settings that the promises rest on; a new retention is set, and what somebody
/// else has set stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_kept() {
    let Some(services) = services() else { return };
    let _calm = services.calm().await;
    let subject = KafkaSubject::new(&services);
    let log = subject.log();
    let compacted = TopicSpec {
        retention: Retention::Compacted,
        ..spec("registry", 1, DAY, &[])
    };
    within(log.declare(&[spec("topic", 1, DAY, &[]), compacted]))
        .await
        .unwrap();
    let settings = subject.settings("topic").await;
    assert_eq!(settings["message.timestamp.type"], "LogAppendTime");
    assert_eq!(settings["max.message.bytes"], "9437184");
    assert_eq!(settings["retention.ms"], "86400000");
    assert_eq!(settings["cleanup.policy"], "delete");
    assert_eq!(
        subject.settings("registry").await["cleanup.policy"],
        "compact"
    );

    let name = subject.kafka_topic("topic");
    let foreign = AlterConfig::new(ResourceSpecifier::Topic(&name))
        .set("retention.ms", "1000")
        .set("message.timestamp.type", "LogAppendTime")
        .set("compression.type", "gzip");
    subject
        .admin()
        .alter_configs([&foreign], &AdminOptions::new())
        .await
        .unwrap();
    within(log.declare(&[spec("topic", 1, 2 * DAY, &[])]))
        .await
        .unwrap();
    let settings = subject.settings("topic").await;
    assert_eq!(settings["retention.ms"], "172800000");
    assert_eq!(settings["compression.type"], "gzip");
    assert_eq!(settings["max.message.bytes"], "9437184");
}

/// More than the queue of a producer holds is refused at once, not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_does_not_block() {
    let Some(services) = services() else { return };
    let config = KafkaConfig {
        brokers: "127.0.0.1:1".to_owned(),
        ..config(&services)
    };
    let log = KafkaLog::new(config).unwrap();
    let value = Bytes::from(vec![7; 8 << 20]);
    let begun = std::time::Instant::now();
    let mut appends: Vec<_> = (0..33)
        .map(|_| log.append("topic", 0, Bytes::new(), value.clone()))
        .collect();
    let full = within(appends.pop().unwrap()).await;
    assert!(matches!(full, Err(LogError::Full(_))), "{full:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it was waited for"
    );
}
