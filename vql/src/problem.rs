//! What can be wrong with a source, and where.

use crate::span::{Position, Span};

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Agents refuse the source.
    Error,
    /// Agents accept the source, but it does not do what it seems to say.
    Warning,
}

/// One finding, with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {problem}", at.line, at.column)]
pub struct Diagnostic {
    /// The bytes it is about; empty at the end of the source.
    pub span: Span,
    /// Line and column of the first of these bytes.
    pub at: Position,
    /// What is wrong.
    pub problem: Problem,
}

impl Diagnostic {
    /// Whether agents refuse the source because of this.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.problem.severity() == Severity::Error
    }
}

/// Every kind of finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A character that begins no token.
    #[error("unexpected character {0:?}: remove it, or put it in a string")]
    Character(char),
    /// A `;`.
    #[error("statements are not separated by `;`: remove it")]
    Semicolon,
    /// A string without its closing quote.
    #[error("this string is never closed: add the closing {0}")]
    OpenText(&'static str),
    /// A `/*` without `*/`.
    #[error("this comment is never closed: add `*/`")]
    OpenComment,
    /// A backtick without its partner.
    #[error("this name is never closed: add the closing backtick")]
    OpenName,
    /// Two backticks with nothing between them.
    #[error("a name in backticks needs at least one character")]
    EmptyName,
    /// Text outside of any statement.
    #[error("found {0} outside of a statement: begin with SELECT, LET or EXPLAIN")]
    OutsideStatement(String),
    /// A token that does not fit.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What would fit.
        expected: &'static str,
        /// The token that stands there.
        found: String,
    },
    /// A bracket without its partner.
    #[error("expected `{close}` for the `{open}` of line {}, column {}, found {found}", at.line, at.column)]
    Unclosed {
        /// The opening bracket.
        open: char,
        /// The closing bracket it needs.
        close: char,
        /// Where the opening bracket stands.
        at: Position,
        /// The token that stands in place of the closing bracket.
        found: String,
    },
    /// A keyword in the place of a name.
    #[error("`{0}` is a keyword: put it in backticks to use it as a name")]
    Reserved(String),
    /// `a -b` or `a -1`.
    #[error("a minus right before a name or number is its sign: put a space after it to subtract")]
    SignNotMinus,
    /// A minus with a space, or before a bracket, where a value begins.
    #[error("a sign stands right before a name or number: write `-x`, or `0 - (...)`")]
    LoneSign,
    /// `a * b[0]`.
    #[error(
        "what follows `*` or `/` takes no `[...]` or `.name` after a call or bracket: put it in parentheses"
    )]
    AccessedFactor,
    /// `a[b + 1]`.
    #[error("an index is one value: put the expression in parentheses")]
    ComplexIndex,
    /// `a[]`.
    #[error("an index is missing between `[` and `]`")]
    EmptyIndex,
    /// `[...]` somewhere else than as an argument.
    #[error("a list in `[ ]` can only be the whole value of an argument: use `(a, b)` here")]
    ListElsewhere,
    /// `{...}` somewhere else than as an argument or column.
    #[error("a query in `{{ }}` can only be the whole value of an argument or a column")]
    QueryElsewhere,
    /// `NOT` after an operator.
    #[error("NOT can only begin a condition: put it in parentheses")]
    NotElsewhere,
    /// `f(1)`.
    #[error("arguments are named: write `name=value`")]
    Positional,
    /// `f(a=1,)` or `SELECT a, FROM`.
    #[error("nothing follows this comma: remove it")]
    TrailingComma,
    /// `(1, 2 3)`.
    #[error("a comma is missing in front of this value: agents drop the value before it")]
    MissingComma,
    /// `(1,,2)`.
    #[error("nothing stands between these commas: agents drop everything after them")]
    Hole,
    /// `()`.
    #[error("nothing stands between `(` and `)`: write NULL, or at least one value")]
    EmptyParentheses,
    /// `f(a=1)(b=2)`.
    #[error("agents add these arguments to the same call: write them in its first brackets")]
    CalledTwice,
    /// `* AS x`.
    #[error("`*` cannot have a name: remove the AS")]
    NamedStar,
    /// A clause twice or too late.
    #[error("{0} comes too late: the order is FROM, WHERE, GROUP BY, ORDER BY, LIMIT, each once")]
    ClauseOrder(&'static str),
    /// `ORDER BY a.b`.
    #[error("ORDER BY takes the name of one column: name the expression with AS and order by that")]
    OrderByExpression,
    /// `ORDER BY a ASC`.
    #[error("ASC does not exist: rows are sorted ascending without it")]
    Ascending,
    /// `LIMIT 1.5`.
    #[error("LIMIT takes a whole number, found {0}")]
    Limit(String),
    /// `a = b = c`.
    #[error("comparisons do not chain: agents use only the first value and the last comparison")]
    ChainedComparison,
    /// `a <> b`.
    #[error("`<>` is always false on agents: use `!=`")]
    AngleNotEqual,
    /// Brackets or NOTs inside one another without end.
    #[error("nested deeper than {0} levels: move an inner part to a LET of its own")]
    TooDeep(usize),
}

impl Problem {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Hole
            | Self::MissingComma
            | Self::CalledTwice
            | Self::ChainedComparison
            | Self::AngleNotEqual => Severity::Warning,
            _ => Severity::Error,
        }
    }
}
