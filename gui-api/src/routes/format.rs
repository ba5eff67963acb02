//! Rows as JSON lines, as one JSON array, or as CSV.

use crate::refusal::{Answer, Refusal};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// A row a line, as the agent wrote it.
    #[default]
    Jsonl,
    /// An array of the same rows.
    Json,
    /// A line of column names, then a line for each row; values that are no text as JSON.
    Csv,
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/jsonl",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// The columns of rows, in the order in which they are first seen.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Columns {
    /// Adds the columns of a row.
    pub(crate) fn see(&mut self, line: &str) {
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'_>>(line) else {
            return self.add("_unreadable");
        };
        for (name, _) in fields {
            self.add(&name);
        }
    }

    /// Whether all columns of a row were seen.
    pub(crate) fn know(&self, line: &str) -> bool {
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'_>>(line) else {
            return self.places.contains_key("_unreadable");
        };
        fields
            .iter()
            .all(|(name, _)| self.places.contains_key(name))
    }

    fn add(&mut self, name: &str) {
        if !self.places.contains_key(name) {
            self.places.insert(name.to_owned(), self.names.len());
            self.names.push(name.to_owned());
        }
    }
}

/// Writes rows.
#[derive(Debug)]
pub(crate) struct Writer {
    format: Format,
    columns: Columns,
    first: bool,
}

impl Writer {
    /// `columns` are needed for CSV only, and must be those of every row.
    pub(crate) fn new(format: Format, columns: Columns) -> Self {
        Self {
            format,
            columns,
            first: true,
        }
    }

    /// What stands before the rows.
    pub(crate) fn head(&self) -> String {
        match self.format {
            Format::Jsonl => String::new(),
            Format::Json => "[".to_owned(),
            Format::Csv => {
                let names: Vec<String> =
                    self.columns.names.iter().map(|name| quoted(name)).collect();
                if names.is_empty() {
                    String::new()
                } else {
                    format!("{}\n", names.join(","))
                }
            }
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, line: &str, out: &mut String) -> Answer<()> {
        let unreadable;
        let (line, fields) = if self.format == Format::Csv {
            match serde_json::from_str::<Fields<'_>>(line) {
                Ok(fields) => (line, fields),
                Err(_) => {
                    unreadable = json!({ "_unreadable": line }).to_string();
                    let fields = serde_json::from_str(&unreadable)
                        .map_err(|error| Refusal::fault(error.to_string()))?;
                    (unreadable.as_str(), fields)
                }
            }
        } else if serde_json::from_str::<IgnoredAny>(line).is_ok() {
            (line, Fields(Vec::new()))
        } else {
            // What an agent garbled must not make the whole unreadable.
            unreadable = json!({ "_unreadable": line }).to_string();
            (unreadable.as_str(), Fields(Vec::new()))
        };
        match self.format {
            Format::Jsonl => {
                out.push_str(line);
                out.push('\n');
            }
            Format::Json => {
                out.push_str(if self.first { "\n" } else { ",\n" });
                out.push_str(line);
            }
            Format::Csv if !self.columns.know(line) => {
                return Err(Refusal::later("rows of other columns came in between"));
            }
            Format::Csv => self.csv(&fields, out),
        }
        self.first = false;
        Ok(())
    }

    fn csv(&self, Fields(fields): &Fields<'_>, out: &mut String) {
        let mut cells = vec![""; self.columns.names.len()];
        for (name, value) in fields {
            if let Some(cell) = self
                .columns
                .places
                .get(name)
                .and_then(|place| cells.get_mut(*place))
            {
                *cell = value.get();
            }
        }
        let cells: Vec<String> = cells.into_iter().map(cell).collect();
        out.push_str(&cells.join(","));
        out.push('\n');
    }

    /// What stands behind the rows.
    pub(crate) fn tail(&self) -> &'static str {
        match self.format {
            Format::Jsonl | Format::Csv => "",
            Format::Json if self.first => "]\n",
            Format::Json => "\n]\n",
        }
    }
}

fn cell(value: &str) -> String {
    if value == "null" {
        return String::new();
    }
    if value.starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(value)
    {
        return quoted(&text);
    }
    quoted(value)
}

fn quoted(text: &str) -> String {
    let blank = |end: Option<char>| end.is_some_and(char::is_whitespace);
    let plain = !text.contains([',', '"', '\n', '\r'])
        && !blank(text.chars().next())
        && !blank(text.chars().next_back());
    if plain {
        text.to_owned()
    } else {
        format!("\"{}\"", text.replace('"', "\"\""))
    }
}

/// The fields of an object, in their order, values as they stand.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &RawValue>()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Read).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(format: Format, lines: &[&str]) -> String {
        let mut columns = Columns::default();
        lines.iter().for_each(|line| columns.see(line));
        let mut writer = Writer::new(format, columns);
        let mut out = writer.head();
        lines
            .iter()
            .for_each(|line| writer.row(line, &mut out).unwrap());
        out + writer.tail()
    }

    const ROWS: [&str; 3] = [
        r#"{"n": 18446744073709551615, "a": 1.50, "t": "x,\"y\"\n", "z": null}"#,
        r#"{"n":2,"new":{"k": [1, 2]}}"#,
        r#"{"t":" é ","n":true}"#,
    ];

    #[test]
    fn json_keeps_every_byte_of_a_row() {
        assert_eq!(written(Format::Jsonl, &ROWS), ROWS.join("\n") + "\n");
        let array = written(Format::Json, &ROWS);
        assert_eq!(array, format!("[\n{}\n]\n", ROWS.join(",\n")));
        assert!(serde_json::from_str::<Vec<serde_json::Value>>(&array).is_ok());
        assert_eq!(written(Format::Json, &[]), "[]\n");
    }

    #[test]
    fn csv_has_every_column_in_the_order_of_its_first_row() {
        assert_eq!(
            written(Format::Csv, &ROWS),
            "n,a,t,z,new\n\
             18446744073709551615,1.50,\"x,\"\"y\"\"\n\",,\n\
             2,,,,\"{\"\"k\"\": [1, 2]}\"\n\
             true,,\" é \",,\n"
        );
        assert_eq!(written(Format::Csv, &[]), "");
    }

    #[test]
    fn no_column_is_left_out_in_silence() {
        let mut columns = Columns::default();
        columns.see(ROWS[1]);
        let mut writer = Writer::new(Format::Csv, columns);
        let mut out = String::new();
        writer.row(ROWS[1], &mut out).unwrap();
        assert!(writer.row(ROWS[2], &mut out).is_err());
        assert!(writer.row("garbled", &mut out).is_err());
        assert_eq!(out.lines().count(), 1);
    }

    #[test]
    fn what_is_no_json_stays_readable() {
        let garbled = ["{\"a\":1}", "{\"a\":"];
        let lines = written(Format::Jsonl, &garbled);
        assert_eq!(lines, "{\"a\":1}\n{\"_unreadable\":\"{\\\"a\\\":\"}\n");
        assert_eq!(
            written(Format::Csv, &garbled),
            "a,_unreadable\n1,\n,\"{\"\"a\"\":\"\n"
        );
    }
}
