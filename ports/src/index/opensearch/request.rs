//! Bodies of requests: mapping, settings, queries.

use super::super::Query;
use super::OpenSearchConfig;
use super::document::{exact, word};
use serde_json::{Value, json};

/// The mapping of every index. What is not named here is kept, but not indexed.
pub(super) fn mappings() -> Value {
    json!({
        "dynamic": false,
        "properties": {
            "org": { "type": "keyword" },
            "id": { "type": "keyword" },
            "client": { "type": "keyword" },
            "flow": { "type": "keyword" },
            "source": { "type": "keyword" },
            "order": { "type": "long" },
            "words": { "type": "keyword", "doc_values": false },
            "hashes": { "type": "text", "analyzer": "whitespace", "norms": false, "index_options": "docs" },
        },
    })
}

/// The settings of a new index.
pub(super) fn settings(config: &OpenSearchConfig) -> Value {
    json!({
        "index": {
            "number_of_shards": config.shards,
            "number_of_replicas": config.replicas,
            "refresh_interval": format!("{}ms", config.refresh_interval.as_millis()),
        },
    })
}

/// What a query matches, of this org only.
pub(super) fn scoped(org: &str, query: &Query) -> Value {
    let mut filter = vec![json!({ "term": { "org": exact(org) } })];
    let equal = [
        ("client", &query.client),
        ("flow", &query.flow),
        ("source", &query.source),
    ];
    for (field, value) in equal {
        if let Some(value) = value {
            filter.push(json!({ "term": { field: exact(value) } }));
        }
    }
    if let Some((from, to)) = query.order {
        filter.push(json!({ "range": { "order": { "gte": from, "lt": to } } }));
    }
    for beginning in query.words.iter().filter(|beginning| !beginning.is_empty()) {
        filter.push(json!({ "prefix": { "words": { "value": word(beginning) } } }));
    }
    json!({ "bool": { "filter": filter } })
}

/// A page of a list: `size` documents after a place (order, id).
pub(super) fn search(
    org: &str,
    query: &Query,
    after: Option<&(i64, String)>,
    size: usize,
) -> Value {
    let direction = if query.descending { "desc" } else { "asc" };
    let mut body = json!({
        "size": size,
        "track_total_hits": false,
        "query": scoped(org, query),
        "sort": [{ "order": direction }, { "id": direction }],
    });
    if let Some((order, id)) = after {
        body["search_after"] = json!([order, id]);
    }
    if query.without_bodies {
        body["_source"] = json!({ "excludes": ["body", "body_base64"] });
    }
    body
}
