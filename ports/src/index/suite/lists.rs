//! Lists: their order, their pages, their conditions, and counts.

use super::random::Random;
use super::{ORG, Stage, document, put_one, walk};
use crate::index::{Bucket, Collection, Cursor, Document, Index, Query};
use bytes::Bytes;
use std::collections::HashSet;

const CLIENTS: [&str; 3] = ["", "C.1", "C.2"];
const FLOWS: [&str; 3] = ["", "F.1", "F.2"];
const SOURCES: [&str; 4] = ["", "A.B", "A.B/C", "a.b"];
const WORDS: [&str; 8] = [
    "", "win", "windows", "linux", "größe", "gross", "ça", "10.0.0.1",
];
const BUCKETS: [Bucket; 3] = [Bucket::Week(2_900), Bucket::Week(2_901), Bucket::Undated];

/// Any query, read with pages of any size, gives exactly the documents that match in their order;
/// its count is their number.
pub async fn pages_equal_the_sorted_matches(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for (seed, collection) in [
        (1, Collection::Rows),
        (2, Collection::Clients),
        (3, Collection::DeadLetters),
    ] {
        let mut random = Random::new(seed);
        let documents: Vec<Document> = (0..300)
            .map(|number| any_document(&mut random, collection, number))
            .collect();
        for bulk in documents.chunks(70) {
            index.create(collection, ORG, bulk.to_vec()).await.unwrap();
        }
        index.refresh(collection).await.unwrap();
        for _ in 0..60 {
            let query = any_query(&mut random, collection);
            holds(&*index, collection, &query, &documents, &mut random).await;
        }
    }
}

fn any_document(random: &mut Random, collection: Collection, number: usize) -> Document {
    let words: Vec<&str> = (0..random.below(4)).map(|_| *random.of(&WORDS)).collect();
    Document {
        bucket: collection.weekly().then(|| *random.of(&BUCKETS)),
        client: (*random.of(&CLIENTS)).into(),
        flow: (*random.of(&FLOWS)).into(),
        source: (*random.of(&SOURCES)).into(),
        text: words.join(" ").trim().into(),
        // Few orders: many are equal.
        ..document(
            collection,
            &format!("{:03}-{number}", random.below(1_000)),
            random.below(40) as i64 - 20,
        )
    }
}

fn any_query(random: &mut Random, collection: Collection) -> Query {
    fn maybe(random: &mut Random, values: &[&str]) -> Option<String> {
        random.one_in(3).then(|| (*random.of(values)).to_owned())
    }
    Query {
        client: maybe(random, &CLIENTS),
        flow: maybe(random, &FLOWS),
        source: maybe(random, &SOURCES),
        order: random.one_in(3).then(|| {
            let from = random.below(40) as i64 - 20;
            (from, from + random.below(30) as i64)
        }),
        words: (0..random.below(5).saturating_sub(2))
            .map(|_| {
                let word = random.of(&WORDS);
                let length = random.below(word.chars().count() + 1);
                word.chars().take(length).collect()
            })
            .collect(),
        bucket: (collection.weekly() && random.one_in(3)).then(|| *random.of(&BUCKETS)),
        descending: random.one_in(2),
        ..Query::default()
    }
}

