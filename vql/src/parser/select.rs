//! Reads SELECT and its clauses.

use crate::literal::{Number, number_value};
use crate::problem::Problem;
use crate::token::{Keyword, Symbol, Token, TokenKind};
use crate::tree::{Clause, Column, ColumnValue, Comments, From, OrderBy, Select};

use super::cursor::Cursor;
use super::list::begins_expression;

impl Cursor<'_> {
    pub(super) fn select(&mut self) -> Select {
        let comments = Comments {
            before: self.comments_before(),
            after: Vec::new(),
        };
        let start = self.here();
        let mut explain = false;
        while self.eat_word(Keyword::Explain) {
            explain = true;
        }
        if !self.eat_word(Keyword::Select) {
            self.unexpected("SELECT");
        }
        let columns = self.columns();
        let mut select = Select {
            explain,
            columns,
            from: None,
            filter: None,
            group_by: None,
            order_by: None,
            limit: None,
            comments,
            at: self.since(start).into(),
        };
        if self.at_word(Keyword::From) {
            select.from = Some(self.clause(Self::from));
        } else {
            self.unexpected("`,`, AS or FROM");
            self.skip();
        }
        self.clauses(&mut select);
        select.at = self.since(start).into();
        select
    }

    fn columns(&mut self) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        while self.peek().is_some_and(|token| begins_column(&token)) {
            columns.push(self.column());
            if !self.at(Symbol::Comma) && !self.at_word(Keyword::From) {
                if let [
                    Column {
                        value: ColumnValue::Star,
                        alias: None,
                        ..
                    },
                ] = columns.as_slice()
                    && self.peek().is_some_and(|token| begins_column(&token))
                {
                    continue;
                }
                if self.peek().is_some() {
                    self.unexpected("`,`, AS or FROM");
                }
                self.skip();
            }
            let comma = self.peek();
            if !self.eat(Symbol::Comma) {
                break;
            }
            if let Some(last) = columns.last_mut() {
                last.comments.after.extend(self.comments_after());
            }
            let star_first = matches!(
                columns.as_slice(),
                [Column {
                    value: ColumnValue::Star,
                    ..
                }]
            );
            if let (Some(comma), Some(next)) = (comma, self.peek())
                && !begins_column(&next)
                && !(star_first && self.at_word(Keyword::From))
            {
                if self.at_word(Keyword::From) {
                    self.note(comma, Problem::TrailingComma);
                } else {
                    self.unexpected("a column");
                    self.skip();
                    while self.eat(Symbol::Comma) {}
                }
            }
        }
        columns
    }

    fn column(&mut self) -> Column {
        let before = self.comments_before();
        let start = self.here();
        let value = if self.eat(Symbol::Star) {
            ColumnValue::Star
        } else if self.at(Symbol::OpenBrace) {
            ColumnValue::Select(Box::new(self.braced()))
        } else {
            ColumnValue::Expression(self.expression())
        };
        let mut alias = None;
        if let Some(token) = self.peek()
            && self.eat_word(Keyword::As)
        {
            alias = Some(self.name("the name of the column"));
            if value == ColumnValue::Star {
                self.note(token, Problem::NamedStar);
            }
        }
        let at = self.since(start).into();
        let after = self.comments_after();
        Column {
            value,
            alias,
            comments: Comments { before, after },
            at,
        }
    }

    /// A clause: its keyword is the next token.
    fn clause<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Clause<T> {
        let before = self.comments_before();
        self.bump();
        let value = read(self);
        Clause {
            value,
            comments: Comments {
                before,
                after: self.comments_after(),
            },
        }
    }

    fn clauses(&mut self, select: &mut Select) {
        let mut last = 0;
        while let Some(token) = self.peek() {
            let (rank, name) = match token.kind {
                TokenKind::Keyword(Keyword::From) => (0, "FROM"),
                TokenKind::Keyword(Keyword::Where) => (1, "WHERE"),
                TokenKind::Keyword(Keyword::GroupBy) => (2, "GROUP BY"),
                TokenKind::Keyword(Keyword::OrderBy) => (3, "ORDER BY"),
                TokenKind::Keyword(Keyword::Limit) => (4, "LIMIT"),
                _ => return,
            };
            if rank <= last {
                self.note(token, Problem::ClauseOrder(name));
            }
            last = last.max(rank);
            match rank {
                0 => {
                    let clause = self.clause(Self::from);
                    select.from.get_or_insert(clause);
                }
                1 => {
                    let clause = self.clause(Self::list);
                    select.filter.get_or_insert(clause);
                }
                2 => {
                    let clause = self.clause(Self::list);
                    select.group_by.get_or_insert(clause);
                }
                3 => {
                    let clause = self.clause(Self::order);
                    select.order_by.get_or_insert(clause);
                }
                _ => {
                    let Clause { value, comments } = self.clause(Self::count);
                    if let Some(value) = value {
                        select.limit.get_or_insert(Clause { value, comments });
                    }
                }
            }
        }
    }

    fn from(&mut self) -> From {
        let start = self.here();
        let mut path = Vec::new();
        if self
            .peek()
            .is_some_and(|t| matches!(t.kind, TokenKind::Name | TokenKind::QuotedName))
        {
            path.push(self.name("the name of a plugin"));
            while self.eat(Symbol::Dot) {
                path.push(self.name("a name after the dot"));
            }
        } else {
            self.unexpected("the name of a plugin, artifact or LET");
            self.skip();
        }
        let called = !path.is_empty() && self.at(Symbol::OpenParen);
        let arguments = called.then(|| self.arguments());
        From {
            path,
            arguments,
            at: self.since(start).into(),
        }
    }

    fn order(&mut self) -> OrderBy {
        let column = self.name("the name of a column");
        match self.peek() {
            Some(token)
                if token.kind == TokenKind::Name
                    && token.text(self.source).eq_ignore_ascii_case("ASC") =>
            {
                self.note(token, Problem::Ascending);
                self.bump();
            }
            Some(Token {
                kind: TokenKind::Symbol(symbol),
                ..
            }) if !matches!(
                symbol,
                Symbol::CloseParen | Symbol::CloseBrace | Symbol::CloseBracket
            ) =>
            {
                self.error(Problem::OrderByExpression);
                self.skip();
                while self.eat(Symbol::Comma) {
                    self.skip();
                }
            }
            _ => {}
        }
        OrderBy {
            column,
            descending: self.eat_word(Keyword::Desc),
        }
    }

    fn count(&mut self) -> Option<i64> {
        let token = self.peek().filter(|token| {
            !matches!(
                token.kind,
                TokenKind::Symbol(
                    Symbol::CloseParen | Symbol::CloseBrace | Symbol::CloseBracket | Symbol::Comma
                )
            )
        });
        let value = token.map(|token| number_value(token.text(self.source)));
        if let (Some(Some(Number::Integer(limit))), Some(TokenKind::Number)) =
            (value, token.map(|token| token.kind))
        {
            self.bump();
            return Some(limit);
        }
        let found = self.found();
        self.error(Problem::Limit(found));
        if token.is_some() {
            self.bump();
        }
        None
    }

    /// `{ SELECT ... }`: the brace is the next token.
    pub(super) fn braced(&mut self) -> Select {
        let open = self.peek();
        if !self.enter() {
            self.skip();
            return Select {
                explain: false,
                columns: Vec::new(),
                from: None,
                filter: None,
                group_by: None,
                order_by: None,
                limit: None,
                comments: Comments::default(),
                at: open.map(|token| token.span).unwrap_or_default().into(),
            };
        }
        self.bump();
        let mut select = self.select();
        select.comments.after.extend(self.comments_before());
        if let Some(open) = open {
            self.close(open, Symbol::CloseBrace);
        }
        self.leave();
        select
    }
}

fn begins_column(token: &Token) -> bool {
    token.is(Symbol::Star) || begins_expression(token)
}
