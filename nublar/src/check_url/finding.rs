//! What was found, a line for each.

use anyhow::Result;
use serde::Serialize;
use std::io::Write as _;

/// What a finding means for agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// They can live with it.
    Note,
    /// They cannot come, or not live with it.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    level: Level,
    /// What it is about, a word.
    about: &'static str,
    /// What was seen.
    seen: String,
    /// What is to be changed; empty if nothing is.
    change: String,
}

impl Finding {
    pub(super) fn ok(about: &'static str, seen: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            about,
            seen: seen.into(),
            change: String::new(),
        }
    }

    pub(super) fn note(
        about: &'static str,
        seen: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Note,
            change: change.into(),
            ..Self::ok(about, seen)
        }
    }

    pub(super) fn bad(
        about: &'static str,
        seen: impl Into<String>,
        change: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Bad,
            ..Self::note(about, seen, change)
        }
    }
}

/// Prints findings as they come.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    url: String,
    good: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            url: String::new(),
            good: true,
        }
    }

    /// From now on findings are of this URL.
    pub(super) fn begin(&mut self, url: &str) -> Result<()> {
        url.clone_into(&mut self.url);
        if !self.json {
            writeln!(std::io::stdout(), "{url}")?;
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, finding: Finding) -> Result<()> {
        self.good &= finding.level != Level::Bad;
        let line = if self.json {
            let mut value = serde_json::json!({ "url": self.url });
            if let (Some(fields), serde_json::Value::Object(more)) =
                (value.as_object_mut(), serde_json::to_value(&finding)?)
            {
                fields.extend(more);
            }
            value.to_string()
        } else {
            let Finding {
                level,
                about,
                seen,
                change,
            } = finding;
            let level = match level {
                Level::Ok => "ok",
                Level::Note => "note",
                Level::Bad => "BAD",
            };
            let change = if change.is_empty() {
                change
            } else {
                format!(": {change}")
            };
            format!("  {level:4}  {about:11}  {seen}{change}")
        };
        Ok(writeln!(std::io::stdout(), "{line}")?)
    }

    /// Whether nothing bad was found.
    pub(super) fn is_good(&self) -> bool {
        self.good
    }
}
