//! Writing documents: what happens to each one inside a transaction.

use super::schema::{CLIENT_WORDS, table};
use crate::index::{Collection, Document, Outcome, Removal};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

/// How documents that exist are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Left as they are.
    Create,
    /// Replaced unless their version is higher.
    Put,
}

/// Writes one document whose table exists and that is no poison by the common rules.
pub(super) fn write(
    connection: &Connection,
    mode: Mode,
    collection: Collection,
    org: &str,
    document: &Document,
) -> rusqlite::Result<Outcome> {
    let written = match mode {
        Mode::Create => insert(connection, collection, org, document),
        Mode::Put => replace(connection, collection, org, document),
    };
    match written {
        Ok(true) => Ok(Outcome::Written),
        Ok(false) => Ok(Outcome::Exists),
        // The statement had no effect, the transaction goes on.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
            Ok(Outcome::Poison("document is too big for the index".into()))
        }
        Err(error) => Err(error),
    }
}

fn insert(
    connection: &Connection,
    collection: Collection,
    org: &str,
    document: &Document,
) -> rusqlite::Result<bool> {
    let table = table(collection, document.bucket);
    let added = connection
        .prepare_cached(&format!(
            "INSERT INTO {table}
                 (org, id, client, flow, source, ord, text, hashes, version, size, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (org, id) DO NOTHING"
        ))?
        .execute(params![
            org,
            document.id,
            document.client,
            document.flow,
            document.source,
            document.order,
            document.text,
            hashes_to_blob(&document.hashes),
            document.version.cast_signed(),
            document.size.cast_signed(),
            document.body.as_ref(),
        ])?
        > 0;
    if added && collection == Collection::Clients {
        add_words(
            connection,
            org,
            connection.last_insert_rowid(),
            &document.text,
        )?;
    }
    Ok(added)
}

fn replace(
    connection: &Connection,
    collection: Collection,
    org: &str,
    document: &Document,
) -> rusqlite::Result<bool> {
    let table = table(collection, document.bucket);
    let Some((number, version, text)) = find(connection, &table, org, &document.id)? else {
        return insert(connection, collection, org, document);
    };
    if version > document.version {
        return Ok(false);
    }
    connection
        .prepare_cached(&format!(
            "UPDATE {table} SET client = ?2, flow = ?3, source = ?4, ord = ?5, text = ?6,
                 hashes = ?7, version = ?8, size = ?9, body = ?10
             WHERE number = ?1"
        ))?
        .execute(params![
            number,
            document.client,
            document.flow,
            document.source,
            document.order,
            document.text,
            hashes_to_blob(&document.hashes),
            document.version.cast_signed(),
            document.size.cast_signed(),
            document.body.as_ref(),
        ])?;
    if collection == Collection::Clients && text != document.text {
        remove_words(connection, org, number, &text)?;
        add_words(connection, org, number, &document.text)?;
    }
    Ok(true)
}

/// Removes a document whose table exists.
pub(super) fn remove(
    connection: &Connection,
    collection: Collection,
    org: &str,
    removal: &Removal,
) -> rusqlite::Result<()> {
    let table = table(collection, removal.bucket);
    let Some((number, version, text)) = find(connection, &table, org, &removal.id)? else {
        return Ok(());
    };
    if collection.versioned() && version > removal.version {
        return Ok(());
    }
    connection
        .prepare_cached(&format!("DELETE FROM {table} WHERE number = ?1"))?
        .execute([number])?;
    if collection == Collection::Clients {
        remove_words(connection, org, number, &text)?;
    }
    Ok(())
}

/// The number, the version and the text of a document, if it is there.
fn find(
    connection: &Connection,
    table: &str,
    org: &str,
    id: &str,
) -> rusqlite::Result<Option<(i64, u64, String)>> {
    connection
        .prepare_cached(&format!(
            "SELECT number, version, text FROM {table} WHERE org = ?1 AND id = ?2"
        ))?
        .query_row((org, id), |row| {
            let version: i64 = row.get(1)?;
            Ok((row.get(0)?, version.cast_unsigned(), row.get(2)?))
        })
        .optional()
}

fn add_words(connection: &Connection, org: &str, client: i64, text: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "INSERT OR IGNORE INTO {CLIENT_WORDS} (org, word, client) VALUES (?1, ?2, ?3)"
    ))?;
    for word in words(text) {
        statement.execute((org, word.as_bytes(), client))?;
    }
    Ok(())
}

fn remove_words(
    connection: &Connection,
    org: &str,
    client: i64,
    text: &str,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "DELETE FROM {CLIENT_WORDS} WHERE org = ?1 AND word = ?2 AND client = ?3"
    ))?;
    for word in words(text) {
        statement.execute((org, word.as_bytes(), client))?;
    }
    Ok(())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

fn hashes_to_blob(hashes: &[u64]) -> Option<Vec<u8>> {
    if hashes.is_empty() {
        return None;
    }
    Some(hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect())
}
