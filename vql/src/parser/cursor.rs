//! Walks over the tokens of a source; keeps comments, diagnostics and the depth of nesting.

use crate::lexer::{Lexed, lex};
use crate::problem::{Diagnostic, Problem};
use crate::span::{Position, Span};
use crate::split::quote;
use crate::token::{Keyword, Symbol, Token, TokenKind};
use crate::tree::{Comment, Name};

use super::MAX_DEPTH;

/// A comment between tokens.
struct Between {
    span: Span,
    /// The index of the token that follows.
    next: usize,
    /// Whether it ends the line of the token in front of it.
    ends_line: bool,
}

pub(super) struct Cursor<'s> {
    pub(super) source: &'s str,
    /// Without comments.
    tokens: Vec<Token>,
    comments: Vec<Between>,
    /// The first comment that no node has taken.
    comment: usize,
    index: usize,
    /// Where the statement ends.
    end: usize,
    depth: usize,
    diagnostics: Vec<Diagnostic>,
    /// The furthest token an error was reported at: what follows from it is not reported again.
    failed: Option<usize>,
    /// Whether the sign of the next value was read as a minus.
    pub(super) sign_taken: bool,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        let Lexed {
            tokens: all,
            diagnostics,
        } = lex(source);
        let mut tokens: Vec<Token> = Vec::with_capacity(all.len());
        let mut comments: Vec<Between> = Vec::new();
        let mut line = 0;
        for token in all {
            if token.kind == TokenKind::Comment {
                let ends_line = token.at.line == line;
                comments.push(Between {
                    span: token.span,
                    next: tokens.len(),
                    ends_line,
                });
                continue;
            }
            let mut newline = false;
            let mut next = token.span.start;
            for comment in comments
                .iter_mut()
                .rev()
                .take_while(|c| c.next == tokens.len())
            {
                newline |= Span::new(comment.span.end, next)
                    .text(source)
                    .contains('\n');
                comment.ends_line &= newline;
                newline |= comment.span.text(source).contains('\n');
                next = comment.span.start;
            }
            line = token.at.after(token.text(source)).line;
            tokens.push(token);
        }
        Self {
            source,
            tokens,
            comments,
            comment: 0,
            index: 0,
            end: 0,
            depth: 0,
            diagnostics,
            failed: None,
            sign_taken: false,
        }
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Goes to a statement.
    pub(super) fn limit(&mut self, range: std::ops::Range<usize>) {
        self.index = range.start;
        self.end = range.end;
    }

    pub(super) fn diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics
            .sort_by_key(|diagnostic| diagnostic.span.start);
        self.diagnostics
    }

    pub(super) fn peek(&self) -> Option<Token> {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, steps: usize) -> Option<Token> {
        let index = self.index + steps;
        if index < self.end {
            self.tokens.get(index).copied()
        } else {
            None
        }
    }

    pub(super) fn bump(&mut self) -> Option<Token> {
        let token = self.peek()?;
        self.index += 1;
        Some(token)
    }

    pub(super) fn at(&self, symbol: Symbol) -> bool {
        self.peek().is_some_and(|token| token.is(symbol))
    }

    pub(super) fn at_word(&self, keyword: Keyword) -> bool {
        self.peek()
            .is_some_and(|token| token.kind == TokenKind::Keyword(keyword))
    }

    pub(super) fn eat(&mut self, symbol: Symbol) -> bool {
        let found = self.at(symbol);
        self.index += usize::from(found);
        found
    }

    pub(super) fn eat_word(&mut self, keyword: Keyword) -> bool {
        let found = self.at_word(keyword);
        self.index += usize::from(found);
        found
    }

    fn previous_end(&self) -> usize {
        let previous = self
            .index
            .checked_sub(1)
            .and_then(|index| self.tokens.get(index));
        previous.map_or(0, |token| token.span.end)
    }

    /// Where the next token starts, or the last one ended.
    pub(super) fn here(&self) -> usize {
        self.peek()
            .map_or_else(|| self.previous_end(), |token| token.span.start)
    }

    /// From a place to the end of the last token.
    pub(super) fn since(&self, start: usize) -> Span {
        Span::new(start, self.previous_end().max(start))
    }

    /// Whether the next token touches the last one.
    fn touches(&self) -> bool {
        self.peek()
            .is_some_and(|token| token.span.start == self.previous_end())
    }

    pub(super) fn found(&self) -> String {
        self.peek().map_or_else(
            || "the end".to_owned(),
            |token| quote(token.text(self.source)),
        )
    }

    /// Reports a problem at a token, whatever was reported there before.
    pub(super) fn note(&mut self, token: Token, problem: Problem) {
        self.diagnostics.push(Diagnostic {
            span: token.span,
            at: token.at,
            problem,
        });
    }

    /// Reports that reading cannot go on at the next token; once per token.
    pub(super) fn error(&mut self, problem: Problem) {
        if self.failed.is_some_and(|failed| self.index <= failed) {
            return;
        }
        self.failed = Some(self.index);
        match self.peek() {
            Some(token) if token.kind == TokenKind::Broken => {}
            Some(token) => self.note(token, problem),
            None => {
                let end = self.previous_end();
                let previous = self
                    .index
                    .checked_sub(1)
                    .and_then(|index| self.tokens.get(index));
                let at = previous.map_or(Position::START, |t| t.at.after(t.text(self.source)));
                self.diagnostics.push(Diagnostic {
                    span: Span::new(end, end),
                    at,
                    problem,
                });
            }
        }
    }

    pub(super) fn unexpected(&mut self, expected: &'static str) {
        let found = self.found();
        self.error(Problem::Unexpected { expected, found });
    }

    /// Goes one level deeper, or reports that this is too deep.
    pub(super) fn enter(&mut self) -> bool {
        if self.depth >= MAX_DEPTH {
            self.error(Problem::TooDeep(MAX_DEPTH));
            return false;
        }
        self.depth += 1;
        true
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// A name; an empty one is in the tree where none stands. A keyword is taken for a name when
    /// it touches a dot, or is surely not meant as one.
    pub(super) fn name(&mut self, expected: &'static str) -> Name {
        let start = self.here();
        match self.peek() {
            Some(token) if matches!(token.kind, TokenKind::Name | TokenKind::QuotedName) => {
                self.index += 1;
                Name {
                    text: token.text(self.source).to_owned(),
                    at: token.span.into(),
                }
            }
            Some(token) if self.keyword_meant_as_name(token) => {
                self.note(token, Problem::Reserved(token.text(self.source).to_owned()));
                self.index += 1;
                Name {
                    text: format!("`{}`", token.text(self.source)),
                    at: token.span.into(),
                }
            }
            _ => {
                self.unexpected(expected);
                Name {
                    text: String::new(),
                    at: Span::new(start, start).into(),
                }
            }
        }
    }

    fn keyword_meant_as_name(&self, token: Token) -> bool {
        let before = self
            .index
            .checked_sub(1)
            .and_then(|index| self.tokens.get(index));
        let after_dot = before.is_some_and(|before| before.is(Symbol::Dot)) && self.touches();
        let after_as = before.is_some_and(|b| b.kind == TokenKind::Keyword(Keyword::As));
        let before_equal = self.ahead(1).is_some_and(|next| next.is(Symbol::Equal));
        match token.kind {
            TokenKind::Keyword(Keyword::From) => after_dot || before_equal,
            TokenKind::Keyword(_) => after_dot || after_as || before_equal,
            _ => false,
        }
    }

    /// Expects a closing bracket; without it, skips to where it may be.
    pub(super) fn close(&mut self, open: Token, close: Symbol) {
        if self.eat(close) {
            return;
        }
        let first = |text: &str| text.chars().next().unwrap_or(' ');
        self.error(Problem::Unclosed {
            open: first(open.text(self.source)),
            close: first(close.as_str()),
            at: open.at,
            found: self.found(),
        });
        self.skip();
        while self.eat(Symbol::Comma) {
            self.skip();
        }
        self.eat(close);
    }

    /// Skips what cannot be read, whole brackets at once: to the next comma, clause or closing
    /// bracket. Returns the skipped text.
    pub(super) fn skip(&mut self) -> String {
        let start = self.here();
        let mut depth = 0usize;
        while let Some(token) = self.peek() {
            match token.kind {
                TokenKind::Symbol(Symbol::OpenParen | Symbol::OpenBrace | Symbol::OpenBracket) => {
                    depth += 1
                }
                TokenKind::Symbol(
                    Symbol::CloseParen | Symbol::CloseBrace | Symbol::CloseBracket,
                ) => match depth.checked_sub(1) {
                    None => break,
                    Some(outer) => depth = outer,
                },
                TokenKind::Symbol(Symbol::Comma) if depth == 0 => break,
                TokenKind::Keyword(
                    Keyword::From
                    | Keyword::Where
                    | Keyword::GroupBy
                    | Keyword::OrderBy
                    | Keyword::Limit,
                ) if depth == 0 => break,
                _ => {}
            }
            self.index += 1;
        }
        self.since(start).text(self.source).to_owned()
    }

    /// Skips the rest of the statement and returns its text.
    pub(super) fn skip_all(&mut self) -> String {
        let start = self.here();
        self.index = self.end;
        self.since(start).text(self.source).to_owned()
    }

    fn take_comments(&mut self, wanted: impl Fn(&Between) -> bool) -> Vec<Comment> {
        let mut taken = Vec::new();
        while let Some(comment) = self.comments.get(self.comment)
            && wanted(comment)
        {
            let text = comment.span.text(self.source).trim_end().to_owned();
            taken.push(Comment { text });
            self.comment += 1;
        }
        taken
    }

    /// Comments in front of the next token that no node has taken.
    pub(super) fn comments_before(&mut self) -> Vec<Comment> {
        let index = self.index;
        self.take_comments(|comment| comment.next <= index)
    }

    /// Comments inside the node just read that no node has taken, and those that end its line.
    /// What ends the line of a whole statement is left for the statement.
    pub(super) fn comments_after(&mut self) -> Vec<Comment> {
        let index = self.index;
        let inside = index < self.end;
        self.take_comments(|comment| {
            comment.next < index || (inside && comment.next == index && comment.ends_line)
        })
    }

    /// The same for a statement.
    pub(super) fn comments_after_statement(&mut self) -> Vec<Comment> {
        let index = self.index;
        self.take_comments(|comment| comment.next <= index && comment.ends_line)
    }

    pub(super) fn all_comments(&mut self) -> Vec<Comment> {
        self.take_comments(|_| true)
    }
}
