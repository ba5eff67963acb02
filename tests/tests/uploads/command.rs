//! The commands `vfs` and `shell`, from what a person types to what a machine does and back.

use crate::machine::Machine;
use nublar_tests::{Installation, Recorded, Server, eventually, program};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Polls are held long enough for a task to be granted on a busy machine.
const CONFIG: &str = "
[frontend]
max_poll_s = 3

[foreman]
interrogate = false
monitor = false

[workers]
report_ms = 100
";

struct Desk {
    data: std::path::PathBuf,
    client: String,
}

impl Desk {
    /// Runs a command of the program; `CLIENT` stands for the machine.
    async fn order(&self, words: &[&str]) -> Output {
        let word = |word: &&str| word.replace("CLIENT", &self.client);
        let words: Vec<String> = words.iter().map(word).collect();
        let data = self.data.clone();
        let ordered = move || {
            let mut command = Command::new(program());
            command
                .args(words)
                .env("NUBLAR_DATA", data)
                .output()
                .unwrap()
        };
        tokio::task::spawn_blocking(ordered).await.unwrap()
    }

    async fn told(&self, words: &[&str]) -> String {
        let done = self.order(words).await;
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {errors}");
        String::from_utf8(done.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_browsed_and_commands_run_from_the_command_line() {
    let recorded = Recorded::load("collections");
    let installation = Installation::recorded(&recorded).configured(CONFIG);
    let mut server = Server::start(&installation).await;
    let machine = Machine::start(&recorded, &server).await;
    let client = recorded.client_id().to_owned();
    let api = server.api();
    eventually("it is known what the machine runs", async || {
        let (status, body) = api.try_get(&format!("/clients/{client}")).await.unwrap();
        let known: Value = serde_json::from_slice(&body).unwrap();
        if known["os"] == "linux" {
            Ok(())
        } else {
            Err((status, known))
        }
    })
    .await;
    let data = installation.data().to_owned();
    let desk = Desk { data, client };

    shell(&desk).await;
    let folder = tempfile::tempdir().unwrap();
    directories(&desk, folder.path()).await;
    one_file(&desk, folder.path(), &installation.beside("saved")).await;
    drop(machine);
    server.stop().await;
}

async fn shell(desk: &Desk) {
    let command = ["shell", "CLIENT", "echo", "out;", "echo err >&2;", "exit 7"];
    let done = desk.order(&command).await;
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&done.stderr), "err\n");
    // What looks like an option of ours is the command's.
    assert_eq!(
        desk.told(&["shell", "CLIENT", "echo", "--json"]).await,
        "--json\n"
    );
    let done = desk.order(&["shell", "--json", "CLIENT", "exit 3"]).await;
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let given: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(given["return_code"], 3, "{given}");
    assert_eq!(given["artifact"], "Linux.Sys.BashShell", "{given}");
    let done = desk.order(&["shell", "--powershell", "CLIENT", "x"]).await;
    assert_eq!(done.status.code(), Some(255), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("Windows"),
        "{done:?}"
    );
}

async fn directories(desk: &Desk, folder: &Path) {
    std::fs::write(folder.join("one"), "1").unwrap();
    std::fs::create_dir(folder.join("inside")).unwrap();
    let place = folder.to_str().unwrap();
    let names = async |words: &[&str]| {
        let told = desk.told(words).await;
        let rows = told
            .lines()
            .map(|row| serde_json::from_str::<Value>(row).unwrap());
        let names = rows.map(|row| row["Name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let ls = ["vfs", "ls", "CLIENT", place, "--json"];
    assert_eq!(names(&ls).await, ["inside", "one"]);
    std::fs::write(folder.join("two"), "22").unwrap();
    assert_eq!(
        names(&ls).await,
        ["inside", "one"],
        "what is stored is shown"
    );
    let refresh = [&ls[..], &["--refresh"]].concat();
    assert_eq!(names(&refresh).await, ["inside", "one", "two"]);
    assert_eq!(
        names(&ls).await,
        ["inside", "one", "two"],
        "the newest one is shown"
    );
    let people = desk.told(&["vfs", "ls", "CLIENT", place]).await;
    let lines: Vec<&str> = people.lines().collect();
    assert!(lines[0].starts_with("MODE") && lines.len() == 4, "{people}");
    assert!(
        lines[3].ends_with("2 B  2026-11-24T10:09:00Z  two"),
        "{people}"
    );
}

async fn one_file(desk: &Desk, folder: &Path, saved: &Path) {
    let (path, out) = (folder.join("two"), saved.to_str().unwrap());
    let path = path.to_str().unwrap();
    let get = ["vfs", "get", "CLIENT", path, "--out", out];
    let read = || std::fs::read_to_string(saved).unwrap();
    desk.told(&get).await;
    assert_eq!(read(), "22");
    std::fs::write(path, "another").unwrap();
    desk.told(&get).await;
    assert_eq!(read(), "22", "what is stored is fetched");
    let told = desk
        .told(&[&get[..], &["--refresh", "--json"]].concat())
        .await;
    assert_eq!(read(), "another");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["size"], 7, "{told}");
    let missing = folder.join("missing");
    let get = [
        "vfs",
        "get",
        "CLIENT",
        missing.to_str().unwrap(),
        "--out",
        out,
    ];
    let done = desk.order(&get).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("finds no file"),
        "{done:?}"
    );
}
