//! From a wish to the request.

use std::collections::BTreeMap;

use nublar_schemas::agent::{FlowRequest, VqlCollectorArgs};
use prost::Message;

use super::repository;
use crate::artifact::{
    ArtifactLimits, Collect, CompileError, Compiled, Compiler, Compression, Limits, MASK,
    Repository, Table, Tool, Tools, Wanted, readable_request,
};

fn compile(repository: &Repository, collect: &Collect) -> Result<Compiled, CompileError> {
    let (tools, server_metadata) = (Tools::default(), BTreeMap::new());
    let compiler = Compiler {
        repository,
        tools: &tools,
        server_metadata: &server_metadata,
    };
    compiler.compile(collect)
}

fn wish(artifacts: impl IntoIterator<Item = Wanted>) -> Collect {
    Collect {
        artifacts: artifacts.into_iter().collect(),
        ..Collect::default()
    }
}

fn one(repository: &Repository, wanted: Wanted) -> Compiled {
    compile(repository, &wish([wanted])).unwrap()
}

fn refused(repository: &Repository, wanted: Wanted) -> String {
    compile(repository, &wish([wanted]))
        .unwrap_err()
        .to_string()
}

fn statements(query: &VqlCollectorArgs) -> Vec<(&str, &str)> {
    let statements = query.query.iter();
    statements
        .map(|statement| (statement.vql.as_str(), statement.name.as_str()))
        .collect()
}

fn variables(query: &VqlCollectorArgs) -> Vec<(&str, &str)> {
    let variables = query.env.iter();
    variables
        .map(|variable| (variable.key.as_str(), variable.value.as_str()))
        .collect()
}

const TYPED: &str = "
name: A.Typed
imports: [A.Lib]
export: LET Own = 1
parameters:
  - {name: N, type: int, default: 3}
  - {name: Text, default: hello}
precondition: SELECT OS FROM info() WHERE N
sources:
  - name: One
    query: |
      LET Shared = Own  -- for both
      SELECT Shared FROM scope()
  - query: SELECT Lib, Shared FROM scope()
";

const LIB: &str = "
name: A.Lib
export: |
  LET Lib = 2
  LET More = 3
";

#[test]
fn statements_come_in_order_and_the_last_of_a_source_is_named() {
    let set = repository(&[TYPED, LIB]);
    let compiled = one(
        &set,
        Wanted::new("A.Typed").with("N", "7").with("EXTRA", "x"),
    );
    let [query] = compiled.request.vql_client_actions.as_slice() else {
        panic!("{} queries", compiled.queries);
    };
    let expected = [
        ("LET N <= int(int=N)", ""),
        ("LET Own = 1", ""),
        ("LET Lib = 2", ""),
        ("LET More = 3", ""),
        ("LET Shared = Own", ""),
        ("SELECT Shared FROM scope()", "A.Typed/One"),
        ("SELECT Lib, Shared FROM scope()", "A.Typed"),
    ];
    assert_eq!(statements(query), expected);
    assert_eq!(
        variables(query),
        [("N", "7"), ("Text", "hello"), ("EXTRA", "x")]
    );
    assert_eq!(
        query.precondition,
        "LET N <= int(int=N)\n\nSELECT OS FROM info() WHERE N"
    );
    assert_eq!(
        (query.query_id, query.total_queries, query.max_row),
        (1, 1, 1000)
    );
    assert!(query.artifacts.is_empty());
    assert_eq!(compiled.artifacts, ["A.Typed"]);
    assert_eq!(compiled.results, ["A.Typed/One", "A.Typed"]);
    assert_eq!(compiled.spec["artifacts"][0]["parameters"]["N"], "7");
}

