//! Bytes as people look at them: offset, hex digits, characters.

use super::output::Output;
use anyhow::Result;
use nublar_core::ids::hex;
use serde_json::json;

/// Bytes of a line.
const WIDTH: usize = 16;

/// Writes lines of 16 bytes. A line that is the same as the one before is written once, and those
/// that follow it become one asterisk.
pub(super) struct Hex {
    at: u64,
    line: Vec<u8>,
    before: Vec<u8>,
    repeats: bool,
}

impl Hex {
    /// Of bytes that begin at this offset.
    pub(super) fn new(at: u64) -> Self {
        Self {
            at,
            line: Vec::with_capacity(WIDTH),
            before: Vec::new(),
            repeats: false,
        }
    }

    pub(super) fn write(&mut self, out: &mut Output, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (some, rest) = bytes.split_at(bytes.len().min(WIDTH - self.line.len()));
            self.line.extend_from_slice(some);
            bytes = rest;
            if self.line.len() == WIDTH {
                self.end_line(out)?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and the offset behind the last byte.
    pub(super) fn end(mut self, out: &mut Output) -> Result<()> {
        if !self.line.is_empty() {
            self.end_line(out)?;
        }
        if out.json {
            Ok(())
        } else {
            out.line(&format!("{:08x}", self.at))
        }
    }

    fn end_line(&mut self, out: &mut Output) -> Result<()> {
        let (at, line) = (self.at, std::mem::take(&mut self.line));
        self.at += line.len() as u64;
        if out.json {
            let digits = hex(&line);
            let text = characters(&line);
            return out.value(&json!({ "offset": at, "hex": digits, "text": text }));
        }
        if line == self.before {
            if !std::mem::replace(&mut self.repeats, true) {
                out.line("*")?;
            }
            return Ok(());
        }
        self.repeats = false;
        out.line(&shown(at, &line))?;
        self.before = line;
        Ok(())
    }
}

/// One line: `00000010  68 65 6c 6c 6f 0a                                 |hello.|`.
pub(super) fn shown(at: u64, line: &[u8]) -> String {
    let half = |bytes: &[u8]| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(" ")
    };
    let (left, right) = line.split_at(line.len().min(WIDTH / 2));
    format!(
        "{at:08x}  {:23}  {:23}  |{}|",
        half(left),
        half(right),
        characters(line)
    )
}

fn characters(line: &[u8]) -> String {
    let shown = |byte: &u8| {
        if byte.is_ascii_graphic() || *byte == b' ' {
            char::from(*byte)
        } else {
            '.'
        }
    };
    line.iter().map(shown).collect()
}
