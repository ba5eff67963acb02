//! Deleted clients: what comes late is put aside, and what is there is removed.

use super::*;
use nublar_core::ids::Life;
use nublar_ports::objects::ObjectsError;
use nublar_schemas::records::{ClientLife, Registry};

impl Bench {
    /// The foreman's word that generations below this one have ended.
    async fn ended(&self, generation: i64) {
        let life = ClientLife {
            header: Header {
                generation,
                ..header()
            },
        };
        let value = Registry::from(life).encode().unwrap();
        self.append("registry", value).await;
    }

    async fn send_of(&self, generation: i64, topic: &str, messages: Vec<VeloMessage>) {
        let messages = messages.into_iter().map(|message| AgentMessage {
            session: message.session_id.clone(),
            bytes: message.encode_to_vec().into(),
            object: None,
        });
        let record = Messages {
            header: Header {
                generation,
                ..header()
            },
            messages: messages.collect(),
            ..Messages::default()
        };
        self.append(topic, record.encode().unwrap()).await;
    }

    async fn tell(&self, generation: i64, kind: &str, id: &str, version: i64, body: &str) {
        let document = Document {
            header: Header {
                generation,
                ..header()
            },
            kind: kind.to_owned(),
            id: id.to_owned(),
            version,
            body: body.to_owned(),
        };
        self.append("state", document.encode().unwrap()).await;
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let values = self.values("dead-letters").await.into_iter();
        values
            .map(|value| DeadLetter::decode(&value).unwrap())
            .collect()
    }

    async fn objects(&self, folder: &str) -> usize {
        self.objects.list(folder, None, 100).await.unwrap().len()
    }
}

/// Where there is something of a client; what came late of it is told in dead letters.
const KEPT: [Collection; 6] = [
    Collection::Rows,
    Collection::Logs,
    Collection::Buffers,
    Collection::Events,
    Collection::Flows,
    Collection::Clients,
];

fn life(generation: i64) -> Life {
    Life {
        client: ClientKey::of(&header()).unwrap(),
        generation,
    }
}

#[tokio::test]
async fn what_comes_of_an_ended_generation_is_put_aside() {
    let bench = Bench::new().await;
    bench.ended(2).await;
    let worker = bench.start();
    // The stamp of a later one is enough to know.
    bench.send_of(3, "results", vec![rows(0, 2)]).await;
    eventually!(bench.marked("results").await == 1);
    bench.send_of(2, "results", vec![rows(0, 3)]).await;
    bench
        .send_of(1, "results", vec![rows(0, 4), marker()])
        .await;
    bench.send_of(1, "uploads", vec![buffer(0, 100_000)]).await;
    eventually!(bench.marked("results").await == 3 && bench.marked("uploads").await == 1);
    let rows = bench.index.inner().all(Collection::Rows, "");
    let of: Vec<_> = rows
        .iter()
        .map(|row| (row.client.as_str(), row.size))
        .collect();
    assert_eq!(of, [(life(3).name().as_str(), 2)]);
    assert_eq!(bench.documents(Collection::Buffers), 0);
    assert_eq!(bench.objects("uploads/").await, 0);
    let letters = bench.letters().await;
    let mut told: Vec<_> = letters
        .iter()
        .map(|letter| (letter.reason.as_str(), letter.header.generation))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("deleted", 1), ("deleted", 1), ("deleted", 2)]);
    // A large copy is an object.
    let (large, small): (Vec<_>, Vec<_>) =
        letters.iter().partition(|letter| letter.object.is_some());
    assert!(small.iter().all(|letter| !letter.copy.is_empty()));
    assert_eq!((large.len(), bench.objects("letters/").await), (1, 1));
    // Totals are told under the generation that they are of.
    let stored = bench.stored("results").await;
    let generations: Vec<_> = stored.iter().map(|one| one.header.generation).collect();
    assert_eq!(generations, [3]);
    worker.stop().await;
}

