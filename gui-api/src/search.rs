//! The language of the search box.
//!
//! Terms stand side by side and all of them must match. A term is a word, or one of `host:`,
//! `client:`, `label:`, `os:`, `ip:`, `mac:` with a word behind it; quotes keep blanks together.
//! Words match the beginning of a value, whatever its case; `*` stands for any text and `?` for
//! one character, and a word with either must match the whole value. A bare word is looked for in
//! host names, ids, labels and addresses. `all` matches everything, `label:none` what has no label.

use crate::refusal::{Answer, Refusal};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Any,
    Host,
    Client,
    Label,
    Os,
    Ip,
    Mac,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: Field,
    /// In lower case.
    pattern: String,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Search {
    terms: Vec<Term>,
}

impl Search {
    /// Reads what stands in the box.
    pub(crate) fn read(text: &str) -> Answer<Self> {
        let terms = split(text)?.iter().filter_map(|text| term(text)).collect();
        Ok(Self { terms })
    }

    /// Whether everything matches.
    pub(crate) fn is_all(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether a client's document matches.
    pub(crate) fn matches(&self, client: &Value) -> bool {
        self.terms.iter().all(|term| term.matches(client))
    }

    /// Words by which the index may narrow a search down: whoever matches has all words of one
    /// of these lists.
    pub(crate) fn narrowed(&self) -> Vec<Vec<String>> {
        let mut certain = Vec::new();
        let mut bare = None;
        for term in &self.terms {
            let known = literal(&term.pattern);
            if known.is_empty() {
                continue;
            }
            match term.field {
                Field::Any => bare = bare.or(Some(known)),
                Field::Host | Field::Client | Field::Ip => certain.extend(words("", known)),
                // Who has no label has no word for it.
                Field::Label if term.pattern == "none" => {}
                Field::Label => certain.extend(words("label:", known)),
                Field::Os => certain.extend(words("os:", known)),
                Field::Mac => certain.extend(words("mac:", known)),
            }
        }
        let Some(bare) = bare else {
            return vec![certain];
        };
        let places = ["", "label:", "mac:"];
        let narrowed =
            places.map(|place| certain.iter().cloned().chain(words(place, bare)).collect());
        narrowed.into()
    }
}

/// The words of a value in the index: it is cut at blanks.
fn words(prefix: &str, value: &str) -> Vec<String> {
    format!("{prefix}{value}")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// What stands before the first wildcard.
fn literal(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

fn split(text: &str) -> Answer<Vec<String>> {
    let mut terms = Vec::new();
    let mut term = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            blank if blank.is_whitespace() && !quoted => terms.push(std::mem::take(&mut term)),
            other => term.push(other),
        }
    }
    if quoted {
        return Err(Refusal::bad(format!(
            "search {text:?}: a quote is not closed"
        )));
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    Ok(terms)
}

fn term(text: &str) -> Option<Term> {
    let lower = text.to_lowercase();
    if lower == "all" || lower == "*" {
        return None;
    }
    let (field, pattern) = match lower.split_once(':') {
        Some(("host", pattern)) => (Field::Host, pattern),
        Some(("client", pattern)) => (Field::Client, pattern),
        Some(("label", pattern)) => (Field::Label, pattern),
        Some(("os", pattern)) => (Field::Os, pattern),
        Some(("ip", pattern)) => (Field::Ip, pattern),
        Some(("mac", pattern)) => (Field::Mac, pattern),
        _ => (Field::Any, lower.as_str()),
    };
    Some(Term {
        field,
        pattern: pattern.to_owned(),
    })
}

impl Term {
    fn matches(&self, client: &Value) -> bool {
        let of = |field: Field| values(client, field);
        match self.field {
            Field::Any => [
                Field::Host,
                Field::Client,
                Field::Label,
                Field::Ip,
                Field::Mac,
            ]
            .into_iter()
            .any(|field| of(field).iter().any(|value| fits(&self.pattern, value))),
            Field::Label if self.pattern == "none" => of(Field::Label).is_empty(),
            field => of(field).iter().any(|value| fits(&self.pattern, value)),
        }
    }
}

/// The values of a client that a term may match, in lower case.
fn values(client: &Value, field: Field) -> Vec<String> {
    let names: &[&str] = match field {
        Field::Any => &[],
        Field::Host => &["hostname", "fqdn"],
        Field::Client => &["client_id"],
        Field::Label => &["labels"],
        Field::Os => &["os"],
        Field::Ip => &["last_ip"],
        Field::Mac => &["mac_addresses"],
    };
    let found = names.iter().filter_map(|name| client.get(name));
    let texts = found.flat_map(|value| match value {
        Value::String(text) => vec![text.to_lowercase()],
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_lowercase)
            .collect(),
        _ => Vec::new(),
    });
    texts.filter(|text| !text.is_empty()).collect()
}

/// Whether a value begins with a pattern, or, where it has wildcards, is one of its texts.
fn fits(pattern: &str, value: &str) -> bool {
    if pattern.contains(['*', '?']) {
        let pattern: Vec<char> = pattern.chars().collect();
        let value: Vec<char> = value.chars().collect();
        return glob(&pattern, &value);
    }
    value.starts_with(pattern)
}

/// Matches without recursion: after a mismatch the last `*` takes one character more.
fn glob(pattern: &[char], value: &[char]) -> bool {
    let (mut p, mut v) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while v < value.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, v));
                p += 1;
            }
            Some(&one) if one == '?' || one == value[v] => {
                p += 1;
                v += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    v = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn client() -> Value {
        json!({
            "client_id": "C.dee8db84e4bcbdf1",
            "hostname": "DESK-42",
            "fqdn": "desk-42.example.org",
            "os": "windows",
            "labels": ["Servers", "my label"],
            "last_ip": "10.1.2.3:5555",
            "mac_addresses": ["00:50:56:aa:bb:cc"],
        })
    }

    #[test]
    fn terms_match_as_people_know_them() {
        let found = |text: &str| Search::read(text).unwrap().matches(&client());
        for yes in [
            "",
            "all",
            "*",
            "desk",
            "DESK-42",
            "host:desk",
            "host:*.org",
            "host:desk-4?",
            "client:C.dee8",
            "C.dee8db84e4bcbdf1",
            "label:servers",
            "label:serv*",
            "label:\"my label\"",
            "label:my",
            "os:win",
            "os:windows",
            "ip:10.1.",
            "10.1.2.3",
            "mac:00:50",
            "00:50:56",
            "*42*",
            "desk os:windows label:servers",
        ] {
            assert!(found(yes), "{yes:?} must match");
        }
        for no in [
            "desktop",
            "host:42",
            "label:none",
            "os:linux",
            "desk os:linux",
            "ip:1.2",
            "mac:11",
            "host:desk-?",
            "?",
            "windows",
        ] {
            assert!(!found(no), "{no:?} must not match");
        }
        assert!(
            Search::read("label:none")
                .unwrap()
                .matches(&json!({"labels": []}))
        );
        assert!(Search::read("\"open").is_err());
    }

    #[test]
    fn whatever_matches_is_among_the_narrowed() {
        let narrowed = |text: &str| Search::read(text).unwrap().narrowed();
        assert_eq!(narrowed("all"), [Vec::<String>::new()]);
        assert_eq!(narrowed("host:De*k os:win"), [["de", "os:win"]]);
        assert_eq!(narrowed("label:\"my label\""), [["label:my", "label"]]);
        assert_eq!(narrowed("label:none"), [Vec::<String>::new()]);
        assert_eq!(
            narrowed("x os:linux"),
            [
                ["os:linux", "x"],
                ["os:linux", "label:x"],
                ["os:linux", "mac:x"]
            ]
        );
        assert_eq!(narrowed("*x"), [Vec::<String>::new()]);
    }

    #[test]
    fn wildcards_need_no_luck() {
        let is = |pattern: &str, value: &str| fits(pattern, value);
        assert!(is("*a*b", "xaxbab"));
        assert!(!is("*a*b", "xaxba"));
        assert!(is("a**", "a"));
        let long = "a".repeat(5_000);
        assert!(!is(&format!("{}b", "*a".repeat(200)), &long));
    }
}
