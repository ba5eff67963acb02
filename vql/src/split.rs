//! Cuts a source into its statements. Nothing separates statements: each begins with its keyword.

use crate::lexer::{Lexed, lex};
use crate::literal::name_value;
use crate::problem::{Diagnostic, Problem};
use crate::span::{Position, Span};
use crate::token::{Keyword, Symbol, Token, TokenKind};

/// What a statement begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// LET
    Let,
    /// SELECT
    Select,
    /// EXPLAIN
    Explain,
    /// Anything else: text that belongs to no statement.
    Unknown,
}

/// One statement as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'s> {
    /// From its first to its last word, without blanks and comments around it.
    pub text: &'s str,
    /// The bytes of this text.
    pub span: Span,
    /// Line and column of its first character.
    pub at: Position,
    /// What it begins with.
    pub kind: StatementKind,
    /// The name a LET defines, without backticks.
    pub name: Option<String>,
}

impl Piece<'_> {
    /// Whether it is a LET, which gives no rows.
    #[must_use]
    pub fn is_let(&self) -> bool {
        self.kind == StatementKind::Let
    }
}

/// The statements of a source and what is wrong with its words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split<'s> {
    /// In order; together they hold every word of the source that is not a comment.
    pub statements: Vec<Piece<'s>>,
    /// Broken words, and words that belong to no statement. [`parse`](crate::parse) finds more.
    pub diagnostics: Vec<Diagnostic>,
}

/// Cuts a source into its statements.
///
/// ```
/// let split = nublar_vql::split("LET X = SELECT 'LET' FROM y -- SELECT\nSELECT * FROM X");
/// let texts: Vec<&str> = split.statements.iter().map(|statement| statement.text).collect();
/// assert_eq!(texts, ["LET X = SELECT 'LET' FROM y", "SELECT * FROM X"]);
/// assert_eq!(split.statements[0].name.as_deref(), Some("X"));
/// ```
#[must_use]
pub fn split(source: &str) -> Split<'_> {
    let Lexed {
        mut tokens,
        mut diagnostics,
    } = lex(source);
    tokens.retain(|token| token.kind != TokenKind::Comment);
    let mut statements = Vec::new();
    for range in ranges(&tokens) {
        let words = tokens.get(range).unwrap_or_default();
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            continue;
        };
        let kind = kind(first);
        if kind == StatementKind::Unknown && first.kind != TokenKind::Broken {
            let problem = Problem::OutsideStatement(quote(first.text(source)));
            diagnostics.push(Diagnostic {
                span: first.span,
                at: first.at,
                problem,
            });
        }
        let span = first.span.to(last.span);
        let name = words.get(1).filter(|word| {
            kind == StatementKind::Let
                && matches!(word.kind, TokenKind::Name | TokenKind::QuotedName)
        });
        statements.push(Piece {
            text: span.text(source),
            span,
            at: first.at,
            kind,
            name: name.map(|word| name_value(word.text(source)).into_owned()),
        });
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    Split {
        statements,
        diagnostics,
    }
}

pub(crate) fn kind(first: &Token) -> StatementKind {
    match first.kind {
        TokenKind::Keyword(Keyword::Let) => StatementKind::Let,
        TokenKind::Keyword(Keyword::Select) => StatementKind::Select,
        TokenKind::Keyword(Keyword::Explain) => StatementKind::Explain,
        _ => StatementKind::Unknown,
    }
}

/// A word for a diagnostic, shortened when long.
pub(crate) fn quote(word: &str) -> String {
    const LONGEST: usize = 40;
    let line = word.lines().next().unwrap_or_default();
    if line.len() == word.len() && word.len() <= LONGEST {
        return format!("`{word}`");
    }
    format!("`{}...`", line.chars().take(LONGEST).collect::<String>())
}

