//! The program as processes: started, waited for, told to end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The program that was built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("nublar");
    assert!(
        program.exists(),
        "{} is missing: cargo build -p nublar",
        program.display()
    );
    program
}

/// The program with these arguments, and nothing of this process's settings.
pub(crate) fn nublar(arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("NUBLAR_")) {
        command.env_remove(name);
    }
    command
}

/// A process of the program. It is killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts the command; what it writes to stderr goes to a file in the folder.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let errors = File::create(&log).unwrap();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        // Ends with the process, whose stdout is closed then.
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|l| sender.send(l))
        });
        Self {
            name: name.to_owned(),
            child,
            lines,
            log,
        }
    }

    /// Waits for the line `ready`.
    pub(crate) fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line == "ready" => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => self.fail("is not ready"),
                Err(RecvTimeoutError::Disconnected) => self.fail("ended before it was ready"),
            }
        }
    }

    /// Tells it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until it has ended, and holds it to its success.
    pub(crate) fn ended(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) if status.success() => return,
                Some(status) => self.fail(&format!("ended with {status}")),
                None if Instant::now() > until => self.fail("goes on"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn fail(&self, what: &str) -> ! {
        let log = std::fs::read_to_string(&self.log).unwrap();
        panic!("{} {what}:\n{log}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
