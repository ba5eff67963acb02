//! VQL, the Velociraptor Query Language: words, statements, syntax trees, and trees as text.
//!
//! Nothing in this crate fails on a source: [`lex`], [`split`] and [`parse`] always give a result,
//! and [`Diagnostic`]s with line and column next to it. A source without error diagnostics is one
//! that agents accept. A few forms agents accept by accident are refused: `a[]`, `a[1 2]`, a name
//! for the second of two `*`, and a list item that only reads as two values side by side.
//!
//! What differs from SQL: statements need no separator; OR binds tighter than AND; arguments are
//! named; `[a, b]` and `{ SELECT ... }` are allowed only as the whole value of an argument (the
//! latter also of a column); `-` right before a name or number is a sign, never an operator.
//!
//! ```
//! use nublar_vql::{called_artifacts, format, parse};
//!
//! let source = "let Users = select * from Artifact.Linux.Sys.Users() -- all of them
//!               select Uid, -Gid as Group from Users where Uid > 999 or Name =~ 'adm'";
//! let tree = parse(source).into_result()?;
//! assert!(tree.statements[0].is_let());
//! assert_eq!(called_artifacts(source), ["Linux.Sys.Users"]);
//! assert_eq!(
//!     format(&tree),
//!     "LET Users = SELECT * FROM Artifact.Linux.Sys.Users() -- all of them\n\n\
//!      SELECT Uid, -Gid AS Group FROM Users WHERE Uid > 999 OR Name =~ 'adm'\n"
//! );
//! assert_eq!(parse(&format(&tree)).tree, tree);
//!
//! let error = parse("SELECT Pid\nFROM pslist(pid=1").into_result().unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "line 2, column 18: expected `)` for the `(` of line 2, column 12, found the end"
//! );
//! # Ok::<(), nublar_vql::SyntaxError>(())
//! ```

mod calls;
mod lexer;
mod literal;
mod parser;
mod print;
mod problem;
mod span;
mod split;
mod token;
mod tree;

pub use calls::called_artifacts;
pub use lexer::{Lexed, lex};
pub use literal::{Number, UnquotableName, name_value, number_value, quote_name, text_value};
pub use parser::{MAX_DEPTH, Parsed, SyntaxError, parse, parse_lambda};
pub use print::format;
pub use problem::{Diagnostic, Problem, Severity};
pub use span::{At, Position, Span};
pub use split::{Piece, Split, StatementKind, split};
pub use token::{Keyword, Symbol, Token, TokenKind};
pub use tree::{
    Access, Argument, ArgumentValue, Body, Clause, Column, ColumnValue, Comment, Comments,
    Expression, ExpressionKind, From, Item, Lambda, Let, LetValue, Level, List, Name, Operand,
    Operator, OrderBy, Parameter, Path, Select, Source, Statement,
};