/// The statements among tokens that hold no comments, as ranges of their indices.
///
/// A LET begins a statement wherever it stands, even in a bracket that was left open. SELECT and
/// EXPLAIN begin one outside of brackets, unless they continue a LET or an EXPLAIN.
pub(crate) fn ranges(tokens: &[Token]) -> Vec<std::ops::Range<usize>> {
    let mut starts = Vec::new();
    let mut depth = 0usize;
    let mut before = None;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Keyword(Keyword::Let) => {
                depth = 0;
                starts.push(index);
            }
            TokenKind::Keyword(Keyword::Select | Keyword::Explain) if depth == 0 => {
                let continues = matches!(
                    before,
                    Some(
                        TokenKind::Symbol(Symbol::Equal | Symbol::LessEqual)
                            | TokenKind::Keyword(Keyword::Explain)
                    )
                );
                if !continues {
                    starts.push(index);
                }
            }
            TokenKind::Symbol(Symbol::OpenParen | Symbol::OpenBrace | Symbol::OpenBracket) => {
                depth += 1;
            }
            TokenKind::Symbol(Symbol::CloseParen | Symbol::CloseBrace | Symbol::CloseBracket) => {
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        before = Some(token.kind);
    }
    if starts.first() != Some(&0) && !tokens.is_empty() {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([tokens.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| *start..end)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn texts(source: &str) -> Vec<&str> {
        split(source)
            .statements
            .into_iter()
            .map(|piece| piece.text)
            .collect()
    }

    #[test]
    fn every_form_of_let_holds_its_value() {
        let lets = [
            "LET A = SELECT * FROM b",
            "LET `c d` <= SELECT * FROM e",
            "LET F(g, h=1) = g + h",
            "let I = explain select * from j",
            "LET K <= (1, 2)",
            "LET L(M={SELECT * FROM n}) = M",
        ];
        let source = lets.join("\n") + " EXPLAIN SELECT 1 FROM o SELECT 2 FROM p";
        let split = split(&source);
        let texts: Vec<_> = split.statements.iter().map(|piece| piece.text).collect();
        let all = [&lets[..], &["EXPLAIN SELECT 1 FROM o", "SELECT 2 FROM p"]].concat();
        assert_eq!(texts, all);
        let names: Vec<_> = split
            .statements
            .iter()
            .filter_map(|piece| piece.name.as_deref())
            .collect();
        assert_eq!(names, ["A", "c d", "F", "I", "K", "L"]);
        assert!(split.diagnostics.is_empty());
    }

    #[test]
    fn subselects_stay_inside() {
        let source = "SELECT * FROM foreach(row={SELECT * FROM a}, query={ SELECT b FROM c })\n\
                      SELECT { SELECT * FROM x } AS Y FROM scope()";
        assert_eq!(texts(source), source.lines().collect::<Vec<_>>());
    }

    #[test]
    fn quotes_and_comments_begin_no_statement() {
        let source = "SELECT 'LET x', `SELECT`, '''\nLET y''' -- LET z\nFROM /* SELECT */ f()";
        assert_eq!(texts(source), [source]);
    }

    #[test]
    fn comments_around_statements_belong_to_none() {
        let split = split("-- a\n  SELECT b FROM c -- d\n/* e */");
        assert_eq!(split.statements.len(), 1);
        assert_eq!(split.statements[0].text, "SELECT b FROM c");
        assert_eq!(split.statements[0].at, Position { line: 2, column: 3 });
    }

    #[test]
    fn an_open_bracket_ends_at_the_next_let() {
        let source = "LET a = f(x=(1\nLET b = 2";
        assert_eq!(texts(source), ["LET a = f(x=(1", "LET b = 2"]);
    }

    #[test]
    fn text_outside_of_statements_is_reported() {
        let split = split("\n foo; SELECT a FROM b");
        assert_eq!(split.statements[0].kind, StatementKind::Unknown);
        assert_eq!(split.statements[0].text, "foo;");
        let messages: Vec<_> = split.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "line 2, column 2: found `foo` outside of a statement: begin with SELECT, LET or EXPLAIN",
                "line 2, column 5: statements are not separated by `;`: remove it",
            ]
        );
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(split(" \n-- only this"), Split::default());
    }

    proptest! {
        #[test]
        fn every_word_is_in_one_statement(
            source in "(LET |SELECT |EXPLAIN |[(){}]|'|`|--|\n|= |a |, ){0,30}"
        ) {
            let split = split(&source);
            for token in lex(&source).tokens {
                let holders = split
                    .statements
                    .iter()
                    .filter(|s| s.span.start <= token.span.start && token.span.end <= s.span.end)
                    .count();
                prop_assert!(holders == 1 || (holders == 0 && token.kind == TokenKind::Comment));
            }
        }
    }
}
