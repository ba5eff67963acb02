//! What a flow is to do: a simulated agent runs no VQL, it reads its orders from a variable.

use crate::chance::Chance;
use nublar_schemas::agent::VqlCollectorArgs;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The variable that holds a [`Script`] as JSON.
pub const VARIABLE: &str = "SIM";

/// The artifact that hands a script to simulated agents; real ones would give one row.
pub const ARTIFACT: &str = "Nublar.Simulated";

/// The YAML of [`ARTIFACT`].
pub const ARTIFACT_YAML: &str = r"name: Nublar.Simulated
description: |
  A load for simulated agents, which read their orders from the parameter.
parameters:
  - name: SIM
    description: The orders, as JSON.
    default: '{}'
sources:
  - query: SELECT SIM FROM scope()
";

/// One file to upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadScript {
    /// Its path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Whether its parts are sent as zlib streams.
    #[serde(default)]
    pub compress: bool,
}

/// The orders for one query of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Rows of each named statement.
    pub rows: u64,
    /// Rows in one message.
    pub rows_per_message: u64,
    /// Bytes of a row at least.
    pub row_bytes: usize,
    /// Log rows.
    pub logs: u64,
    /// Files.
    pub uploads: Vec<UploadScript>,
    /// How long it takes, milliseconds; it is divided by the speed.
    pub duration_ms: u64,
    /// An error, which does not keep the rows from coming. Empty for none.
    pub error: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            rows: 3,
            rows_per_message: 1000,
            row_bytes: 0,
            logs: 1,
            uploads: Vec::new(),
            duration_ms: 0,
            error: String::new(),
        }
    }
}

impl Script {
    /// The orders in a query: those of its variable, else the usual ones. What can not be read is
    /// a failed query that says why.
    pub fn of(args: &VqlCollectorArgs) -> Self {
        let Some(variable) = args.env.iter().find(|env| env.key == VARIABLE) else {
            return Self::default();
        };
        serde_json::from_str(&variable.value).unwrap_or_else(|error| Self {
            rows: 0,
            error: format!("the variable {VARIABLE} holds no orders: {error}"),
            ..Self::default()
        })
    }

    /// How long it takes at this speed.
    pub fn duration(&self, speed: f64) -> Duration {
        Duration::from_millis(self.duration_ms).div_f64(speed)
    }
}

/// Whose rows and bytes are made up.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The client.
    pub client: &'a str,
    /// The flow.
    pub flow: &'a str,
    /// Which run of the flow, from 0: no two runs give the same rows.
    pub run: usize,
}

impl Origin<'_> {
    fn chance(&self, what: &str, number: u64) -> Chance {
        let run = self.run as u64;
        Chance::of(
            &[self.client, self.flow, what],
            number.wrapping_add(run << 48),
        )
    }

    /// Adds one row as a line of JSON.
    pub fn row(&self, source: &str, number: u64, least: usize, out: &mut String) {
        use std::fmt::Write;
        let start = out.len();
        let Self { client, flow, run } = self;
        // Writing to a text does not fail.
        let _ = write!(
            out,
            "{{\"n\":{number},\"client\":\"{client}\",\"flow\":\"{flow}\",\"run\":{run},\"pad\":\""
        );
        let missing = least.saturating_sub(out.len() - start + 3);
        self.chance(source, number).text(missing, out);
        out.push_str("\"}\n");
    }

    /// A part of a file; `compressible` ones are letters.
    pub fn file_part(
        &self,
        upload: i64,
        offset: u64,
        length: usize,
        compressible: bool,
    ) -> Vec<u8> {
        let mut chance = self.chance(&format!("upload {upload}"), offset);
        if !compressible {
            return chance.bytes(length);
        }
        let mut out = String::with_capacity(length);
        while out.len() < length {
            let repeated = chance.below(7) + 1;
            let start = out.len();
            chance.text((length - start).min(12), &mut out);
            for _ in 0..repeated {
                let end = (start + 12).min(out.len());
                let word = out[start..end].to_owned();
                let room = length - out.len();
                out.push_str(&word[..word.len().min(room)]);
            }
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nublar_schemas::agent::VqlEnv;

    fn args(value: &str) -> VqlCollectorArgs {
        let env = VqlEnv {
            key: VARIABLE.into(),
            value: value.into(),
            ..VqlEnv::default()
        };
        VqlCollectorArgs {
            env: vec![env],
            ..VqlCollectorArgs::default()
        }
    }

    #[test]
    fn orders_come_from_the_variable() {
        assert_eq!(Script::of(&VqlCollectorArgs::default()), Script::default());
        let script = Script::of(&args(
            r#"{"rows": 7, "uploads": [{"name": "/a", "size": 3}]}"#,
        ));
        assert_eq!((script.rows, script.logs, script.uploads.len()), (7, 1, 1));
        assert_eq!(script.duration(10.0), Duration::ZERO);
        let broken = Script::of(&args(r#"{"rowz": 7}"#));
        assert!(broken.error.contains("rowz"), "{}", broken.error);
        assert_eq!(broken.rows, 0);
    }

    #[test]
    fn rows_are_valid_of_the_wanted_size_and_of_one_run() {
        let origin = Origin {
            client: "C.1",
            flow: "F.1",
            run: 0,
        };
        let row = |origin: Origin<'_>, number, least| {
            let mut out = String::new();
            origin.row("S", number, least, &mut out);
            out
        };
        let long = row(origin, 3, 200);
        assert_eq!(long.len(), 200);
        let read: serde_json::Value = serde_json::from_str(&long).unwrap();
        assert_eq!(read["n"], 3);
        assert!(row(origin, 3, 0).ends_with("\"pad\":\"\"}\n"));
        assert_ne!(long, row(Origin { run: 1, ..origin }, 3, 200));
        assert_eq!(long, row(origin, 3, 200));
    }

    #[test]
    fn files_have_their_length() {
        let origin = Origin {
            client: "C.1",
            flow: "F.1",
            run: 0,
        };
        for length in [0, 1, 11, 12, 13, 5000] {
            for compressible in [false, true] {
                assert_eq!(origin.file_part(0, 0, length, compressible).len(), length);
            }
        }
        assert_ne!(
            origin.file_part(0, 0, 64, false),
            origin.file_part(0, 64, 64, false)
        );
        assert_ne!(
            origin.file_part(0, 0, 64, false),
            origin.file_part(1, 0, 64, false)
        );
    }
}
