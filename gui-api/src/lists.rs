//! Pages of documents, newest first, with what happened a moment ago laid over what the index has.

use crate::app::App;
use crate::refusal::{Answer, Refusal};
use crate::tails::{Kind, Seen};
use nublar_core::ids::Life;
use nublar_ports::index::{Collection, Cursor, Page, Query};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How many documents a page has unless said otherwise, and at most.
pub(crate) const USUAL: usize = 50;
pub(crate) const MOST: usize = 1_000;

/// How many documents are read at once where most of them may not match.
const SIFTED: usize = 500;

/// One document of a page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) place: Cursor,
    pub(crate) body: Value,
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) items: Vec<Listed>,
    pub(crate) next: Option<Cursor>,
}

/// What happened a moment ago, by the documents' ids.
type Newer<'a> = HashMap<&'a str, &'a Arc<Seen>>;

/// What to list.
pub(crate) struct Wanted<'a> {
    pub(crate) kind: Kind,
    /// Only of this client, in its generation.
    pub(crate) life: Option<&'a Life>,
    /// Words that every match has, so that the index need not give all.
    pub(crate) words: Vec<String>,
    /// What decides; none when all match.
    pub(crate) matches: Option<&'a (dyn Fn(&Value) -> bool + Send + Sync)>,
    pub(crate) limit: usize,
    pub(crate) after: Option<Cursor>,
}

/// A place in a list as text, and back.
pub(crate) fn write_place(place: &Cursor) -> String {
    format!("{}.{}", place.order, place.id)
}

pub(crate) fn read_place(text: &str) -> Answer<Cursor> {
    let parts = text
        .split_once('.')
        .and_then(|(order, id)| Some((order.parse().ok()?, id)));
    let (order, id) = parts.ok_or_else(|| {
        Refusal::bad(format!("after={text:?} is no place in a list"))
            .hint("take the `next` of the page before, as it is")
    })?;
    Ok(Cursor {
        order,
        id: id.to_owned(),
    })
}

