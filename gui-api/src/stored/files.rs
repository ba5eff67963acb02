//! Buffers of uploads as files: what they are called, how much of them is there, and their bytes.

use super::{Arranged, Found, Piece, Within, arrange, bodies};
use crate::app::App;
use crate::refusal::{Answer, Refusal};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use nublar_core::ids::ContentId;
use nublar_core::ingest::{Extent, SEALS, plain_data, upload_instance};
use nublar_ports::index::Collection;
use nublar_schemas::agent::{FileBuffer, Range};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many uploads are looked at side by side.
pub(crate) const LOOKED_AT: usize = 16;
/// How many buffers are read ahead.
const AHEAD: usize = 4;
const ZEROS: Bytes = Bytes::from_static(&[0; 64 * 1024]);

/// One uploaded file.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// Names the file among those of its flow.
    pub(crate) instance: String,
    /// As the agent gave it.
    pub(crate) path: String,
    pub(crate) accessor: String,
    pub(crate) components: Vec<String>,
    pub(crate) number: i64,
    /// When the original was last changed, in microseconds since 1970; none if the agent did not say.
    pub(crate) modified_us: Option<i64>,
    /// Bytes of the original.
    pub(crate) size: u64,
    /// Bytes that the whole has when stored.
    pub(crate) expected: u64,
    pub(crate) sparse: bool,
    /// Everything is there.
    pub(crate) complete: bool,
    /// The upload of the same file that would be its other form: plain of sparse, and the reverse.
    pub(crate) twin: String,
    pub(crate) arranged: Arranged,
    ranges: Vec<Range>,
}

/// Whether this source of documents is an upload, and not words about uploads.
pub(crate) fn is_upload(source: &str) -> bool {
    !source.is_empty() && source != SEALS
}

/// The buffers of one upload, as they are listed.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) instance: String,
    /// Ids of the first one and the last one, by (order, id).
    ends: (String, String),
    arranged: Arranged,
}

/// A flow's buffers by upload, in the order of their instances; words about uploads are left out.
pub(crate) fn by_upload(found: &[Found]) -> Vec<Parts> {
    let mut uploads: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for part in found.iter().filter(|part| is_upload(&part.source)) {
        uploads.entry(&part.source).or_default().push(part);
    }
    let place = |part: &&Found| (part.order, part.id.clone());
    let parts = uploads.into_iter().filter_map(|(instance, parts)| {
        let first = parts.iter().copied().min_by_key(place)?;
        let last = parts.iter().copied().max_by_key(place)?;
        Some(Parts {
            instance: instance.to_owned(),
            ends: (first.id.clone(), last.id.clone()),
            arranged: arrange(parts),
        })
    });
    parts.collect()
}

/// What is known of some of a flow's uploads.
pub(crate) async fn describe(
    app: &Arc<App>,
    within: &Within,
    uploads: Vec<Parts>,
) -> Answer<Vec<Upload>> {
    let described: Vec<_> = uploads
        .into_iter()
        .map(|parts| one(app, within, parts))
        .collect();
    let mut described: Vec<Upload> = stream::iter(described)
        .buffered(LOOKED_AT)
        .try_collect()
        .await?;
    described
        .sort_by(|a, b| (a.number, &a.path, &a.instance).cmp(&(b.number, &b.path, &b.instance)));
    Ok(described)
}

/// One upload, by its id; none if there is no such upload.
pub(crate) async fn find(
    app: &Arc<App>,
    within: &Within,
    instance: &str,
) -> Answer<Option<Upload>> {
    if instance.parse::<ContentId>().is_err() {
        return Ok(None);
    }
    let look = async || {
        let found = app
            .listed(Collection::Buffers, within, Some(instance))
            .await?;
        match by_upload(&found).pop() {
            Some(parts) => one(app, within, parts).await.map(Some),
            None => Ok(None),
        }
    };
    let upload = look().await?;
    if upload.as_ref().is_some_and(|upload| upload.complete) {
        return Ok(upload);
    }
    // The index may not show yet what it has.
    app.step(app.index.refresh(Collection::Buffers)).await?;
    look().await
}