#[tokio::test]
async fn a_deletion_removes_its_generation_and_no_other() {
    let bench = Bench::new().await;
    let worker = bench.start();
    bench
        .send_of(1, "results", vec![rows(0, 3), marker()])
        .await;
    bench
        .send_of(1, "uploads", vec![buffer(0, 100_000), buffer(100_000, 3)])
        .await;
    bench
        .tell(1, "client", CLIENT, 1, "{\"hostname\":\"old\"}")
        .await;
    let flow = format!("{CLIENT}/{FLOW}");
    bench.tell(1, "flow", &flow, 1, "{}").await;
    let large = format!("{}x", life(1).messages());
    bench
        .objects
        .put(&large, Bytes::from_static(b"x"))
        .await
        .unwrap();
    eventually!(bench.marked("uploads").await == 1 && bench.marked("state").await == 2);
    assert_eq!(bench.objects("").await, 2);

    // Enrolled anew before anything of the old one is removed.
    bench.ended(2).await;
    bench.tell(2, "client", CLIENT, 2, "").await;
    bench
        .tell(2, "client", CLIENT, 3, "{\"hostname\":\"new\"}")
        .await;
    bench.send_of(2, "results", vec![rows(0, 2)]).await;
    bench.send_of(2, "uploads", vec![buffer(0, 50_000)]).await;
    // A zombie's document of the old one comes behind.
    bench.tell(1, "flow", &flow, 4, "{}").await;
    eventually!(bench.marked("state").await == 5 && bench.marked("uploads").await == 2);
    eventually!(bench.marked("results").await == 2);

    let left = |collection| -> Vec<String> {
        let documents = bench.index.inner().all(collection, "").into_iter();
        documents.map(|document| document.client).collect()
    };
    let new = life(2).name();
    assert_eq!(left(Collection::Rows), std::slice::from_ref(&new));
    assert_eq!(left(Collection::Buffers), std::slice::from_ref(&new));
    assert_eq!(left(Collection::Clients), [new]);
    assert!(left(Collection::Flows).is_empty());
    assert_eq!(bench.objects("").await, 1, "the new one's buffer");
    worker.stop().await;
}

#[tokio::test]
async fn a_removal_is_gone_on_with_after_a_kill_and_replay_brings_nothing_back() {
    let bench = Bench::new().await;
    let worker = bench.start();
    let many = (0..1_500).map(|n| rows(n, 1)).collect();
    bench.send_of(1, "results", many).await;
    bench.tell(1, "client", CLIENT, 1, "{}").await;
    eventually!(bench.marked("results").await == 1 && bench.marked("state").await == 1);
    assert_eq!(bench.documents(Collection::Rows), 1_500);
    worker.stop().await;

    // Not in the registry yet: nothing is removed, and nothing is marked.
    bench.tell(2, "client", CLIENT, 2, "").await;
    let worker = bench.start();
    bench.tell(1, "client", CLIENT, 1, "{}").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.marked("state").await, 1);
    worker.kill().await;
    assert_eq!(bench.documents(Collection::Rows), 1_500);

    bench.ended(2).await;
    let worker = bench.start();
    eventually!(bench.documents(Collection::Rows) < 1_500);
    worker.kill().await;
    let worker = bench.start();
    eventually!(bench.marked("state").await == 3);
    for collection in KEPT {
        assert_eq!(bench.documents(collection), 0, "{collection:?}");
    }
    // The same records once more, as a replay would bring them.
    bench
        .send_of(1, "results", (0..10).map(|n| rows(n, 1)).collect())
        .await;
    bench.tell(1, "client", CLIENT, 1, "{}").await;
    bench.tell(2, "client", CLIENT, 2, "").await;
    eventually!(bench.marked("results").await == 2 && bench.marked("state").await == 5);
    for collection in KEPT {
        assert_eq!(bench.documents(collection), 0, "{collection:?}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_was_written_before_the_deletion_was_read_is_removed_before_the_mark() {
    let bench = Bench::new().await;
    // Slow enough that the generation ends between the look and the mark.
    let slow = Fault::Slow(Duration::from_millis(400));
    bench.faults().set_times(slow, Calls::Writes, 1);
    let before = bench.faults().writes();
    let worker = bench.start();
    bench.send_of(1, "results", vec![rows(0, 3)]).await;
    eventually!(bench.faults().writes() > before);
    bench.ended(2).await;
    eventually!(bench.marked("results").await == 1);
    assert_eq!(bench.documents(Collection::Rows), 0);
    assert!(
        bench.letters().await.is_empty(),
        "it was written, and removed"
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_large_message_whose_object_went_with_its_client_is_put_aside() {
    let bench = Bench::new().await;
    let record = Messages {
        header: header(),
        messages: vec![AgentMessage {
            session: FLOW.into(),
            bytes: Bytes::new(),
            object: Some(format!("{}gone", life(1).messages())),
        }],
        ..Messages::default()
    };
    bench.append("results", record.encode().unwrap()).await;
    let worker = bench.start();
    let key = format!("{}gone", life(1).messages());
    let missing = bench.objects.get(&key, None).await;
    assert!(matches!(missing, Err(ObjectsError::NotFound(_))));
    assert_eq!(bench.marked("results").await, 0);
    bench.ended(2).await;
    eventually!(bench.marked("results").await == 1);
    assert_eq!(bench.letters().await[0].reason, "deleted");
    worker.stop().await;
}
