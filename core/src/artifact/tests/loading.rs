//! From a file's text to a definition, or to what is wrong with it.

use proptest::prelude::*;

use super::{definition, findings, warnings};
use crate::artifact::{Kind, load};

const EVERYTHING: &str = r#"
name: Custom.Every.Key
aliases: [Custom.Other.Name]
description: |
  All of it.
author: Somebody
reference:
  - https://example.com/a
references:
  - https://example.com/b
type: Client_Event
parameters:
  - name: Count
    type: int
    default: 5
    description: How many.
    friendly_name: How many
  - name: Sure
    type: bool
    default: Y
  - name: Choice
    type: choices
    choices: [a, 2, true]
    default: a
    validating_regex: ^.$
  - name: Set
    type: artifactset
    artifact_type: CLIENT
    sources: yes
  - name: Nothing
    default:
imports:
  - Custom.Imported
export: |
  LET A = 1
tools:
  - name: Tool
    url: https://example.com/tool.exe
    serve_locally: true
    expected_hash: abcd
    github_project: a/b
    github_asset_regex: x.+
    version: 1.0
resources:
  timeout: 1_000
  max_rows: 1e6
  cpu_limit: 12.5
  max_batch_wait: "7"
required_permissions: [EXECVE]
implied_permissions: [NETWORK]
impersonate: admin
column_types:
  - name: When
    type: timestamp
reports:
  - type: CLIENT
    template: anything
metadata:
  hidden: true
  basic: true
  tags: [x]
sources:
  - name: First
    description: One.
    precondition: SELECT OS FROM info() WHERE OS = 'linux'
    query: |
      -- A comment.
      LET B <= A
      SELECT B FROM scope()
    notebook:
      - type: VQL_Suggestion
        name: Look
        template: SELECT * FROM source()
        env:
          - {key: a, value: 1}
  - name: Second
    queries:
      - LET C = 2
      - SELECT C
        FROM scope()
"#;

#[test]
fn every_key_is_read() {
    assert_eq!(warnings(EVERYTHING), [""; 0]);
    let read = definition(EVERYTHING);
    assert_eq!(read.name, "Custom.Every.Key");
    assert_eq!(read.kind, Kind::ClientEvent);
    assert_eq!(
        read.references,
        ["https://example.com/a", "https://example.com/b"]
    );
    let defaults: Vec<&str> = read.parameters.iter().map(|p| p.default.as_str()).collect();
    assert_eq!(defaults, ["5", "Y", "a", "", ""]);
    assert_eq!(read.parameters[2].choices, ["a", "2", "true"]);
    assert!(read.parameters[3].sources);
    assert_eq!(read.export.statements, ["LET A = 1"]);
    assert_eq!(read.tools[0].version, "1.0");
    assert_eq!(
        (read.resources.timeout, read.resources.max_rows),
        (1000, 1_000_000)
    );
    assert_eq!(read.resources.max_batch_wait, 7);
    assert!(read.needs_execve() && read.metadata.hidden && read.metadata.basic);
    assert_eq!(read.column_types[0].kind, "timestamp");
    let [first, second] = read.sources.as_slice() else {
        panic!("{} sources", read.sources.len());
    };
    assert_eq!(
        first.query.statements,
        ["LET B <= A", "SELECT B FROM scope()"]
    );
    assert_eq!(first.notebook[0].kind, "vql_suggestion");
    assert_eq!(first.notebook[0].env, [("a".to_owned(), "1".to_owned())]);
    assert_eq!(
        second.query.statements,
        ["LET C = 2", "SELECT C\nFROM scope()"]
    );
    assert_eq!(read.raw, EVERYTHING);
}

#[test]
fn every_finding_of_a_file_is_reported_with_its_place() {
    let text = "\
name: Custom.1st
type: clent
parameters:
  - name: [a]
  - name: b
    default: {c: 1}
    sources: perhaps
resources:
  timeout: soon
sources:
  - query: SELECT 1 FROM scope() SELECT 2 FROM scope()
  - name: x
    query:
        LET a = f(x=1,
          y=)
        SELECT a FROM scope()
  - text
";
    let places: Vec<(u32, u32, String)> = load("t", text)
        .unwrap_err()
        .problems
        .into_iter()
        .map(|problem| (problem.line, problem.column, problem.key))
        .collect();
    let expected = [
        (1, 7, "name"),
        (2, 7, "type"),
        (4, 11, "parameters[0].name"),
        (6, 14, "parameters[1].default"),
        (7, 14, "parameters[1].sources"),
        (9, 12, "resources.timeout"),
        (11, 12, "sources[0].query"),
        (15, 13, "sources[1].query"),
        (17, 5, "sources[2]"),
    ];
    let expected = expected.map(|(line, column, key)| (line, column, key.to_owned()));
    assert_eq!(places, expected);
}