async fn one(app: &Arc<App>, within: &Within, parts: Parts) -> Answer<Upload> {
    let Parts {
        instance,
        ends: (first, last),
        arranged,
    } = parts;
    let read = async |id: &str| {
        let document = app.stored(Collection::Buffers, within, id).await?;
        let gone = || Refusal::fault(format!("upload {instance} is gone"));
        buffer(&document.ok_or_else(gone)?.body)
    };
    let is_one = first == last;
    let first = read(&first).await?;
    let last = if is_one {
        first.clone()
    } else {
        read(&last).await?
    };
    let place = first.pathspec.clone().unwrap_or_default();
    let Extent {
        size,
        expected,
        complete,
    } = Extent::of(&first, &last, &arranged);
    let twin = upload_instance(
        &within.flow,
        first.upload_number,
        first.pathspec.as_ref(),
        !first.is_sparse,
    );
    Ok(Upload {
        path: place.path,
        accessor: place.accessor,
        components: place.components,
        number: first.upload_number,
        modified_us: modified_us(first.mtime),
        size,
        expected,
        sparse: first.is_sparse,
        complete,
        twin: twin.to_string(),
        arranged,
        ranges: last.index.map(|index| index.ranges).unwrap_or_default(),
        instance,
    })
}

/// The agent's nanoseconds as microseconds; none where it had no time to tell.
fn modified_us(mtime: i64) -> Option<i64> {
    /// What agents make of a time that is not set.
    const NOT_SET: i64 = -6_795_364_578_871_345_152;
    (mtime != 0 && mtime != NOT_SET).then_some(mtime / 1_000)
}

impl Upload {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        let last = self
            .components
            .last()
            .map(String::as_str)
            .filter(|last| !last.is_empty());
        let of_path = || self.path.rsplit(['/', '\\']).find(|part| !part.is_empty());
        last.or_else(of_path).unwrap_or(&self.path)
    }

    /// How much is there, in percent with one decimal; 100 only when it is complete.
    pub(crate) fn percent(&self) -> f64 {
        if self.complete {
            return 100.0;
        }
        let (stored, expected) = (u128::from(self.arranged.total), u128::from(self.expected));
        let thousandths = (stored * 1000).checked_div(expected).unwrap_or(0).min(999);
        // At most 999: exact.
        thousandths as f64 / 10.0
    }
}

fn buffer(body: &Bytes) -> Answer<FileBuffer> {
    FileBuffer::decode(body.clone())
        .map_err(|error| Refusal::fault(format!("a stored buffer cannot be read: {error}")))
}

/// The bytes of a piece of a buffer. Of plain data in an object no more is read.
async fn read(app: &App, piece: &Piece, body: &Bytes) -> Answer<Bytes> {
    let mut buffer = buffer(body)?;
    let too_short = || Refusal::fault(format!("buffer {} holds less than it says", piece.id));
    let upto = piece.skip.saturating_add(piece.take);
    if !buffer.reference.is_empty() && buffer.uncompressed_length == 0 {
        let part = Some(piece.skip..upto);
        let data = app.step(app.objects.get(&buffer.reference, part)).await?;
        let whole = data.len() as u64 == piece.take;
        return whole.then_some(data).ok_or_else(too_short);
    }
    let data = if buffer.reference.is_empty() {
        std::mem::take(&mut buffer.data)
    } else {
        app.step(app.objects.get(&buffer.reference, None)).await?
    };
    let data = plain_data(&buffer, data).map_err(|error| Refusal::fault(error.to_string()))?;
    let bounds = usize::try_from(piece.skip)
        .ok()
        .zip(usize::try_from(upto).ok())
        .filter(|(_, to)| *to <= data.len());
    let (from, to) = bounds.ok_or_else(too_short)?;
    Ok(data.slice(from..to))
}

/// Bytes of a file as it is stored, from one offset to another. What is missing in between are
/// zeros, so that everything stands in its place.
pub(crate) fn content(
    app: Arc<App>,
    within: &Within,
    upload: &Upload,
    from: u64,
    to: u64,
) -> impl Stream<Item = Answer<Bytes>> + Send + 'static {
    let pieces = &upload.arranged.pieces;
    let first = pieces.partition_point(|piece| start(piece).saturating_add(piece.take) <= from);
    let pieces: Vec<Piece> = pieces
        .iter()
        .skip(first)
        .map_while(|piece| clipped(piece, from, to))
        .collect();
    let source = Some(upload.instance.as_str());
    let stored = bodies(
        Arc::clone(&app),
        Collection::Buffers,
        within,
        source,
        pieces,
    );
    let read_ahead = stored.map(move |stored| {
        let app = Arc::clone(&app);
        async move {
            let (piece, body) = stored?;
            let bytes = read(&app, &piece, &body).await?;
            Ok::<_, Refusal>((start(&piece), bytes))
        }
    });
    let filled = Filled {
        stored: read_ahead.buffered(AHEAD).boxed(),
        waiting: None,
        at: from,
        to,
    };
    stream::try_unfold(filled, |mut filled| async move {
        let next = filled.next().await?;
        Ok(next.map(|next| (next, filled)))
    })
}

fn start(piece: &Piece) -> u64 {
    u64::try_from(piece.order)
        .unwrap_or(0)
        .saturating_add(piece.skip)
}

