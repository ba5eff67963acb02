//! The indices: their names, and that they are there with our mapping.

use super::http::reason;
use super::{OpenSearchIndex, request};
use crate::index::{Bucket, Collection, IndexError};
use opensearch::http::Method;
use serde_json::json;
use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

impl OpenSearchIndex {
    pub(super) fn index_name(&self, collection: Collection, bucket: Option<Bucket>) -> String {
        let (prefix, name) = (&self.config.prefix, collection.name());
        match bucket {
            None => format!("{prefix}{name}"),
            Some(Bucket::Week(week)) => format!("{prefix}{name}-w{week}"),
            Some(Bucket::Undated) => format!("{prefix}{name}-undated"),
        }
    }

    /// The indices of a collection, as they are named in a path.
    pub(super) fn index_names(&self, collection: Collection) -> String {
        let (prefix, name) = (&self.config.prefix, collection.name());
        match collection.weekly() {
            true => format!("{prefix}{name}-w*,{prefix}{name}-undated"),
            false => format!("{prefix}{name}"),
        }
    }

    /// Makes an index, or makes sure that the one that exists has our mapping.
    pub(super) async fn ensure(&self, index: &str) -> Result<(), IndexError> {
        if self.known().contains(index) {
            return Ok(());
        }
        let body =
            json!({ "settings": request::settings(&self.config), "mappings": request::mappings() });
        let answer = self
            .http
            .send(Method::Put, &format!("/{index}"), &[], Some(&body))
            .await?;
        if answer.status == 400
            && reason(&answer.body).contains("resource_already_exists_exception")
        {
            let mappings = request::mappings();
            let answer = self
                .http
                .send(
                    Method::Put,
                    &format!("/{index}/_mapping"),
                    &[],
                    Some(&mappings),
                )
                .await?;
            answer.done(&self.http, &format!("keep the mapping of index {index}"))?;
        } else {
            answer.done(&self.http, &format!("make index {index}"))?;
        }
        self.known().insert(index.to_owned());
        Ok(())
    }

    /// Looks at an index again before it is written to.
    pub(super) fn forget(&self, index: &str) {
        self.known().remove(index);
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
