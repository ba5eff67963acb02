//! What is built in loads, compiles and says enough.

use std::collections::BTreeMap;
use std::path::Path;

use nublar_vql::{TokenKind, lex};

use crate::artifact::{Collect, Compiler, Kind, Repository, Table, Tools, Wanted, builtin, load};

#[test]
fn the_list_holds_every_file_of_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    let listed: Vec<&str> = builtin::FILES.iter().map(|(file, _)| *file).collect();
    assert_eq!(listed, found);
}

#[test]
fn each_loads_without_a_warning_under_the_name_of_its_file() {
    for (file, text) in builtin::FILES {
        let loaded = load(file, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{file}");
        assert_eq!(format!("{}.yaml", loaded.definition.name), *file);
        assert!(!loaded.definition.description.trim().is_empty(), "{file}");
        for parameter in &loaded.definition.parameters {
            assert!(
                !parameter.description.is_empty(),
                "{file}: {}",
                parameter.name
            );
        }
    }
}

#[test]
fn each_compiles_to_vql_without_comments() {
    let repository = Repository::builtin();
    let (tools, server_metadata) = (Tools::default(), BTreeMap::new());
    let compiler = Compiler {
        repository: &repository,
        tools: &tools,
        server_metadata: &server_metadata,
    };
    for entry in repository.list() {
        let artifacts = vec![Wanted::new(&entry.name)];
        let queries = match entry.kind {
            Kind::Client => {
                let collect = Collect {
                    artifacts,
                    ..Collect::default()
                };
                compiler
                    .compile(&collect)
                    .unwrap()
                    .request
                    .vql_client_actions
            }
            Kind::ClientEvent => compiler.compile_table(&Table { artifacts }).unwrap().events,
            other => panic!("{} is a {other} artifact", entry.name),
        };
        assert!(!queries.is_empty());
        for statement in queries.iter().flat_map(|query| &query.query) {
            let comment = |kind: TokenKind| kind == TokenKind::Comment;
            let tokens = lex(&statement.vql).tokens;
            assert!(
                !tokens.iter().any(|token| comment(token.kind)),
                "{}",
                statement.vql
            );
        }
    }
}

#[test]
fn shells_need_the_right_to_run_programs() {
    let repository = Repository::builtin();
    for (name, shell) in [
        ("Generic.Client.Info", false),
        ("Linux.Sys.BashShell", true),
        ("Windows.System.CmdShell", true),
        ("Windows.System.PowerShell", true),
    ] {
        assert_eq!(
            repository.get(name).unwrap().needs_execve(),
            shell,
            "{name}"
        );
    }
}
