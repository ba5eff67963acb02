//! Ids: parsed once at the edge, then trusted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {expected}")]
pub struct IdError {
    /// The kind of id.
    pub what: &'static str,
    /// The text, cut to 100 characters.
    pub text: String,
    /// What it should look like.
    pub expected: &'static str,
}

fn refuse(what: &'static str, text: &str, expected: &'static str) -> IdError {
    IdError {
        what,
        text: text.chars().take(100).collect(),
        expected,
    }
}

/// An organisation: empty for the root, else `O` and up to 32 letters and digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrgId(String);

impl OrgId {
    /// The root organisation.
    pub fn root() -> Self {
        Self::default()
    }

    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrgId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = match text.strip_prefix('O') {
            Some(rest) => {
                (1..=32).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())
            }
            None => text.is_empty(),
        };
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(refuse(
                "org id",
                text,
                "empty, or O and up to 32 letters and digits",
            ))
        }
    }
}

/// A client: `C.` and 16 lower case hex digits, made from the agent's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(u64);

impl ClientId {
    /// The client of these first eight bytes of the key's hash.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// The eight bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C.{:016x}", self.0)
    }
}

impl FromStr for ClientId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix("C.")
            .filter(|hex| {
                hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| refuse("client id", text, "C. and 16 lower case hex digits"))
    }
}

/// A flow: `F.` and up to 64 letters and digits, with `.H` behind when it belongs to a hunt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlowId(String);

impl FlowId {
    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands between `F.` and `.H`.
    pub fn body(&self) -> &str {
        let body = self.0.strip_prefix("F.").unwrap_or(&self.0);
        body.strip_suffix(".H").unwrap_or(body)
    }

    /// Whether the flow belongs to a hunt.
    pub fn of_hunt(&self) -> bool {
        self.0.ends_with(".H")
    }
}

impl FromStr for FlowId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let body = text
            .strip_prefix("F.")
            .map(|b| b.strip_suffix(".H").unwrap_or(b));
        match body {
            Some(body)
                if (1..=64).contains(&body.len())
                    && body.bytes().all(|b| b.is_ascii_alphanumeric())
                    && !matches!(text, "F.Monitoring" | "F.Status") =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(refuse(
                "flow id",
                text,
                "F. and up to 64 letters and digits, .H behind for a hunt",
            )),
        }
    }
}

macro_rules! text_id {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }
    };
}
text_id!(OrgId);
text_id!(ClientId);
text_id!(FlowId);

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a message's session id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// A flow; `part` is what stands behind a slash (`F.x/y` belongs to flow `F.x`).
    Flow {
        /// The flow.
        id: FlowId,
        /// Empty for the flow itself.
        part: String,
    },
    /// Client events.
    Monitoring,
    /// Answers of agents that do not know what they were asked.
    Status,
    /// Check-ins.
    Foreman,
    /// Enrolment.
    Enrol,
}

impl FromStr for Session {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "F.Monitoring" => Ok(Self::Monitoring),
            "F.Status" => Ok(Self::Status),
            "E.Foreman" => Ok(Self::Foreman),
            "E:Enrol" => Ok(Self::Enrol),
            _ => {
                let (id, part) = text.split_once('/').unwrap_or((text, ""));
                if part.len() > 128 {
                    return Err(refuse(
                        "session id",
                        text,
                        "at most 128 bytes behind the slash",
                    ));
                }
                Ok(Self::Flow {
                    id: id.parse()?,
                    part: part.to_owned(),
                })
            }
        }
    }
}

/// A client of an organisation. In order of the clients: that is found in a map without a look at
/// texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientKey {
    /// The client.
    pub client: ClientId,
    /// The organisation.
    pub org: OrgId,
}

impl ClientKey {
    /// The client that a record's header names.
    pub fn of(header: &nublar_schemas::records::Header) -> Result<Self, IdError> {
        Ok(Self {
            org: header.org.parse()?,
            client: header.client.parse()?,
        })
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)?;
        if !self.org.as_str().is_empty() {
            write!(f, "-{}", self.org)?;
        }
        Ok(())
    }
}

/// A client in one of its generations: what is deleted as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The client.
    pub client: ClientKey,
    /// From 1; each deletion of the client makes it one more.
    pub generation: i64,
}

