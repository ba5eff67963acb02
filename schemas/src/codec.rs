//! Avro single-object encoding: `C3 01`, the writer schema's CRC-64-AVRO fingerprint, the datum.
//!
//! Every schema version that was ever released is compiled in, so a reader always finds the
//! writer's schema. A fingerprint that is not known comes from a newer program: the reader must
//! halt, never drop the record.

use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::{
    AvroSchema, Schema, SpecificSingleObjectReader, SpecificSingleObjectWriter, from_value,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value does not begin with the single-object marker.
    #[error("not a single-object Avro record: {0} bytes without the marker c301")]
    NotAvro(usize),
    /// Written by a program that knows newer schemas than this one.
    #[error(
        "unknown schema fingerprint {0:016x}: the record was written by a newer version, upgrade this process"
    )]
    UnknownFingerprint(u64),
    /// The datum does not fit its schema.
    #[error("damaged {record} record: {source}")]
    Damaged {
        /// Name of the record.
        record: &'static str,
        /// What Avro says.
        source: Box<apache_avro::Error>,
    },
}

const MARKER: [u8; 2] = [0xC3, 0x01];
const HEADER_LEN: usize = 10;

/// The fingerprint at the head of an encoded record.
pub fn fingerprint(encoded: &[u8]) -> Result<u64, CodecError> {
    match encoded.first_chunk::<HEADER_LEN>() {
        Some([m0, m1, fp @ ..]) if [*m0, *m1] == MARKER => Ok(u64::from_le_bytes(*fp)),
        _ => Err(CodecError::NotAvro(encoded.len())),
    }
}

/// A record of a topic: a Rust type with all the schemas it was ever written with.
pub trait Record: AvroSchema + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The record's name, as in its schema.
    const NAME: &'static str;

    /// Writer and readers of this record, built once.
    fn codec() -> &'static RecordCodec<Self>;

    /// Encodes with the newest schema.
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        Self::codec().encode(self)
    }

    /// Decodes a value written with any released schema of this record.
    fn decode(encoded: &[u8]) -> Result<Self, CodecError> {
        Self::codec().decode(encoded)
    }
}

/// Writer and readers of one record type.
pub struct RecordCodec<T: Record> {
    writer: SpecificSingleObjectWriter<T>,
    newest: u64,
    newest_schema: Schema,
    reader: SpecificSingleObjectReader<T>,
    older: Vec<(u64, Schema)>,
}

impl<T: Record> std::fmt::Debug for RecordCodec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordCodec({} {:016x})", T::NAME, self.newest)
    }
}

fn rabin(schema: &Schema) -> u64 {
    let bytes = schema.fingerprint::<Rabin>().bytes;
    bytes
        .first_chunk::<8>()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

impl<T: Record> RecordCodec<T> {
    /// Builds the codec from all released schemas, oldest first.
    pub(crate) fn new(versions: &[&str]) -> Result<Self, Box<apache_avro::Error>> {
        let mut schemas = versions
            .iter()
            .map(|text| Schema::parse_str(text))
            .collect::<Result<Vec<_>, _>>()?;
        let newest_schema = schemas.pop().unwrap_or_else(T::get_schema);
        Ok(Self {
            writer: SpecificSingleObjectWriter::new()?,
            newest: rabin(&newest_schema),
            newest_schema,
            reader: SpecificSingleObjectReader::new()?,
            older: schemas.into_iter().map(|s| (rabin(&s), s)).collect(),
        })
    }

    /// Whether this record was ever written with the schema of that fingerprint.
    pub fn knows(&self, fingerprint: u64) -> bool {
        fingerprint == self.newest || self.older.iter().any(|(known, _)| *known == fingerprint)
    }

    fn encode(&self, record: &T) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::with_capacity(256);
        self.writer
            .write_ref(record, &mut out)
            .map_err(damaged::<T>)?;
        Ok(out)
    }

    fn decode(&self, mut encoded: &[u8]) -> Result<T, CodecError> {
        let written_with = fingerprint(encoded)?;
        if written_with == self.newest {
            return self.reader.read(&mut encoded).map_err(damaged::<T>);
        }
        let Some((_, writer_schema)) = self.older.iter().find(|(fp, _)| *fp == written_with) else {
            return Err(CodecError::UnknownFingerprint(written_with));
        };
        let reader = GenericDatumReader::builder(writer_schema)
            .reader_schema(&self.newest_schema)
            .build()
            .map_err(damaged::<T>)?;
        let value = reader
            .read_value(&mut &encoded[HEADER_LEN..])
            .map_err(damaged::<T>)?;
        from_value(&value).map_err(damaged::<T>)
    }
}

fn damaged<T: Record>(source: apache_avro::Error) -> CodecError {
    CodecError::Damaged {
        record: T::NAME,
        source: Box::new(source),
    }
}

/// Declares a struct to be a [`Record`] with its released schemas, oldest first.
macro_rules! record {
    ($type:ident, $($file:literal),+) => {
        impl apache_avro::AvroSchema for $type {
            #[allow(clippy::expect_used)] // compiled-in text, parsed by a test
            fn get_schema() -> apache_avro::Schema {
                let versions = [$(include_str!(concat!("../../avro/", $file, ".avsc"))),+];
                apache_avro::Schema::parse_str(versions[versions.len() - 1])
                    .expect("compiled-in schema")
            }
        }

        impl $crate::codec::Record for $type {
            const NAME: &'static str = stringify!($type);

            #[allow(clippy::expect_used)] // compiled-in text, parsed by a test
            fn codec() -> &'static $crate::codec::RecordCodec<Self> {
                static CODEC: std::sync::LazyLock<$crate::codec::RecordCodec<$type>> =
                    std::sync::LazyLock::new(|| {
                        $crate::codec::RecordCodec::new(&[
                            $(include_str!(concat!("../../avro/", $file, ".avsc"))),+
                        ])
                        .expect("compiled-in schema")
                    });
                &CODEC
            }
        }
    };
}

/// Declares the union of records that one topic holds; the fingerprint tells which one it is.
macro_rules! topic_union {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)] // each variant is documented at its record
        pub enum $name {
            $($variant($variant)),+
        }

        impl $name {
            /// Encodes the record with its newest schema.
            pub fn encode(&self) -> Result<Vec<u8>, $crate::codec::CodecError> {
                match self {
                    $(Self::$variant(record) => $crate::codec::Record::encode(record)),+
                }
            }

            /// Decodes any record of this topic, whichever released schema it was written with.
            pub fn decode(encoded: &[u8]) -> Result<Self, $crate::codec::CodecError> {
                let written_with = $crate::codec::fingerprint(encoded)?;
                $(
                    if <$variant as $crate::codec::Record>::codec().knows(written_with) {
                        return <$variant as $crate::codec::Record>::decode(encoded).map(Self::$variant);
                    }
                )+
                Err($crate::codec::CodecError::UnknownFingerprint(written_with))
            }

            /// The record's header.
            pub fn header(&self) -> &$crate::records::Header {
                match self {
                    $(Self::$variant(record) => &record.header),+
                }
            }
        }

        $(
            impl From<$variant> for $name {
                fn from(record: $variant) -> Self {
                    Self::$variant(record)
                }
            }
        )+
    };
}

pub(crate) use {record, topic_union};
