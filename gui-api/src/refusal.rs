//! Answers that say no: a status, what is wrong, and what to do.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nublar_core::ids::IdError;
use nublar_ports::index::IndexError;
use nublar_ports::log::LogError;
use nublar_ports::objects::ObjectsError;
use nublar_schemas::codec::CodecError;
use serde_json::{Map, Value, json};

/// An answer that says no.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
    what_to_do: Option<String>,
    more: Option<Box<Map<String, Value>>>,
}

pub(crate) type Answer<T> = Result<T, Refusal>;

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
            what_to_do: None,
            more: None,
        }
    }

    /// The caller's fault.
    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// What is asked for is not there.
    pub(crate) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// Our fault.
    pub(crate) fn fault(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }

    /// Passes by itself.
    pub(crate) fn later(error: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error).hint("try again in a moment")
    }

    /// A call took too long.
    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "no answer within the deadline")
            .hint("try again; a smaller limit makes a call quicker")
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn hint(mut self, what_to_do: impl Into<String>) -> Self {
        self.what_to_do = Some(what_to_do.into());
        self
    }

    /// Adds a field to the answer.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.more
            .get_or_insert_default()
            .insert(name.to_owned(), value);
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), error = self.error, "refused");
        }
        let mut body = Map::new();
        body.insert("error".to_owned(), json!(self.error));
        if let Some(what_to_do) = self.what_to_do {
            body.insert("what_to_do".to_owned(), json!(what_to_do));
        }
        if let Some(more) = self.more {
            body.extend(*more);
        }
        (self.status, Json(Value::Object(body))).into_response()
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<IndexError> for Refusal {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Unavailable(_) | IndexError::Full(_) => Self::later(error.to_string()),
            IndexError::Refused(_) => Self::fault(error.to_string()),
        }
    }
}

impl From<ObjectsError> for Refusal {
    fn from(error: ObjectsError) -> Self {
        match error {
            ObjectsError::Unavailable(_) | ObjectsError::Full(_) => Self::later(error.to_string()),
            ObjectsError::Refused(_) | ObjectsError::NotFound(_) => Self::fault(error.to_string()),
        }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_) | LogError::Full(_) => Self::later(error.to_string()),
            LogError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            LogError::Refused(_) | LogError::OutOfRange { .. } | LogError::StaleEpoch => {
                Self::fault(error.to_string())
            }
        }
    }
}

impl From<CodecError> for Refusal {
    fn from(error: CodecError) -> Self {
        Self::fault(error.to_string())
    }
}
