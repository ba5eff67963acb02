//! The file: how it is opened, which tables it has, which version of them.
//!
//! A collection is one table, a weekly one a table for each bucket, made by the first document
//! and listed in `buckets` in the same transaction. Rows are kept in the order in which they
//! came, bodies last, so that lists and searches read none of them.

use super::failure::index_error;
use crate::index::{Bucket, Collection, IndexError};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Version of the tables, in `user_version`.
const VERSION: i64 = 1;
/// "Nubl", in `application_id`.
const APPLICATION: i64 = 0x4e75_626c;
/// Pages of the log beside the file (16 MiB of them) that are moved into the file at once.
const CHECKPOINT_PAGES: u32 = 4096;
/// Words of clients' texts, to find clients by the beginning of a word.
pub(super) const CLIENT_WORDS: &str = "clients_words";

/// Opens the file for writing, makes it when it is not there, checks its version.
pub(super) fn open_writer(path: &Path) -> Result<Connection, IndexError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(index_error)?;
    settle(&connection, 64).map_err(index_error)?;
    let version: i64 = read(&connection, "user_version")?;
    let application: i64 = read(&connection, "application_id")?;
    if application != APPLICATION && !is_empty(&connection)? {
        return Err(IndexError::Refused(format!(
            "{} is an SQLite file, but no index of nublar: name another file",
            path.display()
        )));
    }
    if version > VERSION {
        return Err(IndexError::Refused(format!(
            "{} has schema version {version}, this release knows versions up to {VERSION}: start \
             the release that wrote it, or a newer one",
            path.display()
        )));
    }
    connection
        .pragma_update(None, "journal_mode", "wal")
        .and_then(|()| connection.pragma_update(None, "synchronous", "full"))
        .and_then(|()| connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES))
        .and_then(|()| connection.pragma_update(None, "cache_size", -32 * 1024))
        .map_err(index_error)?;
    if version < VERSION {
        make_tables(&mut connection).map_err(index_error)?;
    }
    Ok(connection)
}

/// Opens the file for reading.
pub(super) fn open_reader(path: &Path) -> Result<Connection, IndexError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(index_error)?;
    settle(&connection, 256).map_err(index_error)?;
    Ok(connection)
}

fn settle(connection: &Connection, statements: usize) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(statements);
    connection.busy_timeout(Duration::from_secs(10))?;
    // Sorting never needs room on the disk.
    connection.pragma_update(None, "temp_store", "memory")
}

fn read(connection: &Connection, pragma: &str) -> Result<i64, IndexError> {
    connection
        .pragma_query_value(None, pragma, |row| row.get(0))
        .map_err(index_error)
}

fn is_empty(connection: &Connection) -> Result<bool, IndexError> {
    connection
        .query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })
        .map_err(index_error)
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS buckets (
             collection TEXT NOT NULL, bucket INTEGER NOT NULL, PRIMARY KEY (collection, bucket)
         ) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS {CLIENT_WORDS} (
             org TEXT NOT NULL, word BLOB NOT NULL, client INTEGER NOT NULL,
             PRIMARY KEY (org, word, client)
         ) WITHOUT ROWID;"
    ))?;
    for collection in Collection::ALL.into_iter().filter(|c| !c.weekly()) {
        transaction.execute_batch(&table_sql(collection, None))?;
    }
    // Last, so that a file with a version has its tables.
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Makes the table of a bucket and lists it.
pub(super) fn make_bucket(
    connection: &Connection,
    collection: Collection,
    bucket: Bucket,
) -> rusqlite::Result<()> {
    connection.execute_batch(&table_sql(collection, Some(bucket)))?;
    connection
        .prepare_cached("INSERT OR IGNORE INTO buckets (collection, bucket) VALUES (?1, ?2)")?
        .execute((collection.name(), bucket_number(bucket)))?;
    Ok(())
}

/// Drops the table of a bucket.
pub(super) fn drop_bucket(
    connection: &mut Connection,
    collection: Collection,
    bucket: Bucket,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute(
        "DELETE FROM buckets WHERE collection = ?1 AND bucket = ?2",
        (collection.name(), bucket_number(bucket)),
    )?;
    transaction.execute_batch(&format!(
        "DROP TABLE IF EXISTS {}",
        table(collection, Some(bucket))
    ))?;
    transaction.commit()
}

/// The buckets of a weekly collection, oldest first, the undated one at the end.
pub(super) fn buckets(
    connection: &Connection,
    collection: Collection,
) -> rusqlite::Result<Vec<Bucket>> {
    let mut statement = connection
        .prepare_cached("SELECT bucket FROM buckets WHERE collection = ?1 ORDER BY bucket")?;
    let mut buckets = statement
        .query_map([collection.name()], |row| row.get(0).map(bucket_of_number))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    buckets.sort();
    Ok(buckets)
}

fn bucket_number(bucket: Bucket) -> i64 {
    match bucket {
        Bucket::Week(week) => i64::from(week),
        Bucket::Undated => -1,
    }
}

fn bucket_of_number(number: i64) -> Bucket {
    u32::try_from(number).map_or(Bucket::Undated, Bucket::Week)
}

/// The table of a collection, or of a bucket of one.
pub(super) fn table(collection: Collection, bucket: Option<Bucket>) -> String {
    let name = collection.name().replace('-', "_");
    match bucket {
        None => name,
        Some(Bucket::Week(week)) => format!("{name}_week_{week}"),
        Some(Bucket::Undated) => format!("{name}_undated"),
    }
}

fn table_sql(collection: Collection, bucket: Option<Bucket>) -> String {
    let table = table(collection, bucket);
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (
             number INTEGER PRIMARY KEY,
             org TEXT NOT NULL, id TEXT NOT NULL,
             client TEXT NOT NULL, flow TEXT NOT NULL, source TEXT NOT NULL,
             ord INTEGER NOT NULL, text TEXT NOT NULL, hashes BLOB,
             version INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL,
             UNIQUE (org, id)
         );
         CREATE INDEX IF NOT EXISTS {table}_list ON {table} (org, client, flow, source, ord, id);
         CREATE INDEX IF NOT EXISTS {table}_flow ON {table} (org, client, flow, ord, id);
         CREATE INDEX IF NOT EXISTS {table}_order ON {table} (org, ord, id);"
    )
}
