//! Where the services are, and how to disturb them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Who disturbs a service does it alone.
static DISTURBANCE: RwLock<()> = RwLock::const_new(());

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The services of a `services.env`.
#[derive(Clone)]
pub(crate) struct Services {
    values: Arc<HashMap<String, String>>,
    folder: PathBuf,
}

/// The services, none when `NUBLAR_TEST_SERVICES` is not set.
pub(crate) fn services() -> Option<Services> {
    let Some(path) = std::env::var_os("NUBLAR_TEST_SERVICES") else {
        eprintln!("not run: NUBLAR_TEST_SERVICES names no services.env");
        return None;
    };
    let path = PathBuf::from(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let values = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(Services {
        values: Arc::new(values.collect()),
        folder: path.parent().unwrap().to_owned(),
    })
}

impl Services {
    pub(crate) fn get(&self, name: &str) -> String {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("services.env has no {name}"))
            .clone()
    }

    /// Held while a test needs every service as it is.
    pub(crate) async fn calm(&self) -> RwLockReadGuard<'static, ()> {
        DISTURBANCE.read().await
    }

    /// Held while a test disturbs a service.
    pub(crate) async fn alone(&self) -> RwLockWriteGuard<'static, ()> {
        DISTURBANCE.write().await
    }

    /// Does something to a service: `pause`, `resume`, `kill`, `restart`, `start`.
    pub(crate) async fn order(&self, what: &str, name: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services/services");
        let mut command = std::process::Command::new(script);
        command.arg(what).arg(&self.folder).arg(name);
        let done = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        assert!(
            done.status.success(),
            "{what} {name}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(base: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros();
    let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("{base}-{now:x}-{process:x}-{number}")
}

/// Fails the test when the future takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}
