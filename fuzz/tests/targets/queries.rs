//! VQL: every text gives a tree, and a tree that is sound reads back as it was printed.

use nublar_core::artifact::Repository;
use nublar_fuzz::{Target, behaviour, fuzz, mutate};
use nublar_vql::{called_artifacts, format, lex, parse, parse_lambda, split};

const WORDS: [&[u8]; 40] = [
    b"SELECT ",
    b"LET ",
    b"EXPLAIN ",
    b" FROM ",
    b" WHERE ",
    b" GROUP BY ",
    b" ORDER BY ",
    b" LIMIT ",
    b" AS ",
    b" DESC",
    b" AND ",
    b" OR ",
    b" NOT ",
    b" in ",
    b" =~ ",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"=>",
    b"<=",
    b"=",
    b",",
    b".",
    b"'",
    b"\"",
    b"'''",
    b"`",
    b"--",
    b"/*",
    b"*/",
    b"//",
    b"*",
    b"-",
    b"0x1F",
    b"1e5",
    b"Artifact.",
    b"NULL",
];

fn seeds() -> Vec<Vec<u8>> {
    let repository = Repository::builtin();
    let definitions = repository.list().into_iter();
    let definitions = definitions.filter_map(|entry| repository.get(&entry.name));
    let mut seeds: Vec<Vec<u8>> = definitions
        .flat_map(|definition| definition.sources.clone())
        .map(|source| source.query.statements.join("\n").into_bytes())
        .filter(|query| !query.is_empty())
        .collect();
    seeds.push(
        b"LET F(x, y) = SELECT *, {SELECT 1 FROM scope()} AS a.b[1:2] FROM F(x=[1, 'a'], y=-b)\n\
          WHERE NOT a =~ '''b''' AND c[-1].d < 0x10 OR (x => x + 1.5e3) GROUP BY a, b ORDER BY c DESC LIMIT 5"
            .to_vec(),
    );
    seeds
}

fn check(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let source = text.as_ref();
    let lexed = lex(source);
    let pieces = split(source);
    let _ = (called_artifacts(source), parse_lambda(source));
    let parsed = parse(source);
    for diagnostic in &parsed.diagnostics {
        let _ = diagnostic.span.text(source);
        assert!(diagnostic.at.line >= 1 && diagnostic.at.column >= 1);
    }
    let errors = parsed.diagnostics.iter().filter(|found| found.is_error());
    let mut behaved: Vec<String> = errors
        .map(|found| format!("{:?}", found.problem))
        .map(|found| found.chars().take_while(|c| c.is_alphabetic()).collect())
        .collect();
    if behaved.is_empty() {
        let printed = format(&parsed.tree);
        let again = parse(&printed);
        assert!(
            again.tree == parsed.tree,
            "reads back otherwise:\n{source}\n---\n{printed}"
        );
        behaved.push(format!(
            "{} statements",
            "s".repeat(parsed.tree.statements.len())
        ));
    }
    behaved.dedup();
    behaved.truncate(5);
    let length = "t".repeat((lexed.tokens.len() + 1).ilog2() as usize);
    behaved.push(length);
    behaved.push("p".repeat((pieces.statements.len() + 1).ilog2() as usize));
    behaviour(&behaved.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn every_text_gives_a_tree_and_sound_ones_read_back() {
    let ran = fuzz(&Target {
        name: "queries",
        seeds: seeds(),
        change: &|chance, input| mutate(chance, input, &WORDS),
        check: &check,
    });
    assert!(ran.behaviours > 50, "{ran:?}");
}