#[test]
fn the_request_says_how_the_agent_reports() {
    let set = repository(&[TYPED, LIB]);
    let compiled = one(&set, Wanted::new("A.Typed"));
    let request = &compiled.request;
    assert_eq!((request.log_batch_time, request.flow_update_time), (5, 5));
    assert_eq!((request.max_rows, request.max_upload_bytes), (0, 1 << 30));
    assert_eq!(request.compression, 1);
    assert_eq!(
        FlowRequest::decode(compiled.bytes.clone()).unwrap(),
        *request
    );
    let again = one(&set, Wanted::new("A.Typed"));
    assert_eq!(again.bytes, compiled.bytes);
    let mut plain = wish([Wanted::new("A.Typed")]);
    plain.compression = Compression::None;
    plain.urgent = true;
    let plain = compile(&set, &plain).unwrap();
    assert_eq!(plain.request.compression, 0);
    assert!(plain.urgent && !compiled.urgent);
}

#[test]
fn preconditions_of_sources_split_an_artifact() {
    let set = repository(&["
name: A
sources:
  - name: L
    precondition: SELECT OS FROM info() WHERE OS = 'linux'
    query: SELECT 1 FROM scope()
  - name: Any
    query: SELECT 2 FROM scope()
  - name: Empty
"]);
    let compiled = one(&set, Wanted::new("A"));
    let queries = &compiled.request.vql_client_actions;
    assert_eq!(compiled.queries, 2);
    assert_eq!(statements(&queries[0]), [("SELECT 1 FROM scope()", "A/L")]);
    assert_eq!(
        queries[0].precondition,
        "SELECT OS FROM info() WHERE OS = 'linux'"
    );
    assert_eq!(
        statements(&queries[1]),
        [("SELECT 2 FROM scope()", "A/Any")]
    );
    assert_eq!(queries[1].precondition, "");
    assert_eq!((queries[1].query_id, queries[1].total_queries), (2, 2));
    let source = one(&set, Wanted::new("A/Any"));
    assert_eq!(source.results, ["A/Any"]);
    assert_eq!(
        refused(&set, Wanted::new("A/Ann")),
        "A has no source Ann: did you mean Any"
    );
}

#[test]
fn what_is_called_is_sent_along_stripped() {
    let called = "
name: B.Called
description: Not sent.
imports: [B.Lib]
parameters:
  - {name: X, type: bool, default: Y, description: Not sent}
tools: [{name: T}]
sources:
  - name: S
    query: |
      LET y = X
      SELECT * FROM Artifact.B.Deep(z=y) -- Not sent.
  - query: SELECT 1 FROM scope()
";
    let set = repository(&[
        "name: A\nsources: [{query: SELECT * FROM Artifact.B.Called()}]\n",
        called,
        "name: B.Lib\nexport: LET Q = SELECT * FROM Artifact.B.More()\nsources: \
         [{query: SELECT * FROM Artifact.Nobodys.Own()}]\n",
        "name: B.Deep\nrequired_permissions: [EXECVE]\nsources: \
         [{query: SELECT * FROM Artifact.B.Called()}]\n",
        "name: B.More\ntype: CLIENT\n",
        "name: B.Unused\n",
    ]);
    let mut tools = Tools::default();
    let tool = Tool {
        hash: "ab".to_owned(),
        filename: "t.exe".to_owned(),
        urls: vec!["https://s/t".to_owned()],
        path: String::new(),
    };
    tools.insert("T", "", tool);
    let compiler = Compiler {
        repository: &set,
        tools: &tools,
        server_metadata: &BTreeMap::new(),
    };
    let compiled = compiler.compile(&wish([Wanted::new("A")])).unwrap();
    let sent = &compiled.request.vql_client_actions[0].artifacts;
    let names: Vec<&str> = sent.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["B.Called", "B.Deep", "B.Lib", "B.More"]);
    assert!(compiled.execve);
    let called = &sent[0];
    assert_eq!(
        (called.r#type.as_str(), called.description.as_str()),
        ("client", "")
    );
    assert_eq!(called.imports, ["B.Lib"]);
    let parameters: Vec<[&str; 4]> = called
        .parameters
        .iter()
        .map(|p| [p.name.as_str(), &p.r#type, &p.default, &p.description])
        .collect();
    let expected = [
        ["X", "bool", "Y", ""],
        ["Tool_T_HASH", "", "ab", ""],
        ["Tool_T_FILENAME", "", "t.exe", ""],
        ["Tool_T_URL", "", "https://s/t", ""],
        ["Tool_T_URLs", "", "[\"https://s/t\"]", ""],
    ];
    assert_eq!(parameters, expected);
    assert_eq!(called.sources[0].name, "S");
    assert_eq!(
        called.sources[0].queries,
        ["LET y = X", "SELECT * FROM Artifact.B.Deep(z=y)"]
    );
    assert_eq!(sent[2].export, "LET Q = SELECT * FROM Artifact.B.More()");
}

#[test]
fn what_is_missing_is_named() {
    let set = repository(&[
        "name: Linux.Users\nsources: [{query: SELECT * FROM Artifact.Linux.Groups()}]\n",
        "name: Linux.Group\nimports: [Nowhere]\nsources: [{query: SELECT 1 FROM scope()}]\n",
        "name: E\ntype: server\n",
        "name: Nothing\n",
        "name: T\ntools: [{name: X}]\nsources: [{query: SELECT 1 FROM scope()}]\n",
    ]);
    for (name, text) in [
        (
            "Linux.User",
            "unknown artifact Linux.User: did you mean Linux.Users",
        ),
        (
            "Linux.Users",
            "Linux.Users needs the artifact Linux.Groups, which is unknown: did you mean Linux.Group",
        ),
        (
            "Linux.Group",
            "Linux.Group needs the artifact Nowhere, which is unknown",
        ),
        (
            "E",
            "E is a server artifact: client artifacts only can be taken here",
        ),
        ("Nothing", "Nothing has no source: there is nothing to run"),
        (
            "T",
            "T needs the tool X, which is not here: add it with `nublar tools add X FILE`",
        ),
    ] {
        assert_eq!(refused(&set, Wanted::new(name)), text);
    }
    assert_eq!(compile(&set, &wish([])), Err(CompileError::NoArtifact));
}

/// An artifact with a tool of these keys.
fn needs(tool: &str) -> Repository {
    repository(&[&format!(
        "name: T\ntools: [{{name: X, {tool}}}]\nsources: [{{query: SELECT 1 FROM scope()}}]\n"
    )])
}

#[test]
fn a_tool_with_url_and_hash_is_fetched_from_there() {
    let hash = "0123456789ABCDEF".repeat(4);
    let url = "https://e.example/d/x.exe?v=1#top";
    let set = needs(&format!("url: '{url}', expected_hash: '{hash}'"));
    let compiled = compile(&set, &wish([Wanted::new("T")])).unwrap();
    let env = &compiled.request.vql_client_actions[0].env;
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|of| (of.key.as_str(), of.value.as_str()))
        .collect();
    // Agents compare small digits.
    let hash = hash.to_lowercase();
    let urls = format!("[\"{url}\"]");
    let expected = [
        ("Tool_X_HASH", hash.as_str()),
        ("Tool_X_FILENAME", "x.exe"),
        ("Tool_X_URL", url),
        ("Tool_X_URLs", &urls),
    ];
    assert_eq!(env, expected);
}

#[test]
fn a_tool_that_nobody_can_fetch_is_said_with_how_to_add_it() {
    let hash = "ab".repeat(32);
    let add = "add it with `nublar tools add X FILE`";
    let fetch = "fetch it with `nublar tools fetch X`, or";
    for (tool, said) in [
        ("url: 'https://e/x'", format!("whose hash is not known: {fetch} {add}")),
        (
            "url: 'https://e/x', expected_hash: ab12",
            format!("whose hash is not known: {fetch} {add}"),
        ),
        (
            &format!("url: 'https://e/x', expected_hash: {hash}, serve_locally: true"),
            format!("which is not here: {fetch} {add}"),
        ),
        (
            &format!("url: 'file:///x', expected_hash: {hash}"),
            format!("which is not here: {add}"),
        ),
        (
            "version: '2.1', url: 'https://e/x', serve_locally: true",
            "which is not here: fetch it with `nublar tools fetch X --version 2.1`, or add it with \
             `nublar tools add X FILE --version 2.1`"
                .to_owned(),
        ),
        (
            "github_project: a/b, github_asset_regex: 'x.+exe'",
            format!(
                "which is not here: {add}; it is in the releases of github.com/a/b, the file that matches x.+exe"
            ),
        ),
        (
            "github_project: a/b",
            format!("which is not here: {add}; it is in the releases of github.com/a/b"),
        ),
    ] {
        let text = refused(&needs(tool), Wanted::new("T"));
        assert_eq!(text, format!("T needs the tool X, {said}"), "{tool}");
    }
}

#[test]
fn values_are_checked_and_defaults_are_not() {
    let set = repository(&["
name: A
parameters:
  - {name: C, type: choices, choices: [red, green], default: none of them}
  - {name: M, type: multichoice, choices: [red, green]}
  - {name: R, validating_regex: '^[a-z]+$', default: '1'}
  - {name: L, validating_regex: '(?=a)'}
  - {name: Password, type: redacted}
sources: [{query: SELECT 1 FROM scope()}]
"]);
    let wanted = |name: &str, value: &str| Wanted::new("A").with(name, value);
    for (name, value) in [
        ("C", "red"),
        ("C", "none of them"),
        ("M", r#"["red","green"]"#),
        ("R", "abc"),
        ("R", "1"),
        ("L", "b"),
        ("Password", ""),
        ("ZIP_PASSWORDS2", "x"),
    ] {
        one(&set, wanted(name, value));
    }
    for (name, value, text) in [
        (
            "C",
            "gren",
            "A, parameter C: \"gren\" is none of the choices: did you mean green",
        ),
        (
            "C",
            "blue",
            "A, parameter C: \"blue\" is none of the choices: choose from red, green",
        ),
        (
            "M",
            r#"["red","blue"]"#,
            "A, parameter M: \"blue\" is none of the choices: choose from red, green",
        ),
        ("R", "2", "A, parameter R: \"2\" does not match ^[a-z]+$"),
    ] {
        assert_eq!(refused(&set, wanted(name, value)), text);
    }
}

#[test]
fn secrets_go_to_the_agent_and_are_masked_everywhere_else() {
    let set = repository(&[
        "
name: A
parameters:
  - {name: Password, type: redacted, validating_regex: '^[a-z]*$'}
  - {name: Preset, type: redacted, default: usual}
  - {name: Path}
sources: [{query: SELECT Password FROM scope()}]
",
        "
name: E
type: client_event
parameters: [{name: Password, type: redacted}]
sources: [{query: SELECT Password FROM clock()}]
",
    ]);
    let wanted = Wanted::new("A")
        .with("Password", "hunter")
        .with("Preset", "usual")
        .with("Path", "/");
    let compiled = one(&set, wanted.clone());
    assert_eq!(compiled.secrets, ["Password"]);
    assert_eq!(
        variables(&compiled.request.vql_client_actions[0]),
        [("Password", "hunter"), ("Preset", "usual"), ("Path", "/")]
    );
    let given = &compiled.spec["artifacts"][0]["parameters"];
    assert_eq!(given["Password"], MASK);
    assert_eq!(given["Path"], "/");
    assert!(!compiled.spec.to_string().contains("hunter"));
    assert!(!readable_request(&compiled).to_string().contains("hunter"));
    assert!(one(&set, Wanted::new("A")).secrets.is_empty());

    // Nothing repeats a secret, and no mask is taken for one.
    let text = refused(&set, Wanted::new("A").with("Password", "HUNTER"));
    assert!(
        text.contains("does not match") && !text.contains("HUNTER"),
        "{text}"
    );
    assert_eq!(
        refused(&set, wanted.with("Password", MASK)),
        "A, parameter Password: this is the mask of a secret: give it anew"
    );
    let (tools, server_metadata) = (Tools::default(), BTreeMap::new());
    let compiler = Compiler {
        repository: &set,
        tools: &tools,
        server_metadata: &server_metadata,
    };
    let artifacts = vec![Wanted::new("E").with("Password", "hunter")];
    let error = compiler.compile_table(&Table { artifacts }).unwrap_err();
    assert!(matches!(error, CompileError::Secret { .. }), "{error}");
    assert!(!error.to_string().contains("hunter"));
}

#[test]
fn parameters_that_nobody_declares_are_refused() {
    let set = repository(&[
        "
name: A
parameters: [{name: Path}, {name: Depth}]
sources: [{query: SELECT 1 FROM scope()}]
",
        "
name: B
parameters: [{name: Hash}]
sources: [{query: SELECT 1 FROM scope()}]
",
        "
name: None
sources: [{query: SELECT 1 FROM scope()}]
",
    ]);
    for (artifact, name, text) in [
        (
            "A",
            "Paht",
            "A: no parameter Paht: did you mean Path; it has Depth, Path",
        ),
        (
            "A",
            "path",
            "A: no parameter path: did you mean Path; it has Depth, Path",
        ),
        (
            "A",
            "Something",
            "A: no parameter Something; it has Depth, Path",
        ),
        ("A", "", "A: no parameter ; it has Depth, Path"),
        ("None", "x", "None: no parameter x; it has none"),
        ("A", "ÄRGER", "A: no parameter ÄRGER; it has Depth, Path"),
    ] {
        let wanted = Wanted::new(artifact).with(name, "x");
        assert_eq!(refused(&set, wanted), text);
    }
    let both = |name: &str| {
        let artifacts = ["A", "None", "B"].map(|artifact| Wanted::new(artifact).with(name, "x"));
        compile(&set, &wish(artifacts)).unwrap_err().to_string()
    };
    assert_eq!(
        both("Hsah"),
        "A, None, B: no parameter Hsah: did you mean Hash; they have Depth, Hash, Path"
    );
    let wanted = Wanted::new("A").with("Hash", "x");
    let text = "A: no parameter Hash; it has Depth, Path";
    assert_eq!(
        compile(&set, &wish([Wanted::new("B"), wanted]))
            .unwrap_err()
            .to_string(),
        text
    );
    let passed = one(&set, Wanted::new("A").with("NTFS_CACHE_TIME", "5"));
    assert_eq!(
        variables(&passed.request.vql_client_actions[0]),
        [("Path", ""), ("Depth", ""), ("NTFS_CACHE_TIME", "5")]
    );
}

#[test]
fn limits_of_artifacts_and_people_meet() {
    let set = repository(&[
        "name: A\nresources: {timeout: 60, max_rows: 10, cpu_limit: 20, ops_per_second: 5, \
         max_batch_rows: 7}\nsources: [{query: SELECT 1 FROM scope()}]\n",
        "name: B\nresources: {max_rows: 20, max_upload_bytes: 9}\nsources: \
         [{query: SELECT 1 FROM scope()}]\n",
    ]);
    let mut collect = wish([Wanted::new("A"), Wanted::new("B")]);
    let of = |collect: &Collect| {
        let request = compile(&set, collect).unwrap().request;
        let timeouts: Vec<u64> = request
            .vql_client_actions
            .iter()
            .map(|q| q.timeout)
            .collect();
        (timeouts, request.max_rows, request.max_upload_bytes)
    };
    assert_eq!(of(&collect), (vec![60, 0], 20, 9));
    collect.limits = Limits {
        timeout: Some(30),
        max_rows: Some(1),
        max_upload_bytes: Some(2),
        cpu_limit: Some(50.0),
        ..Limits::default()
    };
    assert_eq!(of(&collect), (vec![60, 30], 1, 2));
    collect.artifacts[0].limits = ArtifactLimits {
        timeout: Some(10),
        ..ArtifactLimits::default()
    };
    assert_eq!(of(&collect), (vec![10, 30], 1, 2));
    let query = &compile(&set, &collect).unwrap().request.vql_client_actions[0];
    assert_eq!(
        (query.cpu_limit, query.ops_per_second, query.max_row),
        (50.0, 5.0, 7)
    );
}

#[test]
fn rows_that_could_not_be_told_apart_are_refused() {
    let source = "  - query: SELECT 1 FROM scope()\n";
    let linux = "    precondition: SELECT OS FROM info() WHERE OS = 'linux'\n";
    let other = "    precondition: SELECT OS FROM info() WHERE OS != 'linux'\n";
    let both = format!("name: Both\nsources:\n{source}{source}");
    let same = format!("name: Same\nsources:\n{source}{linux}{source}{linux}");
    let half = format!("name: Half\nsources:\n{source}{linux}{source}");
    let choice = format!("name: Choice\nsources:\n{source}{linux}{source}{other}");
    let set = repository(&[&both, &same, &half, &choice]);
    for name in ["Both", "Same", "Half"] {
        let error = compile(&set, &wish([Wanted::new(name)])).unwrap_err();
        assert_eq!(
            error,
            CompileError::SameName {
                name: name.to_owned()
            }
        );
    }
    assert_eq!(one(&set, Wanted::new("Choice")).results, ["Choice"]);
    let twice = wish([Wanted::new("Choice"), Wanted::new("Choice").with("X", "1")]);
    assert!(matches!(
        compile(&set, &twice),
        Err(CompileError::SameName { .. })
    ));
}

#[test]
fn event_tables_have_one_query_for_each_source() {
    let set = repository(&[
        "
name: E
type: CLIENT_EVENT
precondition: SELECT OS FROM info()
parameters: [{name: Period, type: int, default: 10}]
sources:
  - {name: One, query: SELECT * FROM clock(period=Period)}
  - {name: Two, query: SELECT * FROM clock(period=Period)}
",
        "name: F\ntype: client_event\nresources: {max_batch_wait: 5}\nsources: \
         [{query: SELECT * FROM clock(), precondition: SELECT 1 FROM scope()}]\n",
    ]);
    let compiler = Compiler {
        repository: &set,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::new(),
    };
    let table = Table {
        artifacts: vec![Wanted::new("E").with("Period", "3"), Wanted::new("F")],
    };
    let compiled = compiler.compile_table(&table).unwrap();
    assert_eq!(compiled.results, ["E/One", "E/Two", "F"]);
    let waits: Vec<u64> = compiled.events.iter().map(|event| event.max_wait).collect();
    assert_eq!(waits, [120, 120, 5]);
    let precondition = "LET Period <= int(int=Period)\n\nSELECT OS FROM info()";
    assert_eq!(compiled.events[1].precondition, precondition);
    assert_eq!(variables(&compiled.events[1]), [("Period", "3")]);
    assert_eq!(compiled.events[2].precondition, "SELECT 1 FROM scope()");
    assert_eq!(
        (
            compiled.events[2].query_id,
            compiled.events[2].total_queries
        ),
        (3, 3)
    );
    let empty = compiler.compile_table(&Table::default()).unwrap();
    assert!(empty.events.is_empty());
    let error = compiler.compile(&wish([Wanted::new("F")])).unwrap_err();
    assert!(matches!(error, CompileError::WrongKind { .. }));
}

#[test]
fn server_metadata_fills_a_parameter() {
    let set = repository(&["
name: A
parameters: [{name: Key, type: server_metadata, default: d}, {name: Other, default: o}]
sources: [{query: SELECT 1 FROM scope()}]
"]);
    let names = ["Key", "Other"].map(|name| (name.to_owned(), "from the server".to_owned()));
    let compiler = Compiler {
        repository: &set,
        tools: &Tools::default(),
        server_metadata: &BTreeMap::from(names),
    };
    let compiled = compiler.compile(&wish([Wanted::new("A")])).unwrap();
    let query = &compiled.request.vql_client_actions[0];
    assert_eq!(
        variables(query),
        [("Key", "from the server"), ("Other", "o")]
    );
}

#[test]
fn a_wish_is_read_from_json() {
    let text =
        r#"{"artifacts": [{"name": "A", "parameters": {"N": "1"}}], "limits": {"timeout": 5}}"#;
    let collect: Collect = serde_json::from_str(text).unwrap();
    assert_eq!(collect.artifacts, [Wanted::new("A").with("N", "1")]);
    assert_eq!(collect.limits.timeout, Some(5));
    assert!(serde_json::from_str::<Collect>(r#"{"artifact": "A"}"#).is_err());
}
