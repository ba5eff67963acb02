//! VQL.

mod lexer;
mod literal;
mod parser;
mod print;
mod problem;
mod span;
mod split;
mod token;
mod tree;

pub use lexer::{Lexed, lex};
pub use literal::{Number, UnquotableName, name_value, number_value, quote_name, text_value};
pub use parser::{MAX_DEPTH, Parsed, SyntaxError, parse, parse_lambda};
pub use print::format;
pub use problem::{Diagnostic, Problem, Severity};
pub use span::{At, Position, Span};
pub use split::{Piece, Split, StatementKind, split};
pub use token::{Keyword, Symbol, Token, TokenKind};
pub use tree::*;
