//! Loads a folder of artifacts and compiles each one: `artifact_check FOLDER`.
//!
//! Prints what is wrong with file, line and column, and how long it took. Tools count as ready,
//! with a hash of zeros, since nothing is fetched here.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nublar_core::artifact::{
    Collect, Compiler, Definition, Kind, Repository, Table, Tool, Tools, Wanted, load,
};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args()
        .nth(1)
        .ok_or("usage: artifact_check FOLDER")?;
    let mut files = Vec::new();
    find(Path::new(&folder), &mut files)?;
    files.sort();
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| Ok((file.display().to_string(), fs::read_to_string(file)?)))
        .collect::<Result<_, std::io::Error>>()?;

    let start = Instant::now();
    let (mut definitions, mut refused, mut warnings) = (Vec::new(), 0, 0);
    for (file, text) in &texts {
        match load(file, text) {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    println!("warning: {warning}");
                }
                warnings += loaded.warnings.len();
                definitions.push(loaded.definition);
            }
            Err(error) => {
                println!("refused: {error}");
                refused += 1;
            }
        }
    }
    let took = start.elapsed();
    println!(
        "{} files, {} loaded, {refused} refused, {warnings} warnings, {took:?}",
        texts.len(),
        definitions.len()
    );
    compile(&definitions);
    if refused > 0 {
        return Err("some files were refused".into());
    }
    Ok(())
}

fn compile(definitions: &[Definition]) {
    let mut repository = Repository::empty();
    repository.extend(definitions.iter().cloned());
    let tools = ready(definitions);
    let compiler = Compiler {
        repository: &repository,
        tools: &tools,
        server_metadata: &BTreeMap::new(),
    };
    let start = Instant::now();
    let mut counts: BTreeMap<Kind, (usize, usize, usize)> = BTreeMap::new();
    for definition in definitions {
        let artifacts = vec![Wanted::new(&definition.name)];
        let compiled = match definition.kind {
            Kind::Client => {
                let collect = Collect {
                    artifacts,
                    ..Collect::default()
                };
                compiler.compile(&collect).map(|done| done.bytes.len())
            }
            Kind::ClientEvent => compiler
                .compile_table(&Table { artifacts })
                .map(|done| done.events.len()),
            _ => continue,
        };
        let (tried, good, most) = counts.entry(definition.kind).or_default();
        *tried += 1;
        match compiled {
            Ok(size) => {
                *good += 1;
                *most = size.max(*most);
            }
            Err(error) => println!("not compiled: {error}"),
        }
    }
    let took = start.elapsed();
    for (kind, (tried, good, most)) in counts {
        println!("{kind}: {good} of {tried} compiled, the largest {most}");
    }
    println!("compiled in {took:?}");
}

fn ready(definitions: &[Definition]) -> Tools {
    let mut tools = Tools::default();
    for tool in definitions.iter().flat_map(|definition| &definition.tools) {
        let ready = Tool {
            hash: "0".repeat(64),
            filename: tool.name.clone(),
            urls: vec![tool.url.clone()],
            path: String::new(),
        };
        tools.insert(&tool.name, &tool.version, ready);
    }
    tools
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), std::io::Error> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml")
        {
            files.push(path);
        }
    }
    Ok(())
}
