//! Reads expressions.

use crate::problem::Problem;
use crate::token::{Keyword, Symbol, Token, TokenKind};
use crate::tree::{
    Access, Comments, Expression, ExpressionKind, Level, Name, Operand, Operator, Path,
};

use super::cursor::Cursor;

impl Cursor<'_> {
    pub(super) fn expression(&mut self) -> Expression {
        self.operation(Level::And)
    }

    /// Values of the next tighter level with operators of this one between them.
    fn operation(&mut self, level: Level) -> Expression {
        let start = self.here();
        let first = self.tighter(level);
        let mut operands: Vec<Operand> = Vec::new();
        while let Some((token, operator)) = self.operator(level) {
            let mut before = self.comments_before();
            self.take_operator(token, operator);
            before.extend(self.comments_before());
            let value = self.tighter(level);
            match operator {
                Operator::AngleNotEqual => self.note(token, Problem::AngleNotEqual),
                Operator::Times | Operator::Divide if value.kind.level() == Level::Member => {
                    self.note(token, Problem::AccessedFactor);
                }
                _ => {}
            }
            if level == Level::Comparison && !operands.is_empty() {
                self.note(token, Problem::ChainedComparison);
            }
            let after = self.comments_after();
            operands.push(Operand {
                operator,
                value,
                comments: Comments { before, after },
            });
        }
        if operands.is_empty() {
            return first;
        }
        Expression::new(
            ExpressionKind::Operation(Box::new(first), operands),
            self.since(start),
        )
    }

    fn tighter(&mut self, level: Level) -> Expression {
        match level {
            Level::And => self.operation(Level::Or),
            Level::Or | Level::Not => self.condition(),
            Level::Comparison => self.operation(Level::Sum),
            Level::Sum => self.operation(Level::Product),
            Level::Product | Level::Member | Level::Value => self.member(),
        }
    }

    /// The next token as an operator of a level.
    fn operator(&self, level: Level) -> Option<(Token, Operator)> {
        let token = self.peek()?;
        let operator = match token.kind {
            TokenKind::Keyword(Keyword::And) => Operator::And,
            TokenKind::Keyword(Keyword::Or) => Operator::Or,
            TokenKind::Keyword(Keyword::In) => Operator::In,
            TokenKind::SignedName => Operator::Minus,
            TokenKind::Number if token.text(self.source).starts_with('-') => Operator::Minus,
            TokenKind::Symbol(symbol) => match symbol {
                Symbol::AndThen => Operator::AndThen,
                Symbol::Bar => Operator::Or,
                Symbol::OrElse => Operator::OrElse,
                Symbol::Equal => Operator::Equal,
                Symbol::NotEqual => Operator::NotEqual,
                Symbol::AngleNotEqual => Operator::AngleNotEqual,
                Symbol::Less => Operator::Less,
                Symbol::LessEqual => Operator::LessEqual,
                Symbol::Greater => Operator::Greater,
                Symbol::GreaterEqual => Operator::GreaterEqual,
                Symbol::Match => Operator::Match,
                Symbol::Plus => Operator::Plus,
                Symbol::Minus => Operator::Minus,
                Symbol::Star => Operator::Times,
                Symbol::Slash => Operator::Divide,
                _ => return None,
            },
            _ => return None,
        };
        (operator.level() == level).then_some((token, operator))
    }

    /// Steps over an operator. The sign of a name or number is one that agents refuse.
    fn take_operator(&mut self, token: Token, operator: Operator) {
        if operator == Operator::Minus && !token.is(Symbol::Minus) {
            self.note(token, Problem::SignNotMinus);
            self.sign_taken = true;
        } else {
            self.bump();
        }
    }

    fn condition(&mut self) -> Expression {
        if !self.at_word(Keyword::Not) {
            return self.operation(Level::Comparison);
        }
        self.negation()
    }

    fn negation(&mut self) -> Expression {
        let start = self.here();
        if !self.enter() {
            return self.broken(start);
        }
        self.bump();
        let inner = self.condition();
        self.leave();
        Expression::new(ExpressionKind::Not(Box::new(inner)), self.since(start))
    }

    /// Skips what is no expression.
    fn broken(&mut self, start: usize) -> Expression {
        self.skip();
        let span = self.since(start);
        Expression::new(
            ExpressionKind::Broken(span.text(self.source).to_owned()),
            span,
        )
    }

    fn member(&mut self) -> Expression {
        let start = self.here();
        let base = self.value();
        let mut steps = Vec::new();
        loop {
            if self.at(Symbol::OpenBracket) {
                steps.push(self.index());
            } else if self.eat(Symbol::Dot) {
                steps.push(Access::Name(self.name("a name after the dot")));
            } else {
                break;
            }
        }
        if steps.is_empty() {
            return base;
        }
        Expression::new(
            ExpressionKind::Member(Box::new(base), steps),
            self.since(start),
        )
    }

    /// `[index]` or `[start:end]`: the bracket is the next token. Agents take `::` for `:`.
    fn index(&mut self) -> Access {
        let start = self.here();
        if !self.enter() {
            return Access::Index(Box::new(self.broken(start)));
        }
        let open = self.bump();
        if let Some(token) = self.peek().filter(|token| token.is(Symbol::CloseBracket)) {
            self.note(token, Problem::EmptyIndex);
        }
        let first = self.index_value();
        let slice = self.eat(Symbol::Colon);
        while self.eat(Symbol::Colon) {}
        let last = if slice { self.index_value() } else { None };
        if let Some(open) = open {
            self.close(open, Symbol::CloseBracket);
        }
        self.leave();
        if slice {
            return Access::Slice(first, last);
        }
        Access::Index(first.unwrap_or_else(|| {
            let span = self.since(start);
            Box::new(Expression::new(ExpressionKind::Broken(String::new()), span))
        }))
    }

    fn index_value(&mut self) -> Option<Box<Expression>> {
        let token = self.peek()?;
        if token.is(Symbol::Colon) || token.is(Symbol::CloseBracket) {
            return None;
        }
        let value = self.expression();
        if value.kind.level() != Level::Value {
            self.note(token, Problem::ComplexIndex);
        }
        Some(Box::new(value))
    }

    fn value(&mut self) -> Expression {
        let start = self.here();
        let Some(token) = self.peek() else {
            self.unexpected("an expression");
            return self.broken(start);
        };
        let kind = match token.kind {
            TokenKind::Name | TokenKind::QuotedName | TokenKind::SignedName => self.path(token),
            TokenKind::Number => {
                self.bump();
                let text = token.text(self.source);
                let taken = std::mem::take(&mut self.sign_taken);
                let text = text.strip_prefix('-').filter(|_| taken).unwrap_or(text);
                ExpressionKind::Number(text.to_owned())
            }
            TokenKind::Text => {
                self.bump();
                ExpressionKind::Text(token.text(self.source).to_owned())
            }
            TokenKind::Keyword(word @ (Keyword::True | Keyword::False)) => {
                self.bump();
                ExpressionKind::Bool(word == Keyword::True)
            }
            TokenKind::Keyword(Keyword::Null) => {
                self.bump();
                ExpressionKind::Null
            }
            TokenKind::Keyword(Keyword::Not) => {
                self.note(token, Problem::NotElsewhere);
                return self.negation();
            }
            TokenKind::Symbol(Symbol::OpenParen) => return self.parentheses(token),
            TokenKind::Symbol(Symbol::OpenBracket) => {
                self.error(Problem::ListElsewhere);
                self.bracketed();
                return self.unfit(start);
            }
            TokenKind::Symbol(Symbol::OpenBrace) => {
                self.error(Problem::QueryElsewhere);
                self.braced();
                return self.unfit(start);
            }
            TokenKind::Symbol(Symbol::Minus) => {
                self.error(Problem::LoneSign);
                while self.eat(Symbol::Minus) {}
                if self.enter() {
                    self.value();
                    self.leave();
                }
                return self.unfit(start);
            }
            _ => {
                self.unexpected("an expression");
                return self.broken(start);
            }
        };
        Expression::new(kind, self.since(start))
    }

    /// What was just read is known, but not allowed here.
    fn unfit(&self, start: usize) -> Expression {
        let span = self.since(start);
        Expression::new(
            ExpressionKind::Broken(span.text(self.source).to_owned()),
            span,
        )
    }

    fn parentheses(&mut self, open: Token) -> Expression {
        let start = self.here();
        if !self.enter() {
            return self.broken(start);
        }
        self.bump();
        if let Some(token) = self.peek().filter(|token| token.is(Symbol::CloseParen)) {
            self.note(token, Problem::EmptyParentheses);
            self.bump();
            self.leave();
            return self.unfit(start);
        }
        let list = self.list_in_brackets();
        self.close(open, Symbol::CloseParen);
        self.leave();
        Expression::new(ExpressionKind::Parentheses(list), self.since(start))
    }

    /// Names with dots, and a call if a bracket follows: the first name is the next token.
    fn path(&mut self, first: Token) -> ExpressionKind {
        self.bump();
        let text = first.text(self.source);
        let signed = first.kind == TokenKind::SignedName;
        let taken = std::mem::take(&mut self.sign_taken);
        let name = text.strip_prefix('-').filter(|_| signed).unwrap_or(text);
        let mut path = Path {
            negative: signed && !taken,
            names: vec![Name {
                text: name.to_owned(),
                at: first.span.into(),
            }],
        };
        while self.eat(Symbol::Dot) {
            path.names.push(self.name("a name after the dot"));
        }
        if !self.at(Symbol::OpenParen) {
            return ExpressionKind::Path(path);
        }
        let mut arguments = self.arguments();
        while let Some(token) = self.peek().filter(|token| token.is(Symbol::OpenParen)) {
            self.note(token, Problem::CalledTwice);
            arguments.extend(self.arguments());
        }
        ExpressionKind::Call(path, arguments)
    }
}
