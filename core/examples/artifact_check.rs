//! Loads a folder of artifacts, compiles each one, and prints and reads back all their VQL:
//! `artifact_check FOLDER`.
//!
//! Prints what is wrong with file, line and column, and how long it took; fails if anything is.
//! Tools count as ready, with the hash that is expected or zeros, since nothing is fetched here.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nublar_core::artifact::{
    Collect, Compiler, Definition, Kind, Query, Repository, Table, Tool, Tools, Wanted, load,
};
use nublar_vql::{format, parse};

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
    let failed = refused + compile(&definitions) + read_back(&definitions);
    if failed > 0 {
        return Err(format!("{failed} failures").into());
    }
    Ok(())
}

/// Compiles what agents run; returns how many failed.
fn compile(definitions: &[Definition]) -> usize {
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
    let mut silent = 0;
    for definition in definitions {
        if !matches!(definition.kind, Kind::Client | Kind::ClientEvent) {
            continue;
        }
        if definition.sources.is_empty() {
            silent += 1;
            continue;
        }
        let artifacts = vec![Wanted::new(&definition.name)];
        let compiled = if definition.kind == Kind::ClientEvent {
            compiler
                .compile_table(&Table { artifacts })
                .map(|done| done.events.len())
        } else {
            let collect = Collect {
                artifacts,
                ..Collect::default()
            };
            compiler.compile(&collect).map(|done| done.bytes.len())
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
    let mut failed = 0;
    for (kind, (tried, good, most)) in counts {
        println!("{kind}: {good} of {tried} compiled, the largest {most}");
        failed += tried - good;
    }
    println!("{silent} have no sources: nothing to compile; compiled in {took:?}");
    failed
}

/// Prints every query and reads it again: it must be the same tree, and print the same. Returns how
/// many failed.
fn read_back(definitions: &[Definition]) -> usize {
    let start = Instant::now();
    let (mut tried, mut statements, mut failed) = (0, 0, 0);
    for definition in definitions {
        let sources = definition.sources.iter();
        let of_sources = sources.flat_map(|source| [&source.precondition, &source.query]);
        let queries = [&definition.precondition, &definition.export];
        let said = queries.into_iter().chain(of_sources);
        for query in said.filter(|query| !query.is_empty()) {
            tried += 1;
            statements += query.statements.len();
            if let Err(what) = comes_back(query) {
                println!("not read back: {}: {what}", definition.name);
                failed += 1;
            }
        }
    }
    let took = start.elapsed();
    println!(
        "{} of {tried} queries, {statements} statements, print and read back as the same tree, {took:?}",
        tried - failed
    );
    failed
}

fn comes_back(query: &Query) -> Result<(), String> {
    let tree = parse(&query.text())
        .into_result()
        .map_err(|error| format!("not read: {error}"))?;
    if tree.statements.len() != query.statements.len() {
        return Err(format!(
            "{} statements are read as {}",
            query.statements.len(),
            tree.statements.len()
        ));
    }
    let printed = format(&tree);
    let again = parse(&printed)
        .into_result()
        .map_err(|error| format!("its print is not read: {error}\n{printed}"))?;
    if again != tree {
        return Err(format!("it prints as another tree\n{printed}"));
    }
    if format(&again) != printed {
        return Err(format!("it prints in two ways\n{printed}"));
    }
    Ok(())
}

fn ready(definitions: &[Definition]) -> Tools {
    let mut tools = Tools::default();
    for tool in definitions.iter().flat_map(|definition| &definition.tools) {
        let is_known = tools.get(&tool.name, &tool.version).is_some();
        let hash = match tool.expected_hash.as_str() {
            "" if is_known => continue,
            "" => "0".repeat(64),
            expected => expected.to_owned(),
        };
        let ready = Tool {
            hash,
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
