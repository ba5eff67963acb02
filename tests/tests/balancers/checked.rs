//! `nublar check-url` as a process, and what it found.

use nublar_tests::program;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The findings of one URL, by what they are about.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) good: bool,
    findings: BTreeMap<String, Value>,
}

impl Checked {
    /// Checks a URL with what a data folder knows, or with an agent's configuration.
    pub(crate) async fn of(source: (&str, &Path), url: &str, more: &[&str]) -> Self {
        let mut command = Command::new(program());
        command
            .args(["check-url", "--json", source.0])
            .arg(source.1);
        command.args(more).arg(url);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let done = run.await.unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8(done.stderr).unwrap();
        assert_eq!(errors, "", "{said}");
        let findings = said.lines().map(|line| {
            let finding: Value = serde_json::from_str(line).unwrap();
            assert_eq!(finding["url"], url);
            (finding["about"].as_str().unwrap().to_owned(), finding)
        });
        Self {
            good: done.status.success(),
            findings: findings.collect(),
        }
    }

    /// With the secrets of a server, and little patience.
    pub(crate) async fn quick(data: &Path, url: &str) -> Self {
        Self::of(("--data", data), url, &["--idle", "3"]).await
    }

    /// What all is found about.
    pub(crate) fn abouts(&self) -> Vec<&str> {
        self.findings.keys().map(String::as_str).collect()
    }

    /// The finding about this is of this level and holds these words.
    pub(crate) fn says(&self, about: &str, level: &str, words: &[&str]) -> &Self {
        let found = self.findings.get(about);
        let finding = found.unwrap_or_else(|| panic!("nothing about {about}: {self:#?}"));
        assert_eq!(finding["level"], level, "{finding}");
        let text = format!("{}: {}", finding["seen"], finding["change"]);
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {finding}");
        }
        self
    }

    /// Nothing but what is as it should be.
    pub(crate) fn is_well(&self) -> &Self {
        assert!(self.good, "{self:#?}");
        for about in self.abouts() {
            self.says(about, "ok", &[]);
        }
        self
    }
}
