//! Makes the Rust types of the agent's messages from `proto/`, without protoc.

use std::error::Error;

const PROTOS: [&str; 5] = [
    "proto/artifact.proto",
    "proto/query.proto",
    "proto/upload.proto",
    "proto/message.proto",
    "proto/envelope.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).open_files(PROTOS)?;
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