fn clipped(piece: &Piece, from: u64, to: u64) -> Option<Piece> {
    let begins = start(piece);
    let ends = begins.saturating_add(piece.take).min(to);
    let skipped = from.saturating_sub(begins);
    let take = ends
        .checked_sub(begins + skipped)
        .filter(|take| *take > 0)?;
    Some(Piece {
        skip: piece.skip + skipped,
        take,
        ..piece.clone()
    })
}

struct Filled {
    stored: BoxStream<'static, Answer<(u64, Bytes)>>,
    waiting: Option<(u64, Bytes)>,
    at: u64,
    to: u64,
}

impl Filled {
    async fn next(&mut self) -> Answer<Option<Bytes>> {
        if self.at >= self.to {
            return Ok(None);
        }
        if self.waiting.is_none() {
            self.waiting = self.stored.try_next().await?;
        }
        let until = self.waiting.as_ref().map_or(self.to, |(start, _)| *start);
        if until > self.at {
            let zeros = zeros(until - self.at);
            self.at += zeros.len() as u64;
            return Ok(Some(zeros));
        }
        let bytes = self
            .waiting
            .take()
            .map(|(_, bytes)| bytes)
            .unwrap_or_default();
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

/// At most so many zeros.
fn zeros(most: u64) -> Bytes {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    ZEROS.slice(..most.min(ZEROS.len()))
}

/// A run of a file with its holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// So many zeros.
    Hole(u64),
    /// Stored bytes, from one offset to another.
    Bytes(u64, u64),
}

impl Run {
    fn length(self) -> u64 {
        match self {
            Self::Hole(size) => size,
            Self::Bytes(from, to) => to - from,
        }
    }
}

/// What runs give from one offset to another.
fn cut(runs: Vec<Run>, from: u64, to: u64) -> Vec<Run> {
    let mut at: u64 = 0;
    let mut cut = Vec::new();
    for run in runs {
        let (begins, ends) = (at, at.saturating_add(run.length()));
        at = ends;
        let (first, last) = (from.max(begins), to.min(ends));
        if first >= last {
            continue;
        }
        cut.push(match run {
            Run::Hole(_) => Run::Hole(last - first),
            Run::Bytes(stored, _) => {
                Run::Bytes(stored + (first - begins), stored + (last - begins))
            }
        });
    }
    cut
}

impl Upload {
    /// The runs of the original, in order, with its holes; the file itself when it is not sparse.
    fn runs(&self) -> Vec<Run> {
        let end = self.arranged.end;
        if !self.sparse || self.ranges.is_empty() {
            return vec![Run::Bytes(0, end)];
        }
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mut ranges: Vec<_> = self.ranges.iter().collect();
        ranges.sort_by_key(|range| (range.original_offset, range.file_offset));
        let (mut runs, mut at) = (Vec::new(), 0);
        for range in ranges {
            let (begins, length) = (number(range.original_offset), number(range.length));
            // What an earlier range covers is not given again.
            let skipped = at.max(begins) - begins;
            let Some(length) = length.checked_sub(skipped).filter(|length| *length > 0) else {
                continue;
            };
            runs.push(Run::Hole(begins.saturating_sub(at)));
            let from = number(range.file_offset).saturating_add(skipped).min(end);
            let sent = number(range.file_length)
                .saturating_sub(skipped)
                .min(length);
            let to = from.saturating_add(sent).min(end);
            runs.push(Run::Bytes(from, to));
            runs.push(Run::Hole(length - (to - from)));
            at = begins.saturating_add(skipped).saturating_add(length);
        }
        runs.retain(|run| {
            !matches!(run, Run::Hole(0)) && !matches!(run, Run::Bytes(a, b) if a == b)
        });
        runs
    }

    /// Bytes of the original with its holes.
    pub(crate) fn padded_size(&self) -> u64 {
        let lengths = self.runs().into_iter().map(Run::length);
        lengths.fold(0, u64::saturating_add)
    }

    /// Where the stored bytes belong in the original, by (offset, stored offset, length).
    pub(crate) fn ranges(&self) -> Vec<(u64, u64, u64)> {
        let mut at = 0_u64;
        let mut ranges = Vec::new();
        for run in self.runs() {
            if let Run::Bytes(from, to) = run {
                ranges.push((at, from, to - from));
            }
            at = at.saturating_add(run.length());
        }
        ranges
    }

