//! Makes YAML of what people write.
//!
//! Two habits are common and no valid YAML: a bare `query:` or `precondition:` with VQL below
//! it, and list items that begin with SELECT, LET or a comment. Both get the `|` they lack.
//! Nothing inside a block text is touched, and positions can be mapped back.

/// A repaired file.
#[derive(Debug)]
pub(super) struct Repaired {
    /// The text, its lines ended by `\n`, with one at the end.
    pub(super) text: String,
    /// The line of the original file, from 1, for every line of the text.
    lines: Vec<u32>,
}

impl Repaired {
    /// The line in the original file of a line in the text, both from 1.
    pub(super) fn original(&self, line: usize) -> u32 {
        let index = line.saturating_sub(1);
        let known = self.lines.get(index).or(self.lines.last());
        known.copied().unwrap_or(1)
    }
}

/// Repairs a file.
pub(super) fn repair(file: &str) -> Repaired {
    let mut text = String::with_capacity(file.len() + 64);
    let mut lines = Vec::new();
    // While inside a block text: the column it has to be indented beyond.
    let mut block: Option<usize> = None;
    for (number, line) in (1..).zip(file.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if block.is_some_and(|parent| line.trim().is_empty() || indent(line) > parent) {
            push(&mut text, &mut lines, number, &[line]);
            continue;
        }
        if let Some(column) = bare_key(line) {
            push(&mut text, &mut lines, number, &[line.trim_end(), " |"]);
            block = Some(column);
        } else if let Some(item) = statement_item(line) {
            let (dash, content) = line.split_at(item);
            push(&mut text, &mut lines, number, &[dash, "|"]);
            let blanks = " ".repeat(item);
            push(&mut text, &mut lines, number, &[&blanks, content]);
            block = Some(indent(line));
        } else {
            push(&mut text, &mut lines, number, &[line]);
            block = block_header(line);
        }
    }
    Repaired { text, lines }
}

fn push(text: &mut String, lines: &mut Vec<u32>, number: u32, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
    text.push('\n');
    lines.push(number);
}

/// Columns of blanks that a line begins with.
fn indent(line: &str) -> usize {
    line.bytes().take_while(|byte| *byte == b' ').count()
}

/// Bytes of blanks and dashes of list items that a line begins with.
fn prefix(line: &str) -> usize {
    let mut end = indent(line);
    while let Some(rest) = line.get(end..).and_then(|rest| rest.strip_prefix("- ")) {
        end += 2 + indent(rest);
    }
    end
}

/// The column of the key, if the line is nothing but `query:` or `precondition:`.
fn bare_key(line: &str) -> Option<usize> {
    let start = prefix(line);
    let key = line.get(start..)?.trim_end().strip_suffix(':')?;
    ["query", "precondition"]
        .iter()
        .any(|known| key.eq_ignore_ascii_case(known))
        .then_some(start)
}

/// Where the content of a list item begins, if that is a statement or a comment of VQL.
fn statement_item(line: &str) -> Option<usize> {
    let dash = indent(line);
    let rest = line.get(dash..)?.strip_prefix("- ")?;
    let start = dash + 2 + indent(rest);
    let content = line.get(start..)?;
    let begins = |word: &str| {
        let (head, tail) = content.split_at_checked(word.len())?;
        let ends = tail.is_empty() || tail.starts_with([' ', '\t']);
        (head.eq_ignore_ascii_case(word) && ends).then_some(())
    };
    let found = content.starts_with("//") || begins("SELECT").or(begins("LET")).is_some();
    (dash > 0 && found).then_some(start)
}

/// The column a block text has to be indented beyond, if the line ends with its `|` or `>`.
fn block_header(line: &str) -> Option<usize> {
    let content = line.split(" #").next().unwrap_or(line).trim_end();
    let header = content.rfind([' ', '\t']).map_or(0, |blank| blank + 1);
    let mark = content.get(header..)?;
    let indicator = mark.strip_prefix(['|', '>'])?;
    let before = content.get(..header)?.trim_end();
    let opens = before.ends_with(':') || before.ends_with('-') || before.is_empty();
    let plain = indicator
        .chars()
        .all(|character| matches!(character, '+' | '-' | '1'..='9'));
    if !(opens && plain) {
        return None;
    }
    let start = prefix(line);
    if before.ends_with(':') {
        return Some(start);
    }
    Some(start.saturating_sub(2).max(indent(line)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn repaired(file: &str) -> String {
        repair(file).text
    }

    #[test]
    fn bare_keys_get_a_bar() {
        assert_eq!(repaired("query:\n  SELECT *\n"), "query: |\n  SELECT *\n\n");
        assert_eq!(repaired("  - query: \r\n"), "  - query: |\n\n");
        assert_eq!(repaired(" Precondition:"), " Precondition: |\n");
        for whole in ["query: SELECT\n", "my query:\n", "querys:\n", "# query:\n"] {
            assert_eq!(repaired(whole), format!("{whole}\n"));
        }
    }

    #[test]
    fn statements_of_a_list_get_a_bar() {
        let file = "queries:\n  - LET x = 1\n  -   select *\n  - // why\n  - Letters\n- SELECT";
        let text = "queries:\n  - |\n    LET x = 1\n  -   |\n      select *\n  - |\n    // why\n  \
                    - Letters\n- SELECT\n";
        let repaired = repair(file);
        assert_eq!(repaired.text, text);
        let lines: Vec<u32> = (1..=10).map(|line| repaired.original(line)).collect();
        assert_eq!(lines, [1, 2, 2, 3, 3, 4, 4, 5, 6, 6]);
    }

    #[test]
    fn block_texts_are_left_alone() {
        for file in [
            "description: |\n  query:\n    - SELECT it\n\n  precondition:\nname: x\n",
            "a:\n  - |2- # why\n     query:\n  - b: >\n       query:\n",
            "- - |\n    query:\n",
        ] {
            assert_eq!(repaired(file), format!("{file}\n"));
        }
        assert_eq!(repaired("a: b |\n  query:\n"), "a: b |\n  query: |\n\n");
    }
}
