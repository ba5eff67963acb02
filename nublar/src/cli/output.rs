//! Printing: JSON or text, and never an agent's control characters.

use super::table::{Table, shown};
use anyhow::Result;
use serde_json::Value;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

/// Standard output.
pub(super) struct Output {
    pub(super) json: bool,
    stdout: BufWriter<Stdout>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            stdout: BufWriter::new(std::io::stdout()),
        }
    }

    /// A line of text.
    pub(super) fn line(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// One JSON value, on one line.
    pub(super) fn value(&mut self, value: &Value) -> Result<()> {
        Ok(writeln!(self.stdout, "{value}")?)
    }

    /// One JSON document, for people to read too.
    pub(super) fn document(&mut self, value: &Value) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.stdout, value)?;
        Ok(writeln!(self.stdout)?)
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// A table, or a word when it is empty.
    pub(super) fn table(&mut self, table: &Table, when_empty: &str) -> Result<()> {
        if table.is_empty() {
            return self.line(when_empty);
        }
        self.bytes(table.to_string().as_bytes())
    }

    /// The end of a list: its table, or a word when it is empty. As JSON every item was printed
    /// when it came.
    pub(super) fn listed(&mut self, table: &Table, when_empty: &str) -> Result<()> {
        if self.json {
            return Ok(());
        }
        self.table(table, when_empty)
    }

    /// Names with their values, one a line; empty values are left out.
    pub(super) fn fields(&mut self, fields: &[(&str, String)]) -> Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            self.line(&format!("{name:width$}  {}", shown(value)))?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.stdout.flush()?)
    }
}

/// A list in a document, empty when it is not there.
pub(super) fn items<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    let items = document.get(name).and_then(Value::as_array);
    items.map_or(&[], Vec::as_slice)
}

/// A text field of a document, empty when it is not there.
pub(super) fn text(document: &Value, name: &str) -> String {
    match document.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        Some(other) => other.to_string(),
    }
}

/// A number of a document, 0 when it is not there.
pub(super) fn number(document: &Value, name: &str) -> u64 {
    document.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Whether a person looks at standard error.
pub(super) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
