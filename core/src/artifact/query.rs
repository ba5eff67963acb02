//! VQL inside an artifact: checked, cut into statements, freed of comments.

use nublar_vql::{Position, Symbol, Token, TokenKind, lex, parse, split};

use super::definition::Query;

/// Which statements may stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// LETs, and at the end one statement that gives rows.
    Source,
    /// Any statements.
    Any,
}

/// Something wrong in a text of VQL.
#[derive(Debug)]
pub(super) struct Fault {
    /// The byte of the text.
    pub(super) offset: usize,
    /// Agents would refuse it.
    pub(super) error: bool,
    what: What,
}

#[derive(Debug)]
enum What {
    Syntax(nublar_vql::Problem),
    Shape(&'static str),
}

impl Fault {
    /// What is wrong. The text may speak of another place in the source, which a function turns
    /// from a byte of the source into a line and column of the file.
    pub(super) fn message(&self, source: &str, place: impl Fn(usize) -> (u32, u32)) -> String {
        let mut problem = match &self.what {
            What::Shape(message) => return (*message).to_owned(),
            What::Syntax(problem) => problem.clone(),
        };
        if let nublar_vql::Problem::Unclosed { at, .. } = &mut problem {
            let (line, column) = place(offset(source, *at));
            *at = Position { line, column };
        }
        problem.to_string()
    }
}

/// The byte at a line and column.
fn offset(source: &str, at: Position) -> usize {
    let before = (at.line as usize).saturating_sub(1);
    let start: usize = source
        .split_inclusive('\n')
        .take(before)
        .map(str::len)
        .sum();
    let line = source.get(start..).unwrap_or_default().chars();
    let within = line.take((at.column as usize).saturating_sub(1));
    start + within.map(char::len_utf8).sum::<usize>()
}

/// Reads a text of VQL and says what is wrong with it.
pub(super) fn read(source: &str, shape: Shape) -> (Query, Vec<Fault>) {
    let diagnostics = parse(source).diagnostics;
    let mut faults: Vec<Fault> = diagnostics
        .into_iter()
        .map(|diagnostic| Fault {
            offset: diagnostic.span.start,
            error: diagnostic.is_error(),
            what: What::Syntax(diagnostic.problem),
        })
        .collect();
    let pieces = split(source).statements;
    let valid = !faults.iter().any(|fault| fault.error);
    if valid && shape == Shape::Source {
        for (index, piece) in pieces.iter().enumerate() {
            let last = index + 1 == pieces.len();
            let message = match (last, piece.is_let()) {
                (false, false) => {
                    "only the last statement of a source may give rows: make it a LET"
                }
                (true, true) => "the last statement of a source has to give rows: add a SELECT",
                _ => continue,
            };
            faults.push(Fault {
                offset: piece.span.start,
                error: true,
                what: What::Shape(message),
            });
        }
    }
    let query = Query {
        statements: pieces
            .iter()
            .map(|piece| without_comments(piece.text))
            .collect(),
        calls: calls(source),
        mentions: mentions(source),
    };
    (query, faults)
}

/// The text with each comment, and the blanks in front of it, taken out.
fn without_comments(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut end = 0;
    for token in lex(source).tokens {
        if token.kind == TokenKind::Comment {
            let kept = source.get(end..token.span.start).unwrap_or_default();
            text.push_str(kept.trim_end());
            end = token.span.end;
            let rest = source.get(end..).unwrap_or_default();
            if !rest.starts_with(char::is_whitespace) {
                text.push(' ');
            }
        }
    }
    text.push_str(source.get(end..).unwrap_or_default());
    text.trim().to_owned()
}

/// The artifacts that are called: `Artifact.Some.Name(`.
fn calls(source: &str) -> Vec<String> {
    let mut tokens = lex(source).tokens;
    tokens.retain(|token| token.kind != TokenKind::Comment);
    let mut calls = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let inside = index
            .checked_sub(1)
            .and_then(|before| tokens.get(before))
            .is_some_and(|before| before.is(Symbol::Dot));
        if token.text(source) != "Artifact" || inside {
            continue;
        }
        let rest = tokens.get(index + 1..).unwrap_or_default();
        if let Some(name) = called_name(source, rest) {
            add(&mut calls, name);
        }
    }
    calls
}

/// The name in `.Some.Name(`.
fn called_name(source: &str, tokens: &[Token]) -> Option<String> {
    let mut parts = Vec::new();
    for pair in tokens.chunks(2) {
        let first = pair.first()?;
        if first.is(Symbol::OpenParen) && !parts.is_empty() {
            return Some(parts.join("."));
        }
        let (true, Some(part)) = (first.is(Symbol::Dot), pair.get(1)) else {
            return None;
        };
        parts.push(part.text(source).trim_matches('`'));
    }
    None
}

/// The artifacts that strings speak of in the same way: VQL that is run later.
fn mentions(source: &str) -> Vec<String> {
    const CALL: &str = "Artifact.";
    let mut mentions = Vec::new();
    let texts = lex(source).tokens.into_iter();
    for token in texts.filter(|token| token.kind == TokenKind::Text) {
        let text = token.text(source);
        for (start, _) in text.match_indices(CALL) {
            let rest = text.get(start + CALL.len()..).unwrap_or_default();
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
            if let Some((name, after)) = end.map(|end| rest.split_at(end))
                && after.starts_with('(')
            {
                add(&mut mentions, name.to_owned());
            }
        }
    }
    mentions
}

fn add(names: &mut Vec<String>, name: String) {
    if !names.contains(&name) {
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_and_strings_stay() {
        let source = "-- head\nLET a = 1 // one\n/* x */ SELECT '-- b', '''c \n//''' /*d*/, e\n\
                      \x20 -- f\n  -- g\n  FROM/*h*/scope()";
        let (query, faults) = read(source, Shape::Source);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(
            query.statements,
            [
                "LET a = 1",
                "SELECT '-- b', '''c \n//''' , e\n  FROM scope()"
            ]
        );
    }

    #[test]
    fn the_last_statement_alone_gives_rows() {
        let messages = |source| read(source, Shape::Source).1.len();
        assert_eq!(messages("LET a = 1 SELECT a FROM scope()"), 0);
        assert_eq!(messages("SELECT 1 FROM scope() SELECT 2 FROM scope()"), 1);
        assert_eq!(messages("SELECT 1 FROM scope() LET a = 1"), 2);
        assert_eq!(messages("-- nothing"), 0);
        assert_eq!(read("LET a = 1", Shape::Any).1.len(), 0);
    }

    #[test]
    fn called_artifacts_are_found() {
        let source = "SELECT * FROM chain(a={ SELECT * FROM Artifact.A.B(x='Artifact.Not.Me') },
            b={ SELECT * FROM query(query='SELECT * FROM Artifact.Said.So()') },
            -- Artifact.No.Way()
            c=Artifact.A.B (y=Artifact.C(), z=x.Artifact.D(), w=Artifact.E))";
        let (query, _) = read(source, Shape::Any);
        assert_eq!(query.calls, ["A.B", "C"]);
        assert_eq!(query.mentions, ["Said.So"]);
    }
}
