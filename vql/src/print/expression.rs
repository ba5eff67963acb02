//! Prints expressions, with the parentheses they need.

use crate::tree::{Access, Expression, ExpressionKind, Level, Operand};

use super::Printer;

impl Printer {
    pub(super) fn expression(&mut self, expression: &Expression) {
        if self.overflow {
            return;
        }
        if !self.fits(|printer| printer.kind(&expression.kind)) {
            self.kind(&expression.kind);
        }
    }

    fn kind(&mut self, kind: &ExpressionKind) {
        match kind {
            ExpressionKind::Number(text)
            | ExpressionKind::Text(text)
            | ExpressionKind::Broken(text) => self.word(text),
            ExpressionKind::Bool(true) => self.word("TRUE"),
            ExpressionKind::Bool(false) => self.word("FALSE"),
            ExpressionKind::Null => self.word("NULL"),
            ExpressionKind::Path(path) => {
                self.word(if path.negative { "-" } else { "" });
                self.path(&path.names);
            }
            ExpressionKind::Call(path, arguments) => {
                self.word(if path.negative { "-" } else { "" });
                self.path(&path.names);
                self.arguments(arguments);
            }
            ExpressionKind::Parentheses(list) => {
                self.enclosed("(", ")", |printer| printer.list(list));
            }
            ExpressionKind::Member(base, steps) => {
                self.at_least(base, Level::Value);
                for step in steps {
                    self.access(step);
                }
            }
            ExpressionKind::Not(inner) => {
                self.word("NOT ");
                self.at_least(inner, Level::Not);
            }
            ExpressionKind::Operation(first, operands) => self.operation(first, operands),
        }
    }

    /// An expression where only those of a level or tighter can stand without parentheses.
    fn at_least(&mut self, expression: &Expression, level: Level) {
        if expression.kind.level() >= level {
            self.expression(expression);
        } else {
            self.word("(");
            self.expression(expression);
            self.word(")");
        }
    }

    fn access(&mut self, step: &Access) {
        match step {
            Access::Name(name) => {
                self.word(".");
                self.name(name);
            }
            Access::Index(index) => {
                self.word("[");
                self.at_least(index, Level::Value);
                self.word("]");
            }
            Access::Slice(first, last) => {
                self.word("[");
                if let Some(first) = first {
                    self.at_least(first, Level::Value);
                }
                self.word(":");
                if let Some(last) = last {
                    self.at_least(last, Level::Value);
                }
                self.word("]");
            }
        }
    }

    fn operation(&mut self, first: &Expression, operands: &[Operand]) {
        let level = operands
            .first()
            .map_or(Level::And, |operand| operand.operator.level());
        let (left, right) = match level {
            Level::And => (Level::Or, Level::Or),
            Level::Or => (Level::Not, Level::Not),
            Level::Comparison => (Level::Sum, Level::Sum),
            Level::Sum => (Level::Product, Level::Product),
            _ => (Level::Member, Level::Value),
        };
        self.at_least(first, left);
        self.indented(|printer| {
            for operand in operands {
                if printer.overflow {
                    return;
                }
                if printer.limit.is_some() {
                    printer.word(" ");
                    if !operand.comments.before.is_empty() {
                        printer.overflow = true;
                    }
                } else {
                    printer.newline();
                }
                printer.before(&operand.comments);
                printer.word(operand.operator.as_str());
                printer.word(" ");
                printer.at_least(&operand.value, right);
                printer.after(&operand.comments);
            }
        });
    }
}
