//! Reads VQL sources, one a file, or one from standard input; parses, prints and parses each
//! again. Reports how many are valid, how many read back as the same tree with the same comments,
//! how many print the same twice, and the speed. Shows the first failures.
//!
//! `cargo run --release --example corpus -- queries/*.vql`

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nublar_vql::{TokenKind, format, lex, parse, split};

const SHOWN: usize = 10;

#[derive(Default)]
struct Tally {
    sources: usize,
    bytes: usize,
    statements: usize,
    valid: usize,
    same_tree: usize,
    same_comments: usize,
    same_print: usize,
    warnings: usize,
    lexing: Duration,
    parsing: Duration,
    printing: Duration,
    failures: Vec<String>,
}

fn comments(source: &str) -> Vec<String> {
    let tokens = lex(source).tokens;
    let comments = tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Comment);
    comments
        .map(|comment| comment.text(source).trim_end().to_owned())
        .collect()
}

impl Tally {
    fn fail(&mut self, name: &str, what: &str, detail: &str) {
        self.failures.push(format!("{name}: {what}: {detail}"));
    }

    fn take(&mut self, name: &str, source: &str) {
        self.sources += 1;
        self.bytes += source.len();
        let start = Instant::now();
        let pieces = split(source).statements.len();
        self.lexing += start.elapsed();
        let start = Instant::now();
        let parsed = parse(source);
        self.parsing += start.elapsed();
        self.statements += parsed.tree.statements.len();
        self.warnings += parsed
            .diagnostics
            .iter()
            .filter(|found| !found.is_error())
            .count();
        if pieces != parsed.tree.statements.len() {
            self.fail(name, "split and parse disagree", &pieces.to_string());
        }
        if let Some(error) = parsed.diagnostics.iter().find(|found| found.is_error()) {
            self.fail(name, "not valid", &error.to_string());
            return;
        }
        self.valid += 1;
        let start = Instant::now();
        let printed = format(&parsed.tree);
        self.printing += start.elapsed();
        let again = parse(&printed);
        if let Some(error) = again.diagnostics.iter().find(|found| found.is_error()) {
            self.fail(name, "prints as something not valid", &error.to_string());
        } else if again.tree == parsed.tree {
            self.same_tree += 1;
        } else {
            self.fail(name, "prints as another tree", &printed);
        }
        if comments(source) == comments(&printed) {
            self.same_comments += 1;
        } else {
            self.fail(name, "prints other comments", &printed);
        }
        if format(&again.tree) == printed {
            self.same_print += 1;
        }
    }

    fn speed(&self, time: Duration) -> f64 {
        self.bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9)
    }
}

fn main() -> ExitCode {
    let mut tally = Tally::default();
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        let mut source = String::new();
        if let Err(error) = std::io::stdin().read_to_string(&mut source) {
            tally.fail("standard input", "cannot be read", &error.to_string());
        }
        tally.take("standard input", &source);
    }
    for name in &names {
        match std::fs::read_to_string(name) {
            Ok(source) => tally.take(name, &source),
            Err(error) => tally.fail(name, "cannot be read", &error.to_string()),
        }
    }
    let mut out = std::io::stdout().lock();
    let report = format!(
        "{} sources, {} statements, {:.2} MB\n\
         valid {}, same tree {}, same comments {}, same print {}, warnings {}\n\
         split {:.0} MB/s, parse {:.0} MB/s, print {:.0} MB/s",
        tally.sources,
        tally.statements,
        tally.bytes as f64 / 1e6,
        tally.valid,
        tally.same_tree,
        tally.same_comments,
        tally.same_print,
        tally.warnings,
        tally.speed(tally.lexing),
        tally.speed(tally.parsing),
        tally.speed(tally.printing),
    );
    let shown = tally.failures.iter().take(SHOWN).map(String::as_str);
    for line in [report.as_str()].into_iter().chain(shown) {
        // A closed pipe is no reason to fail.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    if tally.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
