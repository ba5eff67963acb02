//! What goes back over a WebSocket: a JSON object with the status that HTTP would have had, and the
//! body. (A frame to the server is a body and nothing else.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::WireError;

/// One frame to an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The HTTP status: 200 when all is well; 403, 406 and 503 end the connection.
    pub code: u16,
    /// A word about what is wrong, empty when nothing is.
    pub error: String,
    /// The body, empty if there is none.
    pub data: Bytes,
}

/// As it is written: what is empty is left out.
#[derive(Serialize, Deserialize)]
struct Json<'a> {
    #[serde(default, skip_serializing_if = "is_zero")]
    code: u16,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    err: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    data: std::borrow::Cow<'a, str>,
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl Frame {
    /// All is well, and there is nothing to say.
    pub fn ok() -> Self {
        Self::data(Bytes::new())
    }

    /// All is well, and this is the body.
    pub fn data(data: Bytes) -> Self {
        Self {
            code: 200,
            data,
            ..Self::default()
        }
    }

    /// Something is wrong.
    pub fn error(code: u16, error: impl Into<String>) -> Self {
        Self {
            code,
            error: error.into(),
            ..Self::default()
        }
    }

    /// Writes the frame's content, to be sent as one binary message.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        let data = STANDARD.encode(&self.data);
        let json = Json {
            code: self.code,
            err: (&self.error).into(),
            data: data.into(),
        };
        Ok(serde_json::to_vec(&json).map_err(bad_frame)?.into())
    }

    /// Reads the content of a frame.
    ///
    /// Errors: no JSON object of this form, or data that is no base64.
    pub fn decode(content: &[u8]) -> Result<Self, WireError> {
        // An array would be taken for the fields in their order.
        if content.trim_ascii_start().first() != Some(&b'{') {
            return Err(bad_frame("no json object"));
        }
        let json: Json<'_> = serde_json::from_slice(content).map_err(bad_frame)?;
        let data = STANDARD.decode(json.data.as_bytes()).map_err(bad_frame)?;
        Ok(Self {
            code: json.code,
            error: json.err.into_owned(),
            data: data.into(),
        })
    }
}

fn bad_frame(error: impl std::fmt::Display) -> WireError {
    WireError::BadFrame {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn empty_fields_are_left_out() {
        for (frame, text) in [
            (Frame::ok(), r#"{"code":200}"#),
            (
                Frame::data(vec![0, 255].into()),
                r#"{"code":200,"data":"AP8="}"#,
            ),
            (
                Frame::error(406, "say \"who\""),
                r#"{"code":406,"err":"say \"who\""}"#,
            ),
            (Frame::default(), "{}"),
        ] {
            assert_eq!(frame.encode().unwrap(), text);
            assert_eq!(Frame::decode(text.as_bytes()).unwrap(), frame);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"code":"200"}"#,
            r#"{"data":"A"}"#,
            r#"{"code":70000}"#,
        ] {
            assert!(matches!(
                Frame::decode(text.as_bytes()),
                Err(WireError::BadFrame { .. })
            ));
        }
    }
}