    /// Bytes of the original from one offset to another, its holes as zeros.
    pub(crate) fn padded(
        &self,
        app: &Arc<App>,
        within: &Within,
        from: u64,
        to: u64,
    ) -> BoxStream<'static, Answer<Bytes>> {
        let (app, within, upload) = (Arc::clone(app), within.clone(), self.clone());
        let runs = stream::iter(cut(self.runs(), from, to));
        let bytes = runs.flat_map(move |run| match run {
            Run::Hole(size) => hole(size).boxed(),
            Run::Bytes(from, to) => content(Arc::clone(&app), &within, &upload, from, to).boxed(),
        });
        bytes.boxed()
    }
}

fn hole(size: u64) -> impl Stream<Item = Answer<Bytes>> + Send {
    stream::unfold(size, |left| async move {
        let zeros = zeros(left);
        let left = left - zeros.len() as u64;
        (!zeros.is_empty()).then_some((Ok(zeros), left))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(ranges: Vec<Range>, end: u64) -> Upload {
        Upload {
            instance: "0".into(),
            path: "/a/b.bin".into(),
            accessor: "file".into(),
            components: vec![String::new()],
            modified_us: None,
            number: 0,
            size: 0,
            expected: end,
            sparse: true,
            complete: false,
            twin: String::new(),
            arranged: Arranged {
                end,
                total: end,
                ..Arranged::default()
            },
            ranges,
        }
    }

    #[test]
    fn a_time_that_the_agent_did_not_set_is_none() {
        let times = [
            0,
            -6_795_364_578_871_345_152,
            -1_000,
            1_764_500_001_000_000_000,
        ];
        let shown = times.map(modified_us);
        assert_eq!(shown, [None, None, Some(-1), Some(1_764_500_001_000_000)]);
    }

    fn range(file_offset: i64, original_offset: i64, file_length: i64, length: i64) -> Range {
        Range {
            file_offset,
            original_offset,
            file_length,
            length,
        }
    }

    #[test]
    fn a_sparse_file_is_put_together_with_its_holes() {
        let whole = upload(
            vec![
                range(0, 0, 4096, 4096),
                range(4096, 4096, 0, 1000),
                range(4096, 5096, 10, 10),
            ],
            4106,
        );
        assert_eq!(
            whole.runs(),
            [Run::Bytes(0, 4096), Run::Hole(1000), Run::Bytes(4096, 4106)]
        );
        assert_eq!(whole.padded_size(), 5106);
        assert_eq!(whole.ranges(), [(0, 0, 4096), (5096, 4096, 10)]);
        let cut = |from, to| cut(whole.runs(), from, to);
        assert_eq!(cut(0, 5106), whole.runs());
        assert_eq!(cut(4000, 4100), [Run::Bytes(4000, 4096), Run::Hole(4)]);
        assert_eq!(cut(5000, 5100), [Run::Hole(96), Run::Bytes(4096, 4100)]);
        assert_eq!(cut(5105, u64::MAX), [Run::Bytes(4105, 4106)]);
        assert_eq!(cut(5106, 6000), []);
        // What is said of bytes that are not there makes holes, never a read beyond the end.
        let hostile = upload(
            vec![
                range(0, 10, 100, 50),
                range(-5, 20, 5, 5),
                range(60, 70, 100, 4),
            ],
            20,
        );
        let runs = hostile.runs();
        assert_eq!(
            runs,
            [
                Run::Hole(10),
                Run::Bytes(0, 20),
                Run::Hole(30),
                Run::Hole(10),
                Run::Hole(4)
            ]
        );
        assert_eq!(hostile.padded_size(), 74);
    }

    #[test]
    fn only_a_complete_file_is_at_100_percent() {
        let mut part = upload(Vec::new(), 999_999);
        part.expected = 1_000_000;
        assert!((part.percent() - 99.9).abs() < 1e-9);
        part.complete = true;
        assert!((part.percent() - 100.0).abs() < 1e-9);
        part.complete = false;
        part.expected = 0;
        assert!(part.percent().abs() < 1e-9);
    }

    #[test]
    fn a_name_is_the_last_part_of_the_path() {
        let mut file = upload(Vec::new(), 0);
        assert_eq!(file.name(), "b.bin");
        file.path = "C:\\x\\y\\".into();
        assert_eq!(file.name(), "y");
        file.components = vec!["a".into(), "c/d".into()];
        assert_eq!(file.name(), "c/d");
    }

    #[test]
    fn pieces_are_clipped_to_a_range() {
        let piece = Piece {
            id: "a".into(),
            order: 10,
            skip: 2,
            take: 8,
        };
        let clip = |from, to| clipped(&piece, from, to).map(|piece| (piece.skip, piece.take));
        assert_eq!(clip(0, 100), Some((2, 8)));
        assert_eq!(clip(15, 17), Some((5, 2)));
        assert_eq!(clip(0, 12), None);
        assert_eq!(clip(20, 30), None);
        assert_eq!(clip(19, 30), Some((9, 1)));
    }
}
