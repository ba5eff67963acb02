//! Artifacts: what people write in YAML and VQL, and how it becomes requests that agents run.
//!
//! [`load`] reads a definition and says what is wrong with it by file, line and key; a
//! [`Repository`] is a named set of definitions, the built-in ones below those people add; a
//! [`Compiler`] turns a wish into a request. All of it is pure: the same
//! input gives the same bytes.

mod builtin;
mod closure;
mod collect;
mod compile;
mod definition;
mod error;
mod load;
mod names;
mod parameters;
mod problem;
mod query;
mod reader;
mod repair;
mod repository;
mod tools;
mod types;
mod yaml;

#[cfg(test)]
mod tests;

pub use collect::{ArtifactLimits, Collect, Compression, Limits, Table, Wanted};
pub use compile::{Compiled, CompiledTable, Compiler};
pub use definition::{
    Cell, Column, Definition, Kind, Metadata, Parameter, Query, Resources, Source, ToolDefinition,
};
pub use error::CompileError;
pub use load::{Loaded, load};
pub use problem::{LoadError, Problem};
pub use repository::{Entry, Origin, Repository};
pub use tools::{Tool, Tools};
