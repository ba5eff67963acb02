//! The words of VQL.

use crate::span::{Position, Span};

/// One word of a source. Blanks between words are no tokens; comments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What kind of word it is.
    pub kind: TokenKind,
    /// Its bytes.
    pub span: Span,
    /// Line and column of its first character.
    pub at: Position,
}

impl Token {
    /// Its text as written, quotes and all.
    #[must_use]
    pub fn text<'s>(&self, source: &'s str) -> &'s str {
        self.span.text(source)
    }

    /// Whether it is the given symbol.
    #[must_use]
    pub fn is(&self, symbol: Symbol) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }
}

/// Kinds of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A plain name.
    Name,
    /// A name in backticks.
    QuotedName,
    /// A plain or quoted name with its sign, as in `-x`.
    SignedName,
    /// A number, with its sign if it has one: `12`, `-1.5e3`, `0x1F`.
    Number,
    /// A string in `'`, `"` or `'''`.
    Text,
    /// A reserved word, in any case.
    Keyword(Keyword),
    /// An operator or bracket.
    Symbol(Symbol),
    /// A comment: `-- ...`, `// ...` or `/* ... */`.
    Comment,
    /// Text that is no word; a diagnostic says why.
    Broken,
}

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($variant:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = concat!("`", $text, "`")] $variant,)* }

        impl $name {
            /// How it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

words! {
    /// Reserved words.
    Keyword {
        Explain = "EXPLAIN",
        Select = "SELECT",
        Where = "WHERE",
        And = "AND",
        Or = "OR",
        From = "FROM",
        Not = "NOT",
        As = "AS",
        In = "IN",
        Limit = "LIMIT",
        Null = "NULL",
        Desc = "DESC",
        GroupBy = "GROUP BY",
        OrderBy = "ORDER BY",
        True = "TRUE",
        False = "FALSE",
        Let = "LET",
    }
}

words! {
    /// Operators and brackets.
    Symbol {
        Plus = "+",
        Minus = "-",
        Star = "*",
        Slash = "/",
        Percent = "%",
        Colon = ":",
        Comma = ",",
        Dot = ".",
        OpenParen = "(",
        CloseParen = ")",
        OpenBrace = "{",
        CloseBrace = "}",
        OpenBracket = "[",
        CloseBracket = "]",
        Equal = "=",
        NotEqual = "!=",
        AngleNotEqual = "<>",
        Less = "<",
        LessEqual = "<=",
        Greater = ">",
        GreaterEqual = ">=",
        Match = "=~",
        Arrow = "=>",
        AndThen = "&&",
        Bar = "|",
        OrElse = "||",
    }
}

impl Keyword {
    /// The keyword a plain word is, in any case. `GROUP BY` and `ORDER BY` are two words and
    /// found by the lexer only.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        const SINGLE: [Keyword; 15] = [
            Keyword::Explain,
            Keyword::Select,
            Keyword::Where,
            Keyword::And,
            Keyword::Or,
            Keyword::From,
            Keyword::Not,
            Keyword::As,
            Keyword::In,
            Keyword::Limit,
            Keyword::Null,
            Keyword::Desc,
            Keyword::True,
            Keyword::False,
            Keyword::Let,
        ];
        if !(2..=7).contains(&word.len()) {
            return None;
        }
        SINGLE
            .into_iter()
            .find(|keyword| keyword.as_str().eq_ignore_ascii_case(word))
    }
}
