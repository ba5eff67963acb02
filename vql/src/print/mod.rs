//! Prints a tree as VQL that reads back as the same tree.
//!
//! Keywords are upper case. What fits a line of 80 bytes stands on one; what does not is broken
//! into one clause, column, argument or operator a line. Comments keep their order and stand in
//! front of, or at the end of the line of, the item they were read with.

mod expression;
mod select;

use std::fmt;

use crate::tree::{
    Body, Comments, Expression, Lambda, Let, LetValue, Name, Parameter, Select, Source, Statement,
};

const WIDTH: usize = 80;
const INDENT: usize = 2;

/// Prints a source: statements with an empty line between them, and a line end after the last.
///
/// ```
/// let tree = nublar_vql::parse("let x=1 select x from scope()").into_result()?;
/// assert_eq!(nublar_vql::format(&tree), "LET x = 1\n\nSELECT x FROM scope()\n");
/// # Ok::<(), nublar_vql::SyntaxError>(())
/// ```
///
/// Blanks and the case of keywords are not kept, nor is the difference between `|` and `OR`.
/// Text in broken nodes is printed as it is, and reads back as some broken text. A tree made by
/// hand gets the parentheses it needs; names in it must be quoted, see
/// [`quote_name`](crate::quote_name).
#[must_use]
pub fn format(source: &Source) -> String {
    let mut printer = Printer::default();
    printer.source(source);
    let mut text = printer.finish();
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

macro_rules! display {
    ($($node:ident with $print:ident,)*) => {
        $(impl fmt::Display for $node {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut printer = Printer::default();
                printer.$print(self);
                formatter.write_str(&printer.finish())
            }
        })*
    };
}

display! {
    Source with source,
    Statement with statement,
    Select with select,
    Expression with expression,
    Lambda with lambda,
}

#[derive(Default)]
struct Printer {
    out: String,
    indent: usize,
    /// Where the current line starts in `out`.
    line: usize,
    /// While something is tried on one line: how long `out` may get.
    limit: Option<usize>,
    /// That it did not fit.
    overflow: bool,
    /// That the line ends with a comment: nothing may follow on it.
    ended: bool,
}

impl Printer {
    fn finish(self) -> String {
        self.out
    }

    fn word(&mut self, text: &str) {
        if self.overflow || text.is_empty() {
            return;
        }
        if self.ended {
            self.newline();
        }
        self.out.push_str(text);
        if let Some(limit) = self.limit {
            self.overflow = self.out.len() > limit || text.contains('\n');
        } else if let Some(newline) = text.rfind('\n') {
            self.line = self.out.len() - text.len() + newline + 1;
        }
    }

    fn name(&mut self, name: &Name) {
        self.word(&name.text);
    }

    fn newline(&mut self) {
        if self.limit.is_some() {
            self.overflow = true;
            return;
        }
        let kept = self.out.trim_end_matches(' ').len().max(self.line);
        self.out.truncate(kept);
        self.out.push('\n');
        self.line = self.out.len();
        self.out.extend(std::iter::repeat_n(' ', self.indent));
        self.ended = false;
    }

    /// Prints something with its lines further to the right.
    fn indented(&mut self, print: impl FnOnce(&mut Self)) {
        self.indent += INDENT;
        print(self);
        self.indent -= INDENT;
    }

    /// Prints something if it fits the current line; leaves no trace if it does not.
    fn fits(&mut self, print: impl FnOnce(&mut Self)) -> bool {
        if self.limit.is_some() {
            print(self);
            return true;
        }
        if self.ended {
            self.newline();
        }
        let start = self.out.len();
        self.limit = Some(self.line + WIDTH);
        print(self);
        self.limit = None;
        let fits = !std::mem::take(&mut self.overflow);
        if !fits {
            self.out.truncate(start);
        }
        fits
    }

    /// Comments on lines of their own: the line must be empty.
    fn before(&mut self, comments: &Comments) {
        for comment in &comments.before {
            self.word(&comment.text);
            self.newline();
        }
    }

    /// Comments at the end of the line.
    fn after(&mut self, comments: &Comments) {
        for comment in &comments.after {
            if self.limit.is_some() {
                self.overflow = true;
                return;
            }
            if !self.ended {
                self.out.push(' ');
            }
            self.word(&comment.text);
            self.ended = true;
        }
    }

    /// Items with commas between them, on one line or each on a line of its own.
    fn items<T>(
        &mut self,
        items: &[T],
        last_comma: bool,
        comments: impl Fn(&T) -> &Comments,
        print: impl Fn(&mut Self, &T),
    ) {
        for (index, item) in items.iter().enumerate() {
            if self.overflow {
                return;
            }
            if self.limit.is_none() {
                self.newline();
            } else if index > 0 {
                self.word(" ");
            }
            self.before(comments(item));
            print(self, item);
            if last_comma || index + 1 < items.len() {
                self.word(",");
            }
            self.after(comments(item));
        }
    }

    /// Items in brackets: on one line if they fit.
    fn enclosed(&mut self, open: &str, close: &str, items: impl Fn(&mut Self)) {
        self.word(open);
        if self.limit.is_some() {
            items(self);
            self.word(close);
            return;
        }
        let fits = self.fits(|printer| {
            items(printer);
            printer.word(close);
        });
        if !fits {
            self.indented(|printer| items(printer));
            self.newline();
            self.word(close);
        }
    }

    fn source(&mut self, source: &Source) {
        for (index, statement) in source.statements.iter().enumerate() {
            if index > 0 {
                self.newline();
                self.newline();
            }
            self.statement(statement);
        }
        for (index, comment) in source.end.before.iter().enumerate() {
            if index == 0 && !source.statements.is_empty() {
                self.newline();
            }
            if index > 0 || !source.statements.is_empty() {
                self.newline();
            }
            self.word(&comment.text);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        self.before(&statement.comments);
        match &statement.body {
            Body::Let(definition) => self.definition(definition),
            Body::Select(select) => self.select(select),
            Body::Broken(text) => self.word(text),
        }
        self.after(&statement.comments);
    }

    fn definition(&mut self, definition: &Let) {
        self.word("LET ");
        self.name(&definition.name);
        if let Some(parameters) = &definition.parameters {
            self.enclosed("(", ")", |printer| {
                printer.items(parameters, false, |item| &item.comments, Self::parameter);
            });
        }
        self.word(if definition.materialized {
            " <= "
        } else {
            " = "
        });
        match &definition.value {
            LetValue::Expression(expression) => self.expression(expression),
            LetValue::Select(select) => {
                if !self.fits(|printer| printer.select(select)) {
                    self.indented(|printer| {
                        printer.newline();
                        printer.select(select);
                    });
                }
            }
        }
    }

    fn parameter(&mut self, parameter: &Parameter) {
        self.name(&parameter.name);
        if let Some(default) = &parameter.default {
            self.word("=");
            self.argument_value(default);
        }
    }

    fn lambda(&mut self, lambda: &Lambda) {
        for (index, parameter) in lambda.parameters.iter().enumerate() {
            self.word(if index == 0 { "" } else { ", " });
            self.name(parameter);
        }
        self.word(" => ");
        self.expression(&lambda.body);
    }
}
