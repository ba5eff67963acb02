//! What goes over a wire: the Avro records of the topics and the agents' protobuf messages.
//!
//! No IO and no logic: types, their encodings and the catalogue of [`topics`].
//!
//! ```
//! use nublar_schemas::records::{Header, Scheduling, Tick};
//!
//! let tick = Scheduling::from(Tick { header: Header::default(), epoch: 1, elapsed_ms: 5_000, wall_us: 0 });
//! let bytes = tick.encode()?;
//! assert_eq!(Scheduling::decode(&bytes)?, tick);
//! # Ok::<(), nublar_schemas::codec::CodecError>(())
//! ```

pub mod agent;
pub mod codec;
pub mod records;
pub mod topics;
