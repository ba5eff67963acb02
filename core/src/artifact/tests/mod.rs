//! Tests that cross the modules: from a file's text to findings and requests.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod builtins;
mod compiling;
mod loading;
mod repository;

use super::*;

fn definition(text: &str) -> Definition {
    load("test.yaml", text).unwrap().definition
}

fn findings(text: &str) -> Vec<String> {
    let error = load("test.yaml", text).unwrap_err();
    error.problems.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load("test.yaml", text).unwrap();
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn repository(texts: &[&str]) -> Repository {
    let mut repository = Repository::empty();
    repository.extend(texts.iter().map(|text| definition(text)));
    repository
}
