//! Parts that may overlap, put in order so that nothing comes twice.
//!
//! Parts are sorted by (order, id). What an earlier part has given already is skipped in a later
//! one, so the same parts give the same whole, in whatever order they came.

use crate::ids::ContentId;

/// A stored message without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Name of the result set, or instance of the upload.
    pub source: String,
    /// First row, or offset.
    pub order: i64,
    /// Rows, log rows or bytes.
    pub size: u64,
}

/// What to take of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Id of the document.
    pub id: String,
    /// Where the document begins.
    pub order: i64,
    /// How many of its units (rows, bytes) to leave out at its beginning.
    pub skip: u64,
    /// How many units to take.
    pub take: u64,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arranged {
    /// In their order.
    pub pieces: Vec<Piece>,
    /// Units in all pieces.
    pub total: u64,
    /// Where the last unit ends.
    pub end: u64,
    /// Ranges that no part covers.
    pub gaps: Vec<(u64, u64)>,
    /// Two parts claim the same place.
    pub overlaps: bool,
}

/// Arranges the parts of one result set or file.
pub fn arrange<'a>(parts: impl IntoIterator<Item = &'a Found>) -> Arranged {
    let mut parts: Vec<&Found> = parts.into_iter().filter(|part| part.size > 0).collect();
    parts.sort_by(|a, b| (a.order, &a.id).cmp(&(b.order, &b.id)));
    let mut arranged = Arranged::default();
    for part in parts {
        let start = u64::try_from(part.order).unwrap_or(0);
        let expected = arranged.end;
        if start > expected {
            arranged.gaps.push((expected, start));
        }
        let skip = expected.saturating_sub(start);
        arranged.overlaps |= skip > 0;
        if skip >= part.size {
            continue;
        }
        let take = part.size - skip;
        arranged.pieces.push(Piece {
            id: part.id.clone(),
            order: part.order,
            skip,
            take,
        });
        arranged.total += take;
        arranged.end = start.saturating_add(part.size);
    }
    arranged
}

impl Arranged {
    /// How much there is from the beginning on without a gap.
    pub fn head(&self) -> u64 {
        self.gaps.first().map_or(self.end, |(from, _)| *from)
    }

    /// Names what the whole is made of: the same pieces give the same bytes.
    pub fn content(&self) -> ContentId {
        let mut hasher = blake3::Hasher::new();
        for piece in &self.pieces {
            hasher.update(&piece.order.to_le_bytes());
            hasher.update(&piece.skip.to_le_bytes());
            hasher.update(piece.id.as_bytes());
        }
        ContentId::of(&[b"pieces", hasher.finalize().as_bytes()])
    }

    /// The pieces of these units, counted without gaps.
    pub fn cut(&self, start: u64, limit: u64) -> Vec<Piece> {
        let (mut before, mut left) = (start, limit);
        let mut cut = Vec::new();
        for piece in &self.pieces {
            if left == 0 {
                break;
            }
            if before >= piece.take {
                before -= piece.take;
                continue;
            }
            let take = (piece.take - before).min(left);
            cut.push(Piece {
                skip: piece.skip + before,
                take,
                ..piece.clone()
            });
            (before, left) = (0, left - take);
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, order: i64, size: u64) -> Found {
        Found {
            id: id.to_owned(),
            source: String::new(),
            order,
            size,
        }
    }

    fn taken(pieces: &[Piece]) -> Vec<(&str, u64, u64)> {
        pieces
            .iter()
            .map(|piece| (piece.id.as_str(), piece.skip, piece.take))
            .collect()
    }

    #[test]
    fn parts_in_a_row_are_taken_whole() {
        let whole = arrange(&[part("b", 1000, 501), part("a", 0, 1000)]);
        assert_eq!(taken(&whole.pieces), [("a", 0, 1000), ("b", 0, 501)]);
        assert_eq!(
            (whole.total, whole.end, whole.overlaps),
            (1501, 1501, false)
        );
        assert!(whole.gaps.is_empty());
    }

    #[test]
    fn what_came_before_is_skipped_and_flagged() {
        let parts = [
            part("a", 0, 10),
            part("b", 0, 12),
            part("c", 5, 3),
            part("d", 11, 4),
        ];
        let whole = arrange(&parts);
        assert_eq!(
            taken(&whole.pieces),
            [("a", 0, 10), ("b", 10, 2), ("d", 1, 3)]
        );
        assert_eq!((whole.total, whole.overlaps), (15, true));
        let backwards: Vec<_> = parts.iter().rev().cloned().collect();
        assert_eq!(arrange(&backwards), whole);
    }

    #[test]
    fn gaps_are_named() {
        let whole = arrange(&[part("a", 2, 2), part("b", 10, 1), part("end", 11, 0)]);
        assert_eq!(whole.gaps, [(0, 2), (4, 10)]);
        assert_eq!((whole.total, whole.end), (3, 11));
    }

    #[test]
    fn any_part_of_the_whole_can_be_cut_out() {
        let whole = arrange(&[part("a", 0, 10), part("b", 5, 10), part("c", 15, 10)]);
        assert_eq!(taken(&whole.cut(0, 3)), [("a", 0, 3)]);
        assert_eq!(taken(&whole.cut(9, 3)), [("a", 9, 1), ("b", 5, 2)]);
        assert_eq!(taken(&whole.cut(12, 100)), [("b", 7, 3), ("c", 0, 10)]);
        assert!(whole.cut(25, 5).is_empty());
        assert!(whole.cut(0, 0).is_empty());
    }
}