impl Life {
    /// The life that a record's header names.
    pub fn of(header: &nublar_schemas::records::Header) -> Result<Self, IdError> {
        Ok(Self {
            client: ClientKey::of(header)?,
            generation: header.generation.max(1),
        })
    }

    /// What the client is called in documents: by its id in its first generation, later with the
    /// generation behind a slash. So whatever is listed of one generation holds nothing of another.
    pub fn name(&self) -> String {
        match self.generation {
            ..=1 => self.client.client.to_string(),
            later => format!("{}/{later}", self.client.client),
        }
    }

    /// The life of the root organisation with this [name](Self::name); none if it is no name.
    pub fn of_name(name: &str) -> Option<Self> {
        let (id, generation) = match name.split_once('/') {
            None => (name, 1),
            Some((id, generation)) => (id, generation.parse().ok()?),
        };
        let client = ClientKey {
            org: OrgId::root(),
            client: id.parse().ok()?,
        };
        Some(Self { client, generation })
    }

    /// The folder in Objects of messages that are too large for the log.
    pub fn messages(&self) -> String {
        let id = ContentId::of(&[
            b"messages",
            self.client.org.as_str().as_bytes(),
            &self.client.client.to_bytes(),
            &self.generation.to_le_bytes(),
        ]);
        format!("messages/{id}/")
    }
}

/// Identifies a message by its content: 16 bytes of BLAKE3 over length-prefixed parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 16]);

impl ContentId {
    /// The id of these parts; no two lists of parts share an id.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for ContentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() == 32
            && text.is_ascii()
            && let Ok(number) = u128::from_str_radix(text, 16)
        {
            return Ok(Self(number.to_be_bytes()));
        }
        Err(refuse("content id", text, "32 hex digits"))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Two digits a byte, in lower case.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_well_formed_ids_are_taken() {
        for good in ["C.dee8db84e4bcbdf1", "C.0000000000000000"] {
            assert_eq!(good.parse::<ClientId>().unwrap().to_string(), good);
        }
        for bad in [
            "C.DEE8DB84E4BCBDF1",
            "C.dee8",
            "dee8db84e4bcbdf1",
            "C.dee8db84e4bcbdf1-O1",
            "C.+ee8db84e4bcbdf1",
        ] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad}");
        }
        for good in ["F.DC2M4H5TA9T34", "F.DC2M4UVJPNI1E.H"] {
            assert_eq!(good.parse::<FlowId>().unwrap().as_str(), good);
        }
        for bad in [
            "F.",
            "F.a/b",
            "F..H",
            "F.Monitoring",
            "F.a.b",
            "H.abc",
            "F.é",
        ] {
            assert!(bad.parse::<FlowId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_with_a_slash_belongs_to_its_flow() {
        assert_eq!(
            "F.x1/y".parse::<Session>().unwrap(),
            Session::Flow {
                id: "F.x1".parse().unwrap(),
                part: "y".into()
            }
        );
        assert_eq!("E:Enrol".parse::<Session>().unwrap(), Session::Enrol);
        assert!("E.Enrol".parse::<Session>().is_err());
    }

    #[test]
    fn generations_have_names_of_their_own() {
        let life = |generation| Life {
            client: ClientKey {
                org: OrgId::root(),
                client: "C.dee8db84e4bcbdf1".parse().unwrap(),
            },
            generation,
        };
        assert_eq!(life(1).name(), "C.dee8db84e4bcbdf1");
        assert_eq!(life(12).name(), "C.dee8db84e4bcbdf1/12");
        for life in [life(1), life(12)] {
            assert_eq!(Life::of_name(&life.name()), Some(life));
        }
        assert_eq!(Life::of_name("C.dee8db84e4bcbdf1/x"), None);
        assert_ne!(life(1).messages(), life(2).messages());
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(ContentId::of(&[b"ab", b"c"]), ContentId::of(&[b"a", b"bc"]));
        assert_ne!(ContentId::of(&[b"", b"a"]), ContentId::of(&[b"a", b""]));
        let id = ContentId::of(&[b"x"]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+123".parse::<ContentId>().is_err());
    }
}
