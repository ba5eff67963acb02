//! Released schemas never change, and every version can read every other of its record.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema_compatibility::SchemaCompatibility;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/avro"))
}

/// (record, version) → schema, from the files.
fn released() -> BTreeMap<(String, u32), Schema> {
    let mut schemas = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(stem) = name.strip_suffix(".avsc") else {
            continue;
        };
        let (record, version) = stem.rsplit_once(".v").expect("<record>.v<number>.avsc");
        let schema = Schema::parse_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        schemas.insert((record.to_owned(), version.parse().unwrap()), schema);
    }
    schemas
}

#[test]
fn every_version_reads_every_other_of_its_record() {
    let schemas = released();
    assert!(!schemas.is_empty());
    for ((record, version), schema) in &schemas {
        for ((other_record, other_version), other) in &schemas {
            if record == other_record {
                SchemaCompatibility::can_read(schema, other).unwrap_or_else(|e| {
                    panic!("{record}: v{other_version} cannot read what v{version} wrote: {e}")
                });
            }
        }
    }
}

#[test]
fn a_released_schema_keeps_its_fingerprint() {
    let found: String = released()
        .iter()
        .map(|((record, version), schema)| {
            let bytes = schema.fingerprint::<Rabin>().bytes;
            let fingerprint = u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap());
            format!("{record}.v{version} {fingerprint:016x}\n")
        })
        .collect();
    let pinned = std::fs::read_to_string(folder().join("fingerprints.txt")).unwrap_or_default();
    assert_eq!(
        found, pinned,
        "avro/fingerprints.txt is the list of released schemas: add new versions, never change a line"
    );
}