async fn holds(
    index: &dyn Index,
    collection: Collection,
    query: &Query,
    documents: &[Document],
    random: &mut Random,
) {
    let mut expected: Vec<&Document> = documents.iter().filter(|one| query.matches(one)).collect();
    expected.sort_by(|a, b| query.compare((a.order, &a.id), (b.order, &b.id)));
    let count = index.count(collection, ORG, query).await.unwrap();
    assert_eq!(count, expected.len() as u64, "{query:?}");

    let mut query = query.clone();
    let mut rest = expected.as_slice();
    loop {
        let bound = if random.one_in(4) { 400 } else { 40 };
        query.limit = 1 + random.below(bound);
        let page = index.query(collection, ORG, &query).await.unwrap();
        let (wanted, after) = rest.split_at(query.limit.min(rest.len()));
        assert!(
            page.documents.iter().eq(wanted.iter().copied()),
            "{query:?}"
        );
        rest = after;
        let last = wanted.last().filter(|_| !rest.is_empty());
        assert_eq!(
            page.next,
            last.map(|last| Cursor {
                order: last.order,
                id: last.id.clone()
            }),
            "{query:?}"
        );
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert!(rest.is_empty(), "{query:?}");
    query.limit = 0;
    let page = index.query(collection, ORG, &query).await.unwrap();
    assert_eq!((page.documents.len(), page.next), (0, None));
}

/// What was there when a walk began is seen once, whatever comes meanwhile; nothing is seen twice.
pub async fn pages_while_documents_come(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    for descending in [false, true] {
        let collection = if descending {
            Collection::Logs
        } else {
            Collection::Rows
        };
        let mut random = Random::new(7);
        let first: Vec<Document> = (0..200)
            .map(|number| document(collection, &format!("first-{number}"), number % 37))
            .collect();
        index.create(collection, ORG, first.clone()).await.unwrap();
        index.refresh(collection).await.unwrap();
        let mut query = Query {
            limit: 9,
            descending,
            ..Query::default()
        };
        let mut seen = HashSet::new();
        let mut come = 0;
        loop {
            let page = index.query(collection, ORG, &query).await.unwrap();
            for one in page.documents {
                assert!(seen.insert(one.id.clone()), "{} came twice", one.id);
            }
            let Some(next) = page.next else { break };
            query.after = Some(next);
            let more = (0..5)
                .map(|_| {
                    come += 1;
                    let place = random.below(37) as i64;
                    document(collection, &format!("later-{come}"), place)
                })
                .collect();
            index.create(collection, ORG, more).await.unwrap();
            index.refresh(collection).await.unwrap();
        }
        assert!(come > 0);
        for one in first {
            assert!(seen.contains(&one.id), "{} was missed", one.id);
        }
    }
}

/// Documents of one order are listed by id, byte by byte.
pub async fn pages_of_equal_orders(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let mut ids = [
        "a",
        "B",
        "ä",
        "b",
        "_",
        "~",
        "aa",
        "a b",
        "Z",
        "0",
        "\u{1f600}",
        "\u{ffee}",
    ];
    let documents = ids
        .iter()
        .map(|id| document(Collection::Events, id, 5))
        .collect();
    index
        .create(Collection::Events, ORG, documents)
        .await
        .unwrap();
    index.refresh(Collection::Events).await.unwrap();
    ids.sort_unstable();
    let up = Query::default();
    let down = Query {
        descending: true,
        ..Query::default()
    };
    for limit in 1..=ids.len() + 1 {
        assert_eq!(walk(&*index, Collection::Events, &up, limit).await, ids);
        let mut found = walk(&*index, Collection::Events, &down, limit).await;
        found.reverse();
        assert_eq!(found, ids);
    }
}

/// A list without bodies has everything else.
pub async fn bodies_are_left_out_on_demand(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let one = Document {
        size: 1_234,
        ..document(Collection::Buffers, "one", 1)
    };
    super::create_one(&*index, Collection::Buffers, ORG, &one).await;
    index.refresh(Collection::Buffers).await.unwrap();
    for without_bodies in [true, false] {
        let query = Query {
            without_bodies,
            limit: 5,
            ..Query::default()
        };
        let page = index.query(Collection::Buffers, ORG, &query).await.unwrap();
        let mut expected = one.clone();
        if without_bodies {
            expected.body = Bytes::new();
        }
        assert_eq!(page.documents, [expected]);
    }
}

/// Every word of the query must begin a word of the text; nothing is folded or cut.
pub async fn words_by_their_beginnings(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let texts = [
        ("1", "desktop-4711 windows 10.0.19045 müller"),
        ("2", "desktop-4712 windows 10.0.22631 mueller"),
        ("3", "web01.example.com linux debian muller"),
        ("4", "über-pc windows straße 東京都"),
        ("5", "x%y a_b c*d \"q\" o'neill back\\slash"),
        ("6", ""),
    ];
    let cases: [(&[&str], &[&str]); 22] = [
        (&[], &["1", "2", "3", "4", "5", "6"]),
        (&["desktop"], &["1", "2"]),
        (&["desktop-4711"], &["1"]),
        (&["desktop-47111"], &[]),
        (&["esktop"], &[]),
        (&["win"], &["1", "2", "4"]),
        (&["win", "desktop", "10.0.2"], &["2"]),
        (&["win", "deb"], &[]),
        (&["10.0"], &["1", "2"]),
        (&["4711"], &[]),
        (&["mü"], &["1"]),
        (&["mu"], &["2", "3"]),
        (&["über", "straß"], &["4"]),
        (&["strass"], &[]),
        (&["東京"], &["4"]),
        (&["京"], &[]),
        (&["x%"], &["5"]),
        (&["a_b", "c*", "\"q"], &["5"]),
        (&["o'n", "back\\s"], &["5"]),
        (&["%"], &[]),
        (&["*"], &[]),
        (&["windows 10"], &[]),
    ];
    for collection in [Collection::Clients, Collection::Flows] {
        for (id, text) in texts {
            let one = Document {
                text: text.into(),
                ..document(collection, id, 0)
            };
            put_one(&*index, collection, &one).await;
        }
        index.refresh(collection).await.unwrap();
        for (words, expected) in cases {
            let query = Query {
                words: words.iter().map(|word| (*word).to_owned()).collect(),
                ..Query::default()
            };
            let found = walk(&*index, collection, &query, 2).await;
            assert_eq!(found, expected, "{collection:?} {words:?}");
            let count = index.count(collection, ORG, &query).await.unwrap();
            assert_eq!(count, expected.len() as u64, "{collection:?} {words:?}");
        }
    }
}

/// After a put a document is found by its new words alone; a put that came late changes none.
pub async fn words_follow_a_put(stage: &dyn Stage) {
    let index = stage.open().await;
    index.prepare().await.unwrap();
    let texts = [
        (2, "alpha beta beta", ["alpha", "beta"]),
        (1, "gamma", ["alpha", "beta"]),
        (3, "beta delta", ["beta", "delta"]),
        (3, "epsilon delta", ["epsilon", "delta"]),
    ];
    for (version, text, found_by) in texts {
        let one = Document {
            version,
            text: text.into(),
            ..document(Collection::Clients, "one", 0)
        };
        put_one(&*index, Collection::Clients, &one).await;
        index.refresh(Collection::Clients).await.unwrap();
        for word in ["alpha", "beta", "gamma", "delta", "epsilon"] {
            let query = Query {
                words: vec![word.into()],
                ..Query::default()
            };
            let count = index.count(Collection::Clients, ORG, &query).await.unwrap();
            assert_eq!(
                count,
                u64::from(found_by.contains(&word)),
                "{word} after {version} {text}"
            );
        }
    }
}
