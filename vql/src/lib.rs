//! VQL.

mod lexer;
mod problem;
mod span;
mod token;

pub use lexer::{Lexed, lex};
pub use problem::{Diagnostic, Problem, Severity};
pub use span::{At, Position, Span};
pub use token::{Keyword, Symbol, Token, TokenKind};
