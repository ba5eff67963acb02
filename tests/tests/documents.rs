//! The documents say nothing of what is not there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a folder with this ending, without what is built, fetched or hidden.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules", "data"].contains(&&*name) {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// What stands between two marks, again and again.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> Vec<&'t str> {
    let parts = text.split(begin).skip(1);
    parts
        .filter_map(|rest| Some(rest.split_once(end)?.0))
        .collect()
}

/// The file has a test of this name, which runs.
fn assert_is_test(path: &str, name: &str) {
    let code = read(path);
    let place = code.find(&format!("fn {name}("));
    let place = place.unwrap_or_else(|| panic!("{path} has no {name}"));
    let above = &code[..place];
    let above = &above[above.rfind("}\n").map_or(0, |end| end)..];
    assert!(above.contains("test"), "{path}: {name} is no test");
    assert!(!above.contains("#[ignore"), "{path}: {name} is ignored");
}

#[test]
fn every_line_of_the_protocol_has_a_test_that_exists_or_says_that_it_has_none() {
    let text = read("docs/conformance.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let (mut held, mut open) = (0, 0);
    for row in rows.filter(|row| !row.starts_with("| what")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [_, tests] = cells[..] else {
            panic!("not two cells: {row}");
        };
        if tests.starts_with("not yet: ") || tests.starts_with("no test ") {
            open += 1;
            continue;
        }
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        for pair in names.chunks(2) {
            let [path, name] = pair else {
                panic!("a file without a test: {row}");
            };
            assert_is_test(path, name);
        }
        assert!(names.len() >= 2, "without a test: {row}");
        held += 1;
    }
    assert!(held >= 40 && open < 5, "{held} held, {open} open");
}

#[test]
fn every_promise_has_a_test_that_exists() {
    let text = read("docs/promises.md");
    let mut tests = 0;
    let mut promises = 0;
    for paragraph in text
        .split("\n\n")
        .filter(|paragraph| paragraph.starts_with("**"))
    {
        promises += 1;
        let before = tests;
        for line in paragraph.lines().filter(|line| line.starts_with("- `")) {
            let words: Vec<_> = line[2..]
                .split('`')
                .filter(|word| !word.trim().is_empty())
                .collect();
            let [path, name] = words[..] else {
                panic!("not a file and a test: {line}");
            };
            assert_is_test(path, name);
            tests += 1;
        }
        assert!(tests > before, "without a test: {paragraph}");
    }
    assert!(promises > 20, "{promises}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut documents = Vec::new();
    files(&root(), ".md", &mut documents);
    assert!(documents.len() > 5);
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in between(&text, "](", ")") {
            let path = target.split_once('#').map_or(target, |(path, _)| path);
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let there = document.parent().unwrap().join(path).exists();
            assert!(there, "{}: {target}", document.display());
        }
    }
}
