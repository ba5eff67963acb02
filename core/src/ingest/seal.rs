//! Seals: the hash of a whole file, and whether it is the one that the agent reported.
//!
//! Agents report a hash in the row that `upload()` gives, wherever a query puts it. A file belongs
//! to a row by the name that it is stored under, or by the list of its names from the top.

use crate::ids::{ClientKey, ContentId, FlowId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// The source of documents that are seals; no upload has this name.
pub const SEALS: &str = "seals";

/// Objects inside each other that are looked at.
const DEPTH: usize = 8;

/// Whether a file is what the agent says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The agent reported this hash.
    #[serde(rename = "verified")]
    Verified,
    /// The agent reported another hash.
    #[serde(rename = "differs")]
    Differs,
    /// No row of the flow says what the hash is.
    #[serde(rename = "not reported")]
    NotReported,
}

/// What is known of a whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The upload.
    pub upload_id: String,
    /// What it was made of ([`Arranged::content`](super::Arranged::content)); if it is made of
    /// something else by now the seal says nothing.
    pub content: String,
    /// Of the bytes as they are stored, hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// What the agent reported, hex; of several other hashes the smallest.
    pub reported: Option<String>,
    /// How the two compare.
    pub verdict: Verdict,
}

impl Seal {
    /// The id of an upload's seal.
    pub fn id(key: &ClientKey, flow: &FlowId, upload: &str) -> ContentId {
        ContentId::of(&[
            b"seal",
            key.org.as_str().as_bytes(),
            &key.client.to_bytes(),
            flow.as_str().as_bytes(),
            upload.as_bytes(),
        ])
    }
}

/// The hashes that a flow's rows report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    by_place: HashMap<String, BTreeSet<String>>,
}

impl Reports {
    /// Takes what a row, one JSON object, reports.
    pub fn read(&mut self, row: &str) {
        let may_report = row.contains("ha256") || row.contains("HA256");
        if may_report && let Ok(row) = serde_json::from_str(row) {
            self.walk(&row, DEPTH);
        }
    }

    fn walk(&mut self, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        match value {
            Value::Object(fields) => {
                self.report(fields);
                fields.values().for_each(|field| self.walk(field, depth));
            }
            Value::Array(list) => list.iter().for_each(|item| self.walk(item, depth)),
            _ => {}
        }
    }

    fn report(&mut self, fields: &serde_json::Map<String, Value>) {
        let field = |wanted: &str| {
            let mut fields = fields.iter();
            fields
                .find(|(name, _)| name.trim_start_matches('_').eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value)
        };
        let Some(hash) = field("sha256").and_then(Value::as_str).filter(is_sha256) else {
            return;
        };
        let named =
            ["storedname", "path", "ospath"].map(|name| field(name).and_then(Value::as_str));
        let named = named.into_iter().flatten().find(|name| !name.is_empty());
        let parts = field("components").and_then(Value::as_array);
        let parts: Option<Vec<&str>> =
            parts.and_then(|parts| parts.iter().map(Value::as_str).collect());
        let places = [named.map(by_name), parts.as_deref().and_then(by_components)];
        for place in places.into_iter().flatten() {
            let hashes = self.by_place.entry(place).or_default();
            hashes.insert(hash.to_ascii_lowercase());
        }
    }

    /// How a file's hash, in lower case, compares with what is reported of it; and that.
    pub fn judge(
        &self,
        path: &str,
        components: &[String],
        sha256: &str,
    ) -> (Verdict, Option<String>) {
        let components: Vec<&str> = components.iter().map(String::as_str).collect();
        let places = [Some(by_name(path)), by_components(&components)];
        let reported: BTreeSet<&str> = places
            .iter()
            .flatten()
            .filter_map(|place| self.by_place.get(place))
            .flatten()
            .map(String::as_str)
            .collect();
        match reported.first() {
            None => (Verdict::NotReported, None),
            Some(_) if reported.contains(sha256) => (Verdict::Verified, Some(sha256.to_owned())),
            Some(other) => (Verdict::Differs, Some((*other).to_owned())),
        }
    }
}

fn is_sha256(text: &&str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn by_name(name: &str) -> String {
    format!("n{name}")
}

/// None when the list names nothing, as it does of a file that has a name of its own.
fn by_components(components: &[&str]) -> Option<String> {
    let names = components.iter().any(|part| !part.is_empty());
    names.then(|| format!("c{}", Value::from(components.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "5659775bcf099ec1624adf4f7d4a16072bd005cd4b04cf728c8ce3eda5022672";
    const OTHER: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn reports(rows: &[Value]) -> Reports {
        let mut reports = Reports::default();
        rows.iter().for_each(|row| reports.read(&row.to_string()));
        reports
    }

    fn judged(reports: &Reports, path: &str, components: &[&str]) -> Verdict {
        let components: Vec<String> = components.iter().map(|&part| part.to_owned()).collect();
        reports.judge(path, &components, ONE).0
    }

    #[test]
    fn a_report_is_found_wherever_a_query_puts_it() {
        for row in [
            serde_json::json!({"U": {"Path": "x", "sha256": ONE, "StoredName": "/a/b"}}),
            serde_json::json!({"Path": "/a/b", "Sha256": ONE.to_ascii_uppercase()}),
            serde_json::json!({"Files": [{"Upload": {"SHA256": ONE, "OSPath": "/a/b"}}]}),
            serde_json::json!({"_Components": ["a", "b"], "Path": "elsewhere", "Sha256": ONE}),
        ] {
            let reports = reports(&[row]);
            assert_eq!(
                judged(&reports, "/a/b", &["a", "b"]),
                Verdict::Verified,
                "{reports:?}"
            );
            assert_eq!(judged(&reports, "/a/c", &["a", "c"]), Verdict::NotReported);
        }
    }

    #[test]
    fn another_hash_differs_and_no_hash_is_none() {
        let other =
            reports(&[serde_json::json!({"StoredName": "s", "Components": [""], "sha256": OTHER})]);
        assert_eq!(
            other.judge("s", &[String::new()], ONE),
            (Verdict::Differs, Some(OTHER.to_owned()))
        );
        // A list without names is nobody's.
        assert_eq!(judged(&other, "t", &[""]), Verdict::NotReported);
        for row in [
            serde_json::json!({"Path": "s", "Sha256": null, "Error": "no"}),
            serde_json::json!({"Path": "s", "Sha256": "not a hash"}),
            serde_json::json!({"Sha256": ONE}),
        ] {
            assert_eq!(judged(&reports(&[row]), "s", &[]), Verdict::NotReported);
        }
    }

    #[test]
    fn of_a_file_that_was_sent_twice_either_report_will_do() {
        let row = |hash| serde_json::json!({"Path": "/a", "Sha256": hash});
        let (there, back) = (
            reports(&[row(ONE), row(OTHER)]),
            reports(&[row(OTHER), row(ONE)]),
        );
        assert_eq!(there, back);
        assert_eq!(judged(&there, "/a", &[]), Verdict::Verified);
    }

    #[test]
    fn rows_of_any_shape_are_passed_over() {
        let deep = "[".repeat(100_000) + "\"sha256\"";
        let mut reports = Reports::default();
        for row in ["", "sha256", "{\"sha256\":", "[1,2]", deep.as_str()] {
            reports.read(row);
        }
        assert_eq!(reports, Reports::default());
    }
}
