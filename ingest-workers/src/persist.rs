//! Trying again for ever: an outage of a store delays, and loses nothing.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Repeats until it succeeds. Refusals are repeated too: a person can mend what they name, and
/// going on without the write would lose it.
pub(crate) async fn persist<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut wait = FIRST;
    let mut failures = 0u32;
    loop {
        match attempt().await {
            Ok(value) => {
                if failures > 0 {
                    tracing::info!(what, failures, "works again");
                }
                return value;
            }
            Err(error) => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(what, failures, %error, "trying again, nothing is lost");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
        }
    }
}
