//! `docker-compose.yml` and `deploy/nublar.toml`: that they fit each other and the program, and that
//! the same commands work as plain processes over the real Kafka, OpenSearch and S3.
//!
//! `NUBLAR_TEST_SERVICES` names the `services.env` that `tests/services/services start` wrote. Where
//! it is not set the commands are not started, and the test says so. The program must be built
//! before: `cargo build -p nublar`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "compose/native.rs"]
mod native;
#[path = "compose/process.rs"]
mod process;
#[path = "compose/yaml.rs"]
mod yaml;

use process::nublar;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The services whose image is ours, with what each is to run.
const OURS: [(&str, &[&str]); 6] = [
    ("setup", &["setup"]),
    ("frontend-1", &["frontend"]),
    ("frontend-2", &["frontend"]),
    ("worker", &["worker"]),
    ("foreman", &["foreman"]),
    ("gui", &["gui"]),
];

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn compose() -> Value {
    yaml::read(&std::fs::read_to_string(file("docker-compose.yml")).unwrap())
}

fn config() -> toml::Table {
    let text = std::fs::read_to_string(file("deploy/nublar.toml")).unwrap();
    text.parse().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect()
}

fn names(value: &Value) -> Vec<&str> {
    let map = value.as_object();
    map.map_or_else(Vec::new, |map| map.keys().map(String::as_str).collect())
}

#[test]
fn every_command_is_one_that_the_program_takes() {
    let compose = compose();
    let ours: Vec<_> = compose["services"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, service)| service["image"] == "nublar")
        .map(|(name, service)| (name.as_str(), texts(&service["command"])))
        .collect();
    assert_eq!(ours, OURS.map(|(name, command)| (name, command.to_vec())));
    for (name, command) in ours {
        let output = nublar(&command).arg("--help").output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
    let wrong = nublar(&["frontends"]).arg("--help").output().unwrap();
    assert!(!wrong.status.success());
}

#[test]
fn everything_that_is_named_is_there() {
    let compose = compose();
    let services = names(&compose["services"]);
    for (name, service) in compose["services"].as_object().unwrap() {
        for other in names(&service["depends_on"]) {
            assert!(services.contains(&other), "{name} depends on {other}");
        }
        for volume in texts(&service["volumes"]) {
            let (volume, _) = volume.split_once(':').unwrap();
            assert!(
                names(&compose["volumes"]).contains(&volume),
                "{name}: {volume}"
            );
        }
        for source in service["configs"].as_array().into_iter().flatten() {
            let source = source["source"].as_str().unwrap();
            assert!(
                names(&compose["configs"]).contains(&source),
                "{name}: {source}"
            );
        }
        let image = service["image"].as_str().unwrap();
        let fixed = image
            .split_once(':')
            .is_some_and(|(_, tag)| tag != "latest");
        assert!(image == "nublar" || fixed, "{name}: which {image}?");
    }
    let source = compose["configs"]["nublar"]["file"].as_str().unwrap();
    assert_eq!(source, "deploy/nublar.toml");
}

#[test]
fn only_agents_reach_it_from_other_machines() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        for port in texts(&service["ports"]) {
            let agents = name.starts_with("frontend") && port.ends_with(":8000");
            assert!(agents || port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn the_configuration_names_what_compose_has() {
    let (compose, config) = (compose(), config());
    let services = &compose["services"];
    let storage = config["storage"].as_table().unwrap();

    let kafka = storage["log"]["brokers"].as_str().unwrap();
    let advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str();
    assert_eq!(advertised.unwrap(), format!("PLAINTEXT://{kafka}"));
    assert_eq!(
        storage["index"]["url"].as_str(),
        Some("http://opensearch:9200")
    );
    assert!(services["opensearch"].is_object());
    let objects = storage["objects"]["endpoint"].as_str().unwrap();
    let (host, port) = objects
        .strip_prefix("http://")
        .unwrap()
        .split_once(':')
        .unwrap();
    assert!(texts(&services[host]["command"]).contains(&format!(":{port}").as_str()));

    let mounted = |of: &Value| -> Vec<String> {
        let configs = of["configs"].as_array().unwrap().iter();
        configs
            .map(|config| config["target"].as_str().unwrap().to_owned())
            .collect()
    };
    let secrets = Path::new(config["secrets_file"].as_str().unwrap());
    for (name, _) in OURS {
        let service = &services[name];
        let path = service["environment"]["NUBLAR_CONFIG"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(mounted(service).contains(&path), "{name}: no {path}");
        let keys = storage["objects"]["keys_file"].as_str().unwrap().to_owned();
        assert!(mounted(service).contains(&keys), "{name}: no {keys}");
        let volume = format!("secrets:{}", secrets.parent().unwrap().display());
        assert!(
            texts(&service["volumes"]).contains(&volume.as_str()),
            "{name}: no {volume}"
        );
    }

    let agents = config["frontend"]["listen"][0]["addr"].as_str().unwrap();
    let agents = agents.rsplit_once(':').unwrap().1;
    for name in ["frontend-1", "frontend-2"] {
        let port = texts(&services[name]["ports"])[0]
            .rsplit_once(':')
            .unwrap()
            .1;
        assert_eq!(port, agents, "{name}");
    }
    let people = config["gui"]["listen"]
        .as_str()
        .unwrap()
        .rsplit_once(':')
        .unwrap()
        .1;
    let port = texts(&services["gui"]["ports"])[0]
        .rsplit_once(':')
        .unwrap()
        .1;
    assert_eq!(port, people);
}

#[test]
fn the_program_takes_the_configuration() {
    let check = |path: &Path| {
        let output = nublar(&["config", "check"])
            .arg("--config")
            .arg(path)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (taken, errors) = check(&file("deploy/nublar.toml"));
    assert!(taken, "{errors}");

    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    let text = std::fs::read_to_string(file("deploy/nublar.toml")).unwrap();
    std::fs::write(&wrong, text.replace("keys_file", "key_file")).unwrap();
    let (taken, errors) = check(&wrong);
    assert!(!taken && errors.contains("key_file"), "{errors}");
}

/// Every process becomes ready, answers for its health and ends when told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_commands_work_as_plain_processes() {
    let Some(services) = native::services() else {
        eprintln!("not run: NUBLAR_TEST_SERVICES names no services.env");
        return;
    };
    let compose = compose();
    let commands = OURS.map(|(name, _)| {
        let command = texts(&compose["services"][name]["command"]);
        (
            name,
            command.into_iter().map(str::to_owned).collect::<Vec<_>>(),
        )
    });
    let installation = native::Installation::new(&config(), &services);
    native::run(&installation, &commands).await;
}

#[test]
fn the_program_takes_what_the_documentation_shows() {
    let text = std::fs::read_to_string(file("docs/configuration.md")).unwrap();
    let blocks: Vec<_> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    assert_eq!(blocks.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    for (number, block) in blocks.into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.toml"));
        std::fs::write(&path, block).unwrap();
        let output = nublar(&["config", "check"])
            .arg("--config")
            .arg(&path)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "block {number}: {errors}");
    }
}
