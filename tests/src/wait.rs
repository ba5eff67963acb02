//! Waiting for conditions.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(20);

/// Looks until `Ok` comes, for [`PATIENCE`]; fails with the last `Err`.
pub async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, look).await
}

/// Looks until `Ok` comes, for so long; fails with the last `Err`.
pub async fn within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(
                Instant::now() < until,
                "not within {patience:?}: {what}: {last:?}"
            ),
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Whether the long variants run too: `NUBLAR_LONG=1`. Says which it is.
pub fn is_long(what: &str) -> bool {
    let long = std::env::var_os("NUBLAR_LONG").is_some_and(|value| value == "1");
    let word = if long {
        "long"
    } else {
        "short, NUBLAR_LONG=1 runs the long one"
    };
    eprintln!("{what}: {word}");
    long
}
