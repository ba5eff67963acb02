//! The parser. It never fails: what it cannot read becomes a broken node and a diagnostic.

mod cursor;
mod expression;
mod list;
mod select;

use crate::problem::{Diagnostic, Problem};
use crate::split::{StatementKind, kind, quote, ranges};
use crate::token::{Keyword, Symbol};
use crate::tree::{Body, Comments, Lambda, Let, LetValue, Parameter, Source, Statement};
use cursor::Cursor;

/// How deep brackets and NOTs may stand inside one another: several times what people write, and
/// within half a mebibyte of stack.
pub const MAX_DEPTH: usize = 64;

/// A tree and what is wrong with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What could be read. Without errors this is the whole source.
    pub tree: T,
    /// In the order of the source.
    pub diagnostics: Vec<Diagnostic>,
}

/// Why a source is not valid: at least one diagnostic, the errors first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(diagnostics))]
pub struct SyntaxError {
    /// In the order of the source.
    pub diagnostics: Vec<Diagnostic>,
}

fn list(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

impl<T> Parsed<T> {
    /// Whether agents accept the source. Warnings do not count.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The tree of a valid source.
    ///
    /// # Errors
    /// The errors of the source, without its warnings.
    pub fn into_result(mut self) -> Result<T, SyntaxError> {
        self.diagnostics.retain(Diagnostic::is_error);
        if self.diagnostics.is_empty() {
            Ok(self.tree)
        } else {
            Err(SyntaxError {
                diagnostics: self.diagnostics,
            })
        }
    }
}

/// Reads a source. An empty one, or one of comments only, is valid and has no statements.
///
/// ```
/// let parsed = nublar_vql::parse("SELECT Pid FROM pslist(");
/// let messages: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
/// assert_eq!(
///     messages,
///     ["line 1, column 24: expected `)` for the `(` of line 1, column 23, found the end"]
/// );
/// assert_eq!(parsed.tree.statements.len(), 1);
/// ```
#[must_use]
pub fn parse(source: &str) -> Parsed<Source> {
    let mut cursor = Cursor::new(source);
    let mut tree = Source::default();
    for range in ranges(cursor.tokens()) {
        cursor.limit(range);
        tree.statements.push(cursor.statement());
    }
    tree.end.before = cursor.all_comments();
    Parsed {
        tree,
        diagnostics: cursor.diagnostics(),
    }
}

/// Reads a lambda, `a, b => expression`, as it stands in string arguments of some functions.
///
/// ```
/// let lambda = nublar_vql::parse_lambda("x, y => x.Size + y").into_result()?;
/// assert_eq!(lambda.parameters.len(), 2);
/// # Ok::<(), nublar_vql::SyntaxError>(())
/// ```
///
/// Agents allow no parentheses around the parameters.
#[must_use]
pub fn parse_lambda(source: &str) -> Parsed<Lambda> {
    let mut cursor = Cursor::new(source);
    cursor.limit(0..cursor.tokens().len());
    let mut parameters = vec![cursor.name("the name of a parameter")];
    while cursor.eat(Symbol::Comma) {
        parameters.push(cursor.name("the name of a parameter"));
    }
    if !cursor.eat(Symbol::Arrow) {
        cursor.unexpected("`,` or `=>`");
    }
    let body = cursor.expression();
    if cursor.peek().is_some() {
        cursor.unexpected("an operator or the end");
    }
    Parsed {
        tree: Lambda { parameters, body },
        diagnostics: cursor.diagnostics(),
    }
}

impl Cursor<'_> {
    fn statement(&mut self) -> Statement {
        let comments = Comments {
            before: self.comments_before(),
            after: Vec::new(),
        };
        let start = self.here();
        let body = match self
            .peek()
            .map_or(StatementKind::Unknown, |token| kind(&token))
        {
            StatementKind::Let => Body::Let(self.definition()),
            StatementKind::Select | StatementKind::Explain => Body::Select(Box::new(self.select())),
            StatementKind::Unknown => {
                let found = self.peek().map(|token| quote(token.text(self.source)));
                self.error(Problem::OutsideStatement(found.unwrap_or_default()));
                Body::Broken(self.skip_all())
            }
        };
        if self.peek().is_some() {
            self.unexpected("an operator, a clause or a new statement");
            self.skip_all();
        }
        let mut statement = Statement {
            body,
            comments,
            at: self.since(start).into(),
        };
        statement.comments.after = self.comments_after();
        statement
            .comments
            .after
            .extend(self.comments_after_statement());
        statement
    }

    fn definition(&mut self) -> Let {
        self.bump();
        let name = self.name("the name of the LET");
        let parameters = self.at(Symbol::OpenParen).then(|| self.parameters());
        let materialized = self.at(Symbol::LessEqual);
        if !self.eat(Symbol::LessEqual) && !self.eat(Symbol::Equal) {
            self.unexpected("`=` or `<=`");
        }
        let value = if self.at_word(Keyword::Select) || self.at_word(Keyword::Explain) {
            LetValue::Select(Box::new(self.select()))
        } else {
            LetValue::Expression(self.expression())
        };
        Let {
            name,
            parameters,
            materialized,
            value,
        }
    }

    fn parameters(&mut self) -> Vec<Parameter> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let Some(open) = self.bump() else {
            return parameters;
        };
        while self.peek().is_some() && !self.at(Symbol::CloseParen) {
            let before = self.comments_before();
            let name = self.name("the name of a parameter");
            let default = self.eat(Symbol::Equal).then(|| self.argument_value());
            let more = self.comma_in_call();
            let comments = Comments {
                before,
                after: self.comments_after(),
            };
            parameters.push(Parameter {
                name,
                default,
                comments,
            });
            if !more {
                break;
            }
        }
        if let Some(last) = parameters.last_mut() {
            last.comments.after.extend(self.comments_before());
        }
        self.close(open, Symbol::CloseParen);
        parameters
    }
}
