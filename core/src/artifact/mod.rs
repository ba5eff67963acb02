//! Artifacts: what people write in YAML and VQL, and how it becomes requests that agents run.
//!
//! [`load`] reads a definition and says what is wrong with it by file, line and key; a [`Pack`]
//! is many of them at once; a [`Repository`] is a named set of definitions, the built-in ones below
//! those people add; a [`Compiler`] turns a wish into a request. All of it is pure: the same input
//! gives the same bytes.

mod archive;
mod builtin;
mod closure;
mod collect;
mod compile;
mod definition;
mod error;
mod load;
mod names;
mod pack;
mod parameters;
mod problem;
mod query;
mod readable;
mod reader;
mod repair;
mod repository;
mod tools;
mod types;
mod yaml;

#[cfg(test)]
mod tests;

pub use archive::{ArchiveError, MOST_ARCHIVE, MOST_PACK, is_archive, is_artifact_file, unpack};
pub use collect::{ArtifactLimits, Collect, Compression, Limits, Table, Wanted};
pub use compile::{Compiled, CompiledTable, Compiler};
pub use definition::{
    Cell, Column, Definition, Kind, Metadata, Parameter, Query, Resources, Source, ToolDefinition,
};
pub use error::CompileError;
pub use load::{Loaded, load};
pub use pack::{Pack, PackFile, Taken, shortcoming};
pub use parameters::MASK;
pub use problem::{LoadError, Problem};
pub use readable::{readable_request, readable_table};
pub use repository::{Entry, Origin, Repository};
pub use tools::{Tool, Tools, file_name, is_http};
