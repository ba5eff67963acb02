//! Artifacts: a file is an artifact, or everything that is wrong with it is said with its place.

use nublar_core::artifact::{Collect, Compiler, Repository, Tools, Wanted, load};
use nublar_fuzz::{Chance, Target, behaviour, fuzz, mutate};
use std::collections::BTreeMap;

const WORDS: [&[u8]; 36] = [
    b": ",
    b"- ",
    b"\n",
    b"\n  ",
    b"|\n",
    b">-\n",
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"!!binary ",
    b"---\n",
    b"...\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"# ",
    b"\"",
    b"'",
    b"%YAML 1.1\n",
    b"? ",
    b"~",
    b"\t",
    b"name: ",
    b"type: CLIENT_EVENT\n",
    b"parameters:\n",
    b"sources:\n",
    b"query: ",
    b"precondition: ",
    b"default: ",
    b"choices:\n",
    b"tools:\n",
    b"resources:\n",
    b"imports:\n",
    b"export: ",
    b"\xEF\xBB\xBF",
];

fn seeds() -> Vec<Vec<u8>> {
    let repository = Repository::builtin();
    let entries = repository.list().into_iter();
    let definitions = entries.filter_map(|entry| repository.get(&entry.name));
    definitions
        .map(|definition| definition.raw.clone().into_bytes())
        .collect()
}

/// YAML is lines: they are repeated, moved, left out and indented.
fn change(chance: &mut Chance, input: &mut Vec<u8>) {
    if chance.below(3) > 0 {
        return mutate(chance, input, &WORDS);
    }
    let mut lines: Vec<Vec<u8>> = input
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if lines.is_empty() {
        return;
    }
    let (place, other) = (chance.below(lines.len()), chance.below(lines.len()));
    match chance.below(5) {
        0 => {
            lines.remove(place);
        }
        1 => lines.insert(other, lines[place].clone()),
        2 => lines.swap(place, other),
        3 => {
            lines[place].splice(0..0, vec![b' '; 1 + chance.below(4)]);
        }
        _ => {
            let blanks = lines[place]
                .iter()
                .take_while(|byte| **byte == b' ')
                .count();
            lines[place].drain(..blanks.min(2));
        }
    }
    *input = lines.concat();
}

fn check(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    match load("fuzz.yaml", &text) {
        Ok(loaded) => {
            let name = loaded.definition.name.clone();
            let again = load("fuzz.yaml", &text).unwrap();
            assert_eq!(again, loaded);
            let mut repository = Repository::builtin();
            repository.insert(loaded.definition);
            let compiler = Compiler {
                repository: &repository,
                tools: &Tools::default(),
                server_metadata: &BTreeMap::new(),
            };
            let compiled = compiler.compile(&Collect {
                artifacts: vec![Wanted::new(name)],
                ..Collect::default()
            });
            match compiled {
                Ok(_) => behaviour(&["compiled"]),
                Err(error) => behaviour(&["loaded", &word(&format!("{error:?}"))]),
            }
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            let lines = text.lines().count() as u32 + 1;
            for problem in &error.problems {
                assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
                assert!(problem.line <= lines, "{problem:?} of {lines} lines");
            }
            let mut said: Vec<_> = error
                .problems
                .iter()
                .map(|problem| format!("{}{}", problem.key, word(&problem.message)))
                .collect();
            said.dedup();
            said.truncate(4);
            behaviour(&said.iter().map(String::as_str).collect::<Vec<_>>())
        }
    }
}

/// How a message begins: what it is about comes later.
fn word(message: &str) -> String {
    message
        .split(['"', '`', '(', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_file_is_an_artifact_or_everything_wrong_is_said() {
    let ran = fuzz(&Target {
        name: "artifacts",
        seeds: seeds(),
        change: &change,
        check: &check,
    });
    assert!(ran.behaviours > 50, "{ran:?}");
}
