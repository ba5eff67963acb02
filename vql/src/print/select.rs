//! Prints SELECT, its clauses, and the arguments of calls.

use crate::tree::{
    Argument, ArgumentValue, Clause, Column, ColumnValue, From, Item, List, Name, OrderBy, Select,
};

use super::Printer;

impl Printer {
    pub(super) fn select(&mut self, select: &Select) {
        if self.overflow {
            return;
        }
        self.before(&select.comments);
        if !self.fits(|printer| printer.clauses(select)) {
            self.clauses(select);
        }
        for comment in &select.comments.after {
            self.newline();
            self.word(&comment.text);
        }
        self.ended |= !select.comments.after.is_empty();
    }

    fn clauses(&mut self, select: &Select) {
        self.word(if select.explain {
            "EXPLAIN SELECT"
        } else {
            "SELECT"
        });
        if !select.columns.is_empty() {
            let columns = |printer: &mut Self| {
                printer.items(&select.columns, false, |item| &item.comments, Self::column);
            };
            let fits = self.fits(|printer| {
                printer.word(" ");
                columns(printer);
            });
            if !fits {
                self.indented(columns);
            }
        }
        if let Some(clause) = &select.from {
            self.clause("FROM ", clause, Self::from);
        }
        if let Some(clause) = &select.filter {
            self.clause("WHERE ", clause, Self::bare_list);
        }
        if let Some(clause) = &select.group_by {
            self.clause("GROUP BY ", clause, Self::bare_list);
        }
        if let Some(clause) = &select.order_by {
            self.clause("ORDER BY ", clause, Self::order);
        }
        if let Some(clause) = &select.limit {
            self.clause("LIMIT ", clause, |printer, limit| {
                printer.word(&limit.to_string())
            });
        }
    }

    fn clause<T>(&mut self, keyword: &str, clause: &Clause<T>, print: impl Fn(&mut Self, &T)) {
        if self.overflow {
            return;
        }
        if self.limit.is_some() {
            self.word(" ");
        } else {
            self.newline();
        }
        self.before(&clause.comments);
        self.word(keyword);
        print(self, &clause.value);
        self.after(&clause.comments);
    }

    fn column(&mut self, column: &Column) {
        match &column.value {
            ColumnValue::Star => self.word("*"),
            ColumnValue::Select(select) => self.braced(select),
            ColumnValue::Expression(expression) => self.expression(expression),
        }
        if let Some(alias) = &column.alias {
            self.word(" AS ");
            self.name(alias);
        }
    }

    fn from(&mut self, from: &From) {
        self.path(&from.path);
        if let Some(arguments) = &from.arguments {
            self.arguments(arguments);
        }
    }

    fn order(&mut self, order: &OrderBy) {
        self.name(&order.column);
        if order.descending {
            self.word(" DESC");
        }
    }

    /// A list without brackets around it.
    fn bare_list(&mut self, list: &List) {
        if self.fits(|printer| printer.list(list)) {
            return;
        }
        match list.items.as_slice() {
            [item] if !list.comma && item.comments.before.is_empty() => {
                self.expression(&item.value);
                self.after(&item.comments);
            }
            _ => self.indented(|printer| printer.list(list)),
        }
    }

    pub(super) fn list(&mut self, list: &List) {
        let comma = list.comma && list.items.len() == 1;
        self.items(&list.items, comma, |item| &item.comments, Self::item);
    }

    fn item(&mut self, item: &Item) {
        self.expression(&item.value);
    }

    pub(super) fn path(&mut self, names: &[Name]) {
        for (index, name) in names.iter().enumerate() {
            self.word(if index == 0 { "" } else { "." });
            self.name(name);
        }
    }

    pub(super) fn arguments(&mut self, arguments: &[Argument]) {
        if arguments.is_empty() {
            self.word("()");
            return;
        }
        self.enclosed("(", ")", |printer| {
            printer.items(arguments, false, |item| &item.comments, Self::argument);
        });
    }

    fn argument(&mut self, argument: &Argument) {
        self.name(&argument.name);
        if !argument.name.text.is_empty() {
            self.word("=");
        }
        self.argument_value(&argument.value);
    }

    pub(super) fn argument_value(&mut self, value: &ArgumentValue) {
        match value {
            ArgumentValue::Select(select) => self.braced(select),
            ArgumentValue::List(list) if list.items.is_empty() => self.word("[]"),
            ArgumentValue::List(list) => {
                self.enclosed("[", "]", |printer| printer.list(list));
            }
            ArgumentValue::Expression(expression) => self.expression(expression),
        }
    }

    fn braced(&mut self, select: &Select) {
        let fits = self.fits(|printer| {
            printer.word("{ ");
            printer.select(select);
            printer.word(" }");
        });
        if !fits {
            self.word("{");
            self.indented(|printer| {
                printer.newline();
                printer.select(select);
            });
            self.newline();
            self.word("}");
        }
    }
}