/// How many documents are asked for.
pub(crate) fn read_limit(limit: Option<usize>) -> Answer<usize> {
    match limit {
        None => Ok(USUAL),
        Some(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        Some(limit) => Err(Refusal::bad(format!(
            "limit={limit} is not between 1 and {MOST}"
        ))),
    }
}

fn newest_first(a: &Cursor, b: &Cursor) -> Ordering {
    (b.order, &b.id).cmp(&(a.order, &a.id))
}

impl App {
    /// A page of documents, newest first.
    pub(crate) async fn list(&self, wanted: Wanted<'_>) -> Answer<Listing> {
        self.registry_ready().await?;
        let recent = self.recent.all(wanted.kind, wanted.life);
        let mut recent: Newer<'_> = recent.iter().map(|seen| (seen.id.as_str(), seen)).collect();
        let mut listed: HashSet<String> = HashSet::new();
        let mut found: Vec<Listed> = Vec::new();
        let mut from = wanted.after.clone();
        while found.len() <= wanted.limit {
            let page = self.indexed(&wanted, from.clone()).await?;
            let to = page.next.clone();
            for (place, body) in self.laid_over(page, from.as_ref(), &mut recent) {
                if !listed.insert(place.id.clone()) {
                    continue;
                }
                let body: Value = serde_json::from_str(&body)
                    .map_err(|error| Refusal::fault(format!("document {}: {error}", place.id)))?;
                if wanted.matches.is_none_or(|matches| matches(&body)) {
                    found.push(Listed { place, body });
                }
            }
            from = to;
            if from.is_none() {
                break;
            }
        }
        let more = found.len() > wanted.limit;
        found.truncate(wanted.limit);
        let next = found.last().filter(|_| more).map(|last| last.place.clone());
        Ok(Listing { items: found, next })
    }

    /// The index's documents from a place on, as many as may fill a page.
    async fn indexed(&self, wanted: &Wanted<'_>, from: Option<Cursor>) -> Answer<Page> {
        let collection = match wanted.kind {
            Kind::Flow => Collection::Flows,
            Kind::Client => Collection::Clients,
        };
        let limit = if wanted.matches.is_some() {
            SIFTED
        } else {
            wanted.limit + 1
        };
        let query = Query {
            client: wanted.life.map(Life::name),
            words: wanted.words.clone(),
            descending: true,
            limit,
            after: from,
            ..Query::default()
        };
        self.step(self.index.query(collection, "", &query)).await
    }

    /// The index's documents as they are now, with those that it has not yet where they belong.
    /// Those of deleted clients, which wait for their removal, are left out.
    fn laid_over(
        &self,
        page: Page,
        from: Option<&Cursor>,
        recent: &mut Newer<'_>,
    ) -> Vec<(Cursor, String)> {
        let mut batch: Vec<(Cursor, String)> = Vec::new();
        for document in page.documents {
            let newer = recent.remove(document.id.as_str());
            let newer = newer.filter(|seen| seen.version >= document.version);
            let life = newer.map_or_else(
                || Life::of_name(&document.client),
                |seen| Some(seen.life.clone()),
            );
            if newer.is_some_and(|seen| seen.is_end())
                || life.is_some_and(|life| self.registry.has_ended(&life))
            {
                continue;
            }
            let body = newer.map_or_else(
                || String::from_utf8_lossy(&document.body).into_owned(),
                |seen| seen.body.clone(),
            );
            let place = Cursor {
                order: document.order,
                id: document.id,
            };
            batch.push((place, body));
        }
        let (after, to) = (from, page.next.as_ref());
        for seen in recent.values() {
            if seen.is_end() || self.registry.has_ended(&seen.life) {
                continue;
            }
            let place = Cursor {
                order: seen.order,
                id: seen.id.clone(),
            };
            if after.is_none_or(|after| newest_first(after, &place) == Ordering::Less)
                && to.is_none_or(|to| newest_first(&place, to) != Ordering::Greater)
            {
                batch.push((place, seen.body.clone()));
            }
        }
        batch.sort_by(|(a, _), (b, _)| newest_first(a, b));
        batch
    }
}

/// Pages of several lists as one page.
pub(crate) fn merge(pages: Vec<Listing>, limit: usize) -> Listing {
    let mut more = pages.iter().any(|page| page.next.is_some());
    let mut items: Vec<Listed> = pages.into_iter().flat_map(|page| page.items).collect();
    items.sort_by(|a, b| newest_first(&a.place, &b.place));
    let mut ids = HashSet::new();
    items.retain(|item| ids.insert(item.place.id.clone()));
    more |= items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| last.place.clone());
    Listing { items, next }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for (order, id) in [(-3, "C.1"), (17, "C.1/F.2"), (0, "")] {
            let place = Cursor {
                order,
                id: id.to_owned(),
            };
            assert_eq!(read_place(&write_place(&place)).unwrap(), place);
        }
        assert!(read_place("next").is_err());
        assert!(read_place("x.C.1").is_err());
    }

    #[test]
    fn merged_pages_repeat_nothing_and_end_where_more_follows() {
        let page = |orders: &[i64], next: bool| {
            let item = |order: &i64| Listed {
                place: Cursor {
                    order: *order,
                    id: order.to_string(),
                },
                body: Value::Null,
            };
            let items: Vec<_> = orders.iter().map(item).collect();
            let next = items.last().filter(|_| next).map(|last| last.place.clone());
            Listing { items, next }
        };
        let orders = |listing: &Listing| -> Vec<i64> {
            listing.items.iter().map(|item| item.place.order).collect()
        };
        let merged = merge(vec![page(&[9, 7, 5], true), page(&[8, 7], false)], 3);
        assert_eq!(orders(&merged), [9, 8, 7]);
        assert_eq!(merged.next.unwrap().order, 7);
        let merged = merge(vec![page(&[9], false), page(&[9], false)], 3);
        assert_eq!((orders(&merged), merged.next), (vec![9], None));
    }
}
