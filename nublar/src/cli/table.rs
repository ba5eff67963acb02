//! Aligned tables.

use std::fmt;

/// The longest text of a cell; what is longer ends in an ellipsis.
const LONGEST: usize = 80;

/// A table with a head.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
    longest: usize,
}

impl Table {
    /// The names of the columns; one that begins with `>` is aligned to the right.
    pub(super) fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Self {
        let (mut names, mut right) = (Vec::new(), Vec::new());
        for name in head {
            let name = name.as_ref();
            right.push(name.starts_with('>'));
            names.push(name.strip_prefix('>').unwrap_or(name).to_owned());
        }
        Self {
            head: names,
            right,
            rows: Vec::new(),
            longest: LONGEST,
        }
    }

    /// The same with cells of any length.
    pub(super) fn unbounded(mut self) -> Self {
        self.longest = usize::MAX;
        self
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells
            .into_iter()
            .map(|cell| bounded(&shown(&cell), self.longest));
        self.rows.push(cells.collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|name| width(name)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut line = String::new();
            for (place, cell) in row.iter().enumerate() {
                let column = widths.get(place).copied().unwrap_or(0);
                let blanks = " ".repeat(column.saturating_sub(width(cell)));
                if place > 0 {
                    line.push_str("  ");
                }
                if self.right.get(place).copied().unwrap_or(false) {
                    line.push_str(&blanks);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&blanks);
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Columns on a terminal: wide characters take two, marks that combine take none.
fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

/// A text without what could move the cursor, colour the screen or turn the reading direction.
pub(super) fn shown(text: &str) -> String {
    let harmful = |character: char| {
        character.is_control()
            || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(harmful) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if harmful(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

fn bounded(text: &str, longest: usize) -> String {
    if width(text) <= longest {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 1);
    for character in text.chars() {
        used += columns(character);
        if used > longest {
            break;
        }
        out.push(character);
    }
    out + "…"
}
