//! Requests to OpenSearch, and what its answers mean.

use super::super::IndexError;
use super::OpenSearchConfig;
use bytes::Bytes;
use opensearch::auth::Credentials;
use opensearch::cert::{Certificate, CertificateValidation};
use opensearch::http::headers::HeaderMap;
use opensearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use opensearch::http::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::error::Error;
use std::fmt;
use std::fmt::Write;
use std::time::Duration;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest reason that is passed on, characters.
const LONGEST_REASON: usize = 600;

/// The client.
pub(super) struct Http {
    transport: Transport,
    /// The address without user and password.
    shown: String,
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "opensearch at {}", self.shown)
    }
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new(config: &OpenSearchConfig) -> Result<Self, IndexError> {
        let refuse = |what: &str, error: &dyn fmt::Display| {
            IndexError::Refused(format!("opensearch {what}: {error}"))
        };
        let url = Url::parse(&config.url).map_err(|error| refuse("url", &error))?;
        let shown = format!(
            "{}://{}:{}",
            url.scheme(),
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url))
            .timeout(TIMEOUT)
            .disable_proxy();
        if let Some(user) = &config.user {
            builder = builder.auth(Credentials::Basic(
                user.clone(),
                config.password.clone().unwrap_or_default(),
            ));
        }
        if let Some(ca) = &config.ca {
            let certificate =
                Certificate::from_pem(ca.as_bytes()).map_err(|error| refuse("ca", &error))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder.build().map_err(|error| refuse("client", &error))?;
        Ok(Self { transport, shown })
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, IndexError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send_bytes(method, path, parameters, body).await
    }

    pub(super) async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<Answer, IndexError> {
        let sent = self
            .transport
            .send(method, path, HeaderMap::new(), Some(parameters), body, None)
            .await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status_code().as_u16();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        Ok(Answer { status, body })
    }

    fn unreachable(&self, error: &opensearch::Error) -> IndexError {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        match text.contains("certificate") {
            true => IndexError::Refused(format!("{self}: {text}, check the certificates")),
            false => IndexError::Unavailable(format!("{self} cannot be reached: {text}")),
        }
    }

    /// What a status beyond the good ones means; `doing` says what was tried.
    pub(super) fn failure(&self, status: u16, body: &[u8], doing: &str) -> IndexError {
        let reason = reason(body);
        let text = |advice: &str| format!("{self}: {doing}: status {status}, {reason}{advice}");
        match status {
            // The disk is nearly full, or an operator has closed the index for writing.
            403 | 429
                if reason.contains("read_only_allow_delete")
                    || reason.contains("read-only-allow-delete") =>
            {
                IndexError::Full(text("; free space on its disks"))
            }
            401 => IndexError::Refused(text("; check user and password")),
            403 => IndexError::Refused(text(
                "; give the user rights on the indices with the configured prefix",
            )),
            408 | 429 | 500..=599 => IndexError::Unavailable(text("")),
            _ => IndexError::Refused(text("; check templates and settings of the index")),
        }
    }
}

impl Answer {
    /// The answer, if it is a good one.
    pub(super) fn done(self, http: &Http, doing: &str) -> Result<Self, IndexError> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(http.failure(status, &self.body, doing)),
        }
    }

    pub(super) fn json<T: DeserializeOwned>(&self, http: &Http) -> Result<T, IndexError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            IndexError::Unavailable(format!(
                "{http} gave an answer that is not OpenSearch's ({error}), check the url"
            ))
        })
    }
}

/// The types and the reason in the body of an error, or its beginning.
pub(super) fn reason(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = parsed.get("error").unwrap_or(&parsed);
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut parts: Vec<String> = Vec::new();
    let mut level = Some(error);
    while let Some(each) = level {
        parts.extend(
            [text(each, "type"), text(each, "reason")]
                .into_iter()
                .flatten(),
        );
        level = each.get("caused_by");
    }
    parts.dedup();
    let reason = match parts.is_empty() {
        true => String::from_utf8_lossy(body).into_owned(),
        false => parts.join(": "),
    };
    reason.chars().take(LONGEST_REASON).collect()
}

/// Percent-encodes a part of a path.
pub(super) fn encoded(part: &str) -> String {
    part.bytes()
        .fold(String::with_capacity(part.len()), |mut path, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                    path.push(char::from(byte))
                }
                other => {
                    let _ = write!(path, "%{other:02X}");
                }
            }
            path
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn http() -> Http {
        Http::new(&OpenSearchConfig {
            url: "http://user:secret@127.0.0.1:9200".to_owned(),
            ..Default::default()
        })
        .unwrap()
    }

    #[test]
    fn a_full_disk_is_told_from_missing_rights() {
        let flood = br#"{"error":{"type":"cluster_block_exception","reason":"index [rows] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];"},"status":429}"#;
        assert!(matches!(
            http().failure(429, flood, "bulk"),
            IndexError::Full(_)
        ));
        assert!(matches!(
            http().failure(
                403,
                br#"{"error":{"type":"security_exception","reason":"no permissions"}}"#,
                "bulk"
            ),
            IndexError::Refused(_)
        ));
        assert!(matches!(
            http().failure(
                429,
                br#"{"error":{"type":"circuit_breaking_exception"}}"#,
                "bulk"
            ),
            IndexError::Unavailable(_)
        ));
    }

    #[test]
    fn errors_name_the_address_without_the_password() {
        let IndexError::Refused(text) = http().failure(401, b"Unauthorized", "bulk") else {
            panic!("not refused")
        };
        assert!(
            text.contains("http://127.0.0.1:9200")
                && text.contains("Unauthorized")
                && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn reasons_name_every_cause() {
        let body = br#"{"error":{"type":"mapper_parsing_exception","reason":"failed to parse field [order]","caused_by":{"type":"illegal_argument_exception","reason":"For input string"}}}"#;
        assert_eq!(
            reason(body),
            "mapper_parsing_exception: failed to parse field [order]: illegal_argument_exception: For input string"
        );
    }

    #[test]
    fn ids_are_one_part_of_a_path() {
        assert_eq!(encoded("root/a b/.."), "root%2Fa%20b%2F%2E%2E");
    }
}
