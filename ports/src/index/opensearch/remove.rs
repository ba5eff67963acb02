//! Removing: bulks of deletions.

use super::{OpenSearchIndex, document};
use crate::index::{Collection, IndexError, Removal};
use serde_json::{Value, json};

/// Removals of one request.
const PART: usize = 5_000;

impl OpenSearchIndex {
    pub(super) async fn remove_all(
        &self,
        collection: Collection,
        org: &str,
        removals: Vec<Removal>,
    ) -> Result<(), IndexError> {
        for part in removals.chunks(PART) {
            self.remove_part(collection, org, part).await?;
        }
        Ok(())
    }

    async fn remove_part(
        &self,
        collection: Collection,
        org: &str,
        part: &[Removal],
    ) -> Result<(), IndexError> {
        let lines: String = part
            .iter()
            .map(|removal| format!("{}\n", self.deletion(collection, org, removal)))
            .collect();
        for item in self.bulk(lines.into(), part.len()).await? {
            // What is not there, or has a higher version, is as it should be.
            if !matches!(item.status, 200 | 404 | 409) {
                return Err(self.item_failed(item, "remove from"));
            }
        }
        Ok(())
    }

    fn deletion(&self, collection: Collection, org: &str, removal: &Removal) -> Value {
        let index = self.index_name(collection, removal.bucket);
        let id = document::key(org, &removal.id);
        if collection.versioned() {
            // One more, as it was written.
            let version = i64::try_from(removal.version)
                .unwrap_or(i64::MAX)
                .saturating_add(1);
            json!({ "delete": { "_index": index, "_id": id, "version": version, "version_type": "external_gte" } })
        } else {
            json!({ "delete": { "_index": index, "_id": id } })
        }
    }
}
