//! Where a piece of text stands: byte spans, lines and columns.

/// A half-open range of bytes in a source: `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset just past the last byte.
    pub end: usize,
}

impl Span {
    /// The span `start..end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// The text of this span, empty when the span does not fit the source.
    #[must_use]
    pub fn text(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// A place for people: both count from 1, columns count characters (Unicode scalar values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1; a line ends at `\n`.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl Position {
    /// The first character of a source.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The position after `text`, when `self` is the position of its first character.
    #[must_use]
    pub fn after(self, text: &str) -> Self {
        let (mut line, mut column) = (self.line, self.column);
        for byte in text.bytes() {
            if byte == b'\n' {
                line = line.saturating_add(1);
                column = 1;
            } else if byte & 0xC0 != 0x80 {
                column = column.saturating_add(1);
            }
        }
        Self { line, column }
    }

    /// The position of a byte offset; offsets past the end, or inside a character, give the
    /// nearest earlier character boundary.
    ///
    /// ```
    /// use nublar_vql::Position;
    /// assert_eq!(Position::of("a\né b", 4), Position { line: 2, column: 2 });
    /// ```
    #[must_use]
    pub fn of(source: &str, offset: usize) -> Self {
        let mut offset = offset.min(source.len());
        while !source.is_char_boundary(offset) {
            offset -= 1;
        }
        Self::START.after(source.get(..offset).unwrap_or_default())
    }
}

/// The span of a tree node. It never takes part in comparisons: two trees are equal when they
/// say the same, wherever they were read.
#[derive(Debug, Clone, Copy, Default)]
pub struct At(pub Span);

impl PartialEq for At {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for At {}

impl From<Span> for At {
    fn from(span: Span) -> Self {
        Self(span)
    }
}
