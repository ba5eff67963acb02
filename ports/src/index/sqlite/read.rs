//! Reading documents: by id, as pages, as a count. All inside one snapshot.
//!
//! A page is found in two steps, the places first and the documents after: places come from the
//! tables' indices alone, so a list over many buckets reads no body in vain.

use super::schema::{CLIENT_WORDS, buckets, table};
use crate::index::{Bucket, Collection, Cursor, Document, Page, Query};
use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

const COLUMNS: &str = "id, client, flow, source, ord, text, hashes, version, size";

/// One document by id.
pub(super) fn get(
    connection: &Connection,
    collection: Collection,
    org: &str,
    bucket: Option<Bucket>,
    id: &str,
) -> rusqlite::Result<Option<Document>> {
    let Some(table) = tables(connection, collection, Some(bucket))?.pop() else {
        return Ok(None);
    };
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, body FROM {} WHERE org = ?1 AND id = ?2",
            table.name
        ))?
        .query_row((org, id), |row| document(row, bucket))
        .optional()
}

/// A page.
pub(super) fn query(
    connection: &Connection,
    collection: Collection,
    org: &str,
    query: &Query,
) -> rusqlite::Result<Page> {
    if query.limit == 0 {
        return Ok(Page {
            documents: Vec::new(),
            next: None,
        });
    }
    let tables = tables(connection, collection, query.bucket.map(Some))?;
    let wanted = query.limit.saturating_add(1);
    let mut places = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let mut conditions = Conditions::of(collection, org, query);
        conditions.after(query);
        let direction = if query.descending { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT ord, id, number FROM {} {} WHERE {} \
             ORDER BY ord {direction}, id {direction} LIMIT {}",
            table.name,
            by_client(&table.name, query),
            conditions.sql,
            i64::try_from(wanted).unwrap_or(i64::MAX)
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(conditions.values))?;
        while let Some(row) = rows.next()? {
            places.push(Place {
                order: row.get(0)?,
                id: row.get(1)?,
                table: at,
                number: row.get(2)?,
            });
        }
    }
    if tables.len() > 1 {
        places.sort_by(|a, b| query.compare((a.order, &a.id), (b.order, &b.id)));
    }
    let more = places.len() > query.limit;
    places.truncate(query.limit);
    let next = places.last().filter(|_| more).map(|last| Cursor {
        order: last.order,
        id: last.id.clone(),
    });
    let body = if query.without_bodies { "x''" } else { "body" };
    let documents = places
        .iter()
        .map(|place| {
            let table = &tables[place.table];
            connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS}, {body} FROM {} WHERE number = ?1",
                    table.name
                ))?
                .query_row([place.number], |row| document(row, table.bucket))
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(Page { documents, next })
}

/// The documents of one client are few among all: to sort them costs less than to pass over all
/// others in order, which is what would be done otherwise.
fn by_client(table: &str, query: &Query) -> String {
    if query.client.is_some() && query.flow.is_none() {
        format!("INDEXED BY {table}_list")
    } else {
        String::new()
    }
}

/// How many documents match.
pub(super) fn count(
    connection: &Connection,
    collection: Collection,
    org: &str,
    query: &Query,
) -> rusqlite::Result<u64> {
    let mut sum = 0;
    for table in tables(connection, collection, query.bucket.map(Some))? {
        let conditions = Conditions::of(collection, org, query);
        let sql = format!(
            "SELECT count(*) FROM {} WHERE {}",
            table.name, conditions.sql
        );
        let matching: i64 = connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter(conditions.values), |row| row.get(0))?;
        sum += matching.unsigned_abs();
    }
    Ok(sum)
}

struct Place {
    order: i64,
    id: String,
    table: usize,
    number: i64,
}

struct Table {
    name: String,
    bucket: Option<Bucket>,
}

/// The tables to look at: that of one bucket (or of no bucket), or all of the collection.
fn tables(
    connection: &Connection,
    collection: Collection,
    only: Option<Option<Bucket>>,
) -> rusqlite::Result<Vec<Table>> {
    let existing = if collection.weekly() {
        buckets(connection, collection)?
            .into_iter()
            .map(Some)
            .collect()
    } else {
        vec![None]
    };
    Ok(existing
        .into_iter()
        .filter(|bucket| only.is_none_or(|only| only == *bucket))
        .map(|bucket| Table {
            name: table(collection, bucket),
            bucket,
        })
        .collect())
}

/// The conditions of a query as SQL and its values.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn of(collection: Collection, org: &str, query: &Query) -> Self {
        let mut conditions = Self {
            sql: "org = ?".into(),
            values: vec![Value::Text(org.into())],
        };
        for (column, wanted) in [
            ("client", &query.client),
            ("flow", &query.flow),
            ("source", &query.source),
        ] {
            if let Some(wanted) = wanted {
                conditions.and(&format!("{column} = ?"), [Value::Text(wanted.clone())]);
            }
        }
        if let Some((from, to)) = query.order {
            conditions.and(
                "ord >= ? AND ord < ?",
                [Value::Integer(from), Value::Integer(to)],
            );
        }
        conditions.words(collection, org, &query.words);
        conditions
    }

    /// A word of the text begins with `prefix` just when the text with a space before it holds a
    /// space and `prefix`. Clients' words are in a table of their own, to look at few of them.
    fn words(&mut self, collection: Collection, org: &str, words: &[String]) {
        for prefix in words {
            if prefix.contains(' ') {
                self.and("0", []);
            } else if !prefix.is_empty() {
                self.and(
                    "instr(' ' || text, ?) > 0",
                    [Value::Text(format!(" {prefix}"))],
                );
            }
        }
        let longest = words.iter().max_by_key(|word| word.len());
        if let Some(prefix) = longest.filter(|prefix| !prefix.is_empty())
            && collection == Collection::Clients
        {
            let from = prefix.as_bytes().to_vec();
            // No text holds the byte FF, so this is after every word with the prefix.
            let to = [prefix.as_bytes(), &[0xff]].concat();
            self.and(
                &format!(
                    "number IN (SELECT client FROM {CLIENT_WORDS} \
                     WHERE org = ? AND word >= ? AND word < ?)"
                ),
                [Value::Text(org.into()), Value::Blob(from), Value::Blob(to)],
            );
        }
    }

    fn after(&mut self, query: &Query) {
        if let Some(cursor) = &query.after {
            let sql = if query.descending {
                "(ord, id) < (?, ?)"
            } else {
                "(ord, id) > (?, ?)"
            };
            self.and(
                sql,
                [Value::Integer(cursor.order), Value::Text(cursor.id.clone())],
            );
        }
    }

    fn and<const N: usize>(&mut self, sql: &str, values: [Value; N]) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.extend(values);
    }
}

fn document(row: &Row<'_>, bucket: Option<Bucket>) -> rusqlite::Result<Document> {
    let hashes: Option<Vec<u8>> = row.get(6)?;
    let body: Vec<u8> = row.get(9)?;
    Ok(Document {
        id: row.get(0)?,
        bucket,
        client: row.get(1)?,
        flow: row.get(2)?,
        source: row.get(3)?,
        order: row.get(4)?,
        text: row.get(5)?,
        hashes: hashes
            .unwrap_or_default()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect(),
        version: row.get::<_, i64>(7)?.cast_unsigned(),
        size: row.get::<_, i64>(8)?.cast_unsigned(),
        body: Bytes::from(body),
    })
}