#[test]
fn findings_say_what_to_do() {
    assert_eq!(
        findings("name: A\ntype: clinet"),
        [
            "test.yaml:2:7: type: unknown type \"clinet\": did you mean client; the types are \
             client, client_event, server, server_event, notebook, internal"
        ]
    );
    assert_eq!(
        findings("name: A\nname: B"),
        ["test.yaml:2:1: name: this key appears twice: keep one of them"]
    );
    assert_eq!(
        findings("type: client"),
        ["test.yaml:1:1: name: an artifact needs a name, for example Custom.Linux.Something"]
    );
    assert_eq!(findings(""), ["test.yaml:1:1: the file is empty"]);
    assert_eq!(
        findings("just words"),
        ["test.yaml:1:1: expected keys, found a text"]
    );
    let no_yaml = findings("name: A\nsources: [");
    assert!(no_yaml[0].contains("this is no valid YAML"), "{no_yaml:?}");
}

#[test]
fn unknown_keys_are_warnings() {
    let text =
        "name: A\ndescripton: x\nsources:\n  - query: SELECT 1 FROM scope()\n    colour: red\n";
    assert_eq!(
        warnings(text),
        [
            "test.yaml:2:1: descripton: unknown key is ignored: did you mean description",
            "test.yaml:5:5: sources[0].colour: unknown key is ignored",
        ]
    );
}

#[test]
fn two_preconditions_are_an_error() {
    let text = "\
name: A
precondition: SELECT OS FROM info()
sources:
  - query: SELECT 1 FROM scope()
    precondition: SELECT OS FROM info()
";
    assert_eq!(
        findings(text),
        [
            "test.yaml:4:5: sources[0].precondition: the artifact has a precondition already: \
             keep one of them"
        ]
    );
}

#[test]
fn a_mistake_in_a_list_of_queries_is_found_on_its_line() {
    let text = "\
name: A
sources:
  - queries:
      - LET a = 1
      - LET b = f(x=2
      - LET c = 3
      - SELECT a FROM scope()
";
    assert_eq!(
        findings(text),
        [
            "test.yaml:5:22: sources[0].queries: expected `)` for the `(` of line 5, column 18, \
             found the end"
        ]
    );
}

#[test]
fn an_empty_query_and_a_query_of_comments_are_skipped() {
    let text = "name: A\nsources:\n  - name: x\n    query: |\n\n  - query: |\n      -- later\n  - query:\n";
    let read = definition(text);
    assert!(read.sources.iter().all(|source| source.query.is_empty()));
}

#[test]
fn sources_of_one_name_are_told_apart_by_preconditions_only() {
    let source = "  - query: SELECT 1 FROM scope()\n";
    let choice = "    precondition: SELECT OS FROM info()\n";
    let bare = format!("name: A\nsources:\n{source}{source}");
    assert_eq!(warnings(&bare).len(), 1);
    let chosen = format!("name: A\nsources:\n{source}{choice}{source}{choice}");
    assert_eq!(warnings(&chosen), [""; 0]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_at_a_place_that_exists(
        at in 0..EVERYTHING.len(),
        removed in 0usize..40,
        inserted in "(\t|\\||>|'|\"|- |  |\n|:|[{}\\[\\]]|#|&a |\\*a|!|\\?|---|\r|é|\u{feff}|'''|/\\*|<<: |LET ){0,6}",
    ) {
        let (head, tail) = EVERYTHING.split_at(at);
        let rest: String = tail.chars().skip(removed).collect();
        let text = format!("{head}{inserted}{rest}");
        let problems = match load("t", &text) {
            Ok(loaded) => {
                prop_assert_eq!(loaded.definition.raw, text.clone());
                loaded.warnings
            }
            Err(error) => {
                prop_assert!(!error.problems.is_empty());
                error.problems
            }
        };
        // One past the end is the place of what is missing there.
        let lines = u32::try_from(text.split('\n').count()).unwrap();
        for problem in problems {
            prop_assert!((1..=lines + 1).contains(&problem.line), "{problem}");
            prop_assert!(problem.column >= 1, "{problem}");
        }
    }
}
