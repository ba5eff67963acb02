//! Documents one after the other, a page at a time.

use crate::app::App;
use crate::refusal::{Answer, Refusal};
use futures::TryStreamExt;
use futures::stream::{self, Stream};
use nublar_ports::index::{Collection, Cursor, Document, Query};
use std::sync::Arc;

/// The items of a list as a stream.
pub(crate) fn each<T: Send + 'static>(
    list: impl IntoIterator<Item = T, IntoIter: Send>,
) -> impl Stream<Item = Answer<T>> + Send {
    stream::iter(list.into_iter().map(Ok))
}

/// Every document that a query matches, by (order, id); its limit is how many are read at once.
pub(crate) fn documents(
    app: Arc<App>,
    collection: Collection,
    query: Query,
) -> impl Stream<Item = Answer<Document>> + Send {
    let first: Option<Option<Cursor>> = Some(None);
    let pages = stream::try_unfold((app, first), move |(app, after)| {
        let query = query.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let query = Query { after, ..query };
            let page = app.step(app.index.query(collection, "", &query)).await?;
            let next = page.next.map(Some);
            Ok::<_, Refusal>(Some((page.documents, (app, next))))
        }
    });
    pages.map_ok(each).try_flatten()
}
