//! Reads lists: the arguments of calls, and expressions with commas between them.

use crate::problem::Problem;
use crate::span::Span;
use crate::token::{Keyword, Symbol, Token, TokenKind};
use crate::tree::{Argument, ArgumentValue, Comments, Expression, Item, List, Name};

use super::cursor::Cursor;

impl Cursor<'_> {
    /// `(name=value, ...)`: the bracket is the next token.
    pub(super) fn arguments(&mut self) -> Vec<Argument> {
        let mut arguments: Vec<Argument> = Vec::new();
        if !self.enter() {
            self.skip();
            return arguments;
        }
        let Some(open) = self.bump() else {
            return arguments;
        };
        while self.peek().is_some() && !self.at(Symbol::CloseParen) {
            let before = self.comments_before();
            let (name, value) = self.argument();
            let more = self.comma_in_call();
            let after = self.comments_after();
            arguments.push(Argument {
                name,
                value,
                comments: Comments { before, after },
            });
            if !more {
                break;
            }
        }
        if let Some(last) = arguments.last_mut() {
            last.comments.after.extend(self.comments_before());
        }
        self.close(open, Symbol::CloseParen);
        self.leave();
        arguments
    }

    /// A comma between arguments or parameters; reports one that nothing follows.
    pub(super) fn comma_in_call(&mut self) -> bool {
        let comma = self.peek();
        if !self.eat(Symbol::Comma) {
            return false;
        }
        if let Some(comma) = comma
            && self.at(Symbol::CloseParen)
        {
            self.note(comma, Problem::TrailingComma);
        }
        true
    }

    fn argument(&mut self) -> (Name, ArgumentValue) {
        let token = self.peek();
        let named = token.is_some_and(|token| {
            matches!(
                token.kind,
                TokenKind::Name | TokenKind::QuotedName | TokenKind::Keyword(_)
            )
        }) && self.ahead(1).is_some_and(|next| next.is(Symbol::Equal));
        if named {
            let name = self.name("the name of an argument");
            self.bump();
            return (name, self.argument_value());
        }
        let name = Name {
            text: String::new(),
            at: Span::new(self.here(), self.here()).into(),
        };
        if let Some(token) = token.filter(begins_expression) {
            if token.kind != TokenKind::Broken {
                self.note(token, Problem::Positional);
            }
        } else {
            self.unexpected("an argument");
        }
        (name, self.argument_value())
    }

    pub(super) fn argument_value(&mut self) -> ArgumentValue {
        let (value, problem) = if self.at(Symbol::OpenBrace) {
            (
                ArgumentValue::Select(Box::new(self.braced())),
                Problem::QueryElsewhere,
            )
        } else if self.at(Symbol::OpenBracket) {
            (
                ArgumentValue::List(self.bracketed()),
                Problem::ListElsewhere,
            )
        } else {
            return ArgumentValue::Expression(self.expression());
        };
        let continues = self.peek().is_some_and(|token| {
            !token.is(Symbol::Comma)
                && !token.is(Symbol::CloseParen)
                && matches!(
                    token.kind,
                    TokenKind::Symbol(_)
                        | TokenKind::Keyword(Keyword::And | Keyword::Or | Keyword::In)
                )
        });
        if continues {
            self.error(problem);
            self.skip();
        }
        value
    }

    /// `[a, b]`: the bracket is the next token.
    pub(super) fn bracketed(&mut self) -> List {
        if !self.enter() {
            self.skip();
            return List {
                items: Vec::new(),
                comma: false,
            };
        }
        let open = self.bump();
        let list = if self.at(Symbol::CloseBracket) {
            List {
                items: Vec::new(),
                comma: false,
            }
        } else {
            self.list_in_brackets()
        };
        if let Some(open) = open {
            self.close(open, Symbol::CloseBracket);
        }
        self.leave();
        list
    }

    pub(super) fn list_in_brackets(&mut self) -> List {
        let mut list = self.list();
        if let Some(last) = list.items.last_mut() {
            last.comments.after.extend(self.comments_before());
        }
        list
    }

    /// At least one expression, with commas between them and perhaps one at the end.
    pub(super) fn list(&mut self) -> List {
        let mut items = Vec::new();
        let comma = loop {
            let before = self.comments_before();
            let value = self.list_value(items.is_empty());
            let comma = self.eat(Symbol::Comma);
            let after = self.comments_after();
            items.push(Item {
                value,
                comments: Comments { before, after },
            });
            if let Some(token) = self.peek().filter(|token| comma && token.is(Symbol::Comma)) {
                self.note(token, Problem::Hole);
                self.beyond_hole();
                break true;
            }
            if !comma || !self.peek().is_some_and(|token| begins_expression(&token)) {
                break comma;
            }
        };
        List {
            comma: comma && items.len() == 1,
            items,
        }
    }

    /// An expression of a list. After the first comma agents let several stand side by side, and
    /// keep the last.
    fn list_value(&mut self, first: bool) -> Expression {
        let mut value = self.expression();
        while let Some(token) = self
            .peek()
            .filter(|token| !first && begins_expression(token))
        {
            if token.kind != TokenKind::Broken {
                self.note(token, Problem::MissingComma);
            }
            value = self.expression();
        }
        value
    }

    /// Reads what stands behind two commas in a row, which agents drop.
    fn beyond_hole(&mut self) {
        while self.eat(Symbol::Comma) {
            if self.peek().is_some_and(|token| begins_expression(&token)) {
                self.list_value(false);
            }
        }
    }
}

/// Whether an expression can begin here, or something is there that is none but was meant as one.
pub(super) fn begins_expression(token: &Token) -> bool {
    match token.kind {
        TokenKind::Name
        | TokenKind::QuotedName
        | TokenKind::SignedName
        | TokenKind::Number
        | TokenKind::Text
        | TokenKind::Broken => true,
        TokenKind::Keyword(keyword) => matches!(
            keyword,
            Keyword::Not | Keyword::Null | Keyword::True | Keyword::False
        ),
        TokenKind::Symbol(symbol) => matches!(
            symbol,
            Symbol::OpenParen | Symbol::OpenBrace | Symbol::OpenBracket | Symbol::Minus
        ),
        TokenKind::Comment => false,
    }
}
