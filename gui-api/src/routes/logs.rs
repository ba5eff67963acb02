//! The log lines of a flow.

use super::answers::{Shared, TOTAL, streamed, value};
use super::format::{Columns, Writer};
use super::results::{Asked, written};
use crate::guard::Params;
use crate::refusal::Answer;
use crate::stored::{Found, Piece, bodies, log_lines};
use axum::extract::{Path, State};
use axum::response::Response;
use futures::StreamExt;
use nublar_ports::index::Collection;

/// `GET .../logs?start&limit&format` → lines of `client_time`, `level` and `message`.
pub(crate) async fn logs(
    State(app): Shared,
    Path((client, flow)): Path<(String, String)>,
    Params(asked): Params<Asked>,
) -> Answer<Response> {
    let flow = app.flow(&client, &flow).await?;
    let within = flow.within();
    let found = app.found(Collection::Logs, &within, flow.logs()).await?;
    let total: u64 = found.iter().map(|part| part.size).sum();
    let pieces = cut(&found, asked.start, asked.limit.unwrap_or(u64::MAX));
    let mut columns = Columns::default();
    columns.see(r#"{"client_time":0,"level":"","message":""}"#);
    let stored = bodies(app.clone(), Collection::Logs, &within, None, pieces);
    let blocks = stored.map(|stored| {
        let (piece, body) = stored?;
        Ok((piece, log_lines(&body)?))
    });
    let writer = Writer::new(asked.format, columns);
    let mut response = streamed(&app, asked.format.content_type(), written(writer, blocks));
    response
        .headers_mut()
        .insert(TOTAL, value(&total.to_string()));
    Ok(response)
}

/// Log lines are never skipped: numbers start over with an agent's own error lines, so the same
/// number does not mean the same line.
fn cut(found: &[Found], start: u64, limit: u64) -> Vec<Piece> {
    let (mut before, mut left) = (start, limit);
    let mut pieces = Vec::new();
    for part in found {
        let skip = before.min(part.size);
        let take = (part.size - skip).min(left);
        before -= skip;
        left -= take;
        if take > 0 {
            pieces.push(Piece {
                id: part.id.clone(),
                order: part.order,
                skip,
                take,
            });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_number_are_all_kept() {
        let part = |id: &str, order, size| Found {
            id: id.to_owned(),
            source: String::new(),
            order,
            size,
        };
        let found = [part("a", 0, 2), part("b", 0, 1), part("c", 2, 3)];
        let taken = |start, limit| -> Vec<(String, u64, u64)> {
            let pieces = cut(&found, start, limit);
            pieces
                .into_iter()
                .map(|piece| (piece.id, piece.skip, piece.take))
                .collect()
        };
        let all = [
            ("a".to_owned(), 0, 2),
            ("b".to_owned(), 0, 1),
            ("c".to_owned(), 0, 3),
        ];
        assert_eq!(taken(0, u64::MAX), all);
        assert_eq!(
            taken(1, 3),
            [
                ("a".to_owned(), 1, 1),
                ("b".to_owned(), 0, 1),
                ("c".to_owned(), 0, 1)
            ]
        );
        assert!(taken(6, 1).is_empty());
    }
}
