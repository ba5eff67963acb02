//! What a query matches, said once in plain code: the memory index uses it, and the suite holds
//! every other index to it.

use super::{Cursor, Document, Page, Query};
use bytes::Bytes;
use std::cmp::Ordering;

impl Query {
    /// Whether a document meets every condition (limit and cursor are not looked at).
    pub fn matches(&self, document: &Document) -> bool {
        fn equal(wanted: &Option<String>, found: &str) -> bool {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        }
        equal(&self.client, &document.client)
            && equal(&self.flow, &document.flow)
            && equal(&self.source, &document.source)
            && self
                .order
                .is_none_or(|(from, to)| (from..to).contains(&document.order))
            && (self.bucket.is_none() || self.bucket == document.bucket)
            && self.words.iter().all(|prefix| {
                document
                    .text
                    .split(' ')
                    .any(|word| word.starts_with(prefix.as_str()))
            })
    }

    /// The document as it is listed.
    pub fn shown(&self, document: &Document) -> Document {
        let mut shown = document.clone();
        if self.without_bodies {
            shown.body = Bytes::new();
        }
        shown
    }

    /// How two places stand to each other in this list.
    pub fn compare(&self, a: (i64, &str), b: (i64, &str)) -> Ordering {
        if self.descending {
            b.cmp(&a)
        } else {
            a.cmp(&b)
        }
    }

    /// Whether a place comes after the cursor (every place does when there is none).
    pub fn is_after(&self, place: (i64, &str)) -> bool {
        self.after
            .as_ref()
            .is_none_or(|cursor| self.compare((cursor.order, &cursor.id), place) == Ordering::Less)
    }
}

impl Page {
    /// A page of documents that are sorted and of which there may be more than the limit: that
    /// there are more is what makes a next page.
    pub fn cut(mut documents: Vec<Document>, limit: usize) -> Self {
        let more = documents.len() > limit;
        documents.truncate(limit);
        let next = documents.last().filter(|_| more).map(|last| Cursor {
            order: last.order,
            id: last.id.clone(),
        });
        Self { documents, next }
    }
}
