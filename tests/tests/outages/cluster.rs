//! All roles, each as a process of its own, on real services.

use crate::load::Load;
use nublar_ports::{Storage, StorageConfig};
use nublar_tests::{Forwarder, Installation, Role, Server, Services};
use serde::Deserialize;

/// Partitions of what is keyed by clients.
pub(crate) const PARTITIONS: usize = 4;

/// The processes.
pub(crate) struct Cluster {
    pub(crate) gui: Server,
    pub(crate) worker: Server,
    pub(crate) foreman: Server,
    pub(crate) frontends: [Server; 2],
    /// The same services, reached without detours.
    pub(crate) storage: Storage,
    /// Behind the processes: what they printed is shown when they are dropped in a failed test.
    pub(crate) installation: Installation,
}

#[derive(Deserialize)]
struct Configured {
    storage: StorageConfig,
}

impl Cluster {
    /// On the services; those that are named are reached by these ways.
    pub(crate) async fn start(
        services: &Services,
        ways: &[(&str, &Forwarder)],
        config: &str,
    ) -> Self {
        let installation = Installation::empty();
        let direct = services.storage(&installation.beside("keys"));
        let mut storage = direct.clone();
        for (name, way) in ways {
            storage = storage.replace(services.get(name), &way.url());
            assert!(storage.contains(&way.url()), "{name} is not used");
        }
        let installation = installation
            .with_first(&format!("partitions = {PARTITIONS}\n"))
            .with(&storage)
            .with(config);
        Server::set_up(&installation).await;
        let start = |role, name| Server::start_role(&installation, role, name);
        let (gui, worker, foreman, first, second) = tokio::join!(
            start(Role::Gui, "gui"),
            start(Role::Worker, "worker"),
            start(Role::Foreman, "foreman"),
            start(Role::Frontend, "first-frontend"),
            start(Role::Frontend, "second-frontend"),
        );
        let direct: Configured = toml::from_str(&direct).unwrap();
        let storage = direct.storage.open(installation.data()).unwrap();
        Self {
            gui,
            worker,
            foreman,
            frontends: [first, second],
            storage,
            installation,
        }
    }

    /// Starts agents that go to both frontends.
    pub(crate) async fn load(&self, agents: usize) -> Load {
        let frontends = self.frontends.iter().flat_map(Server::agents);
        let frontends: Vec<_> = frontends.cloned().collect();
        let secrets = self.gui.secrets();
        Load::start(&self.gui.gui(), secrets, &frontends, agents).await
    }

    /// All processes with their names.
    pub(crate) fn processes(&mut self) -> [(&'static str, &mut Server); 5] {
        let [first, second] = &mut self.frontends;
        [
            ("gui", &mut self.gui),
            ("worker", &mut self.worker),
            ("foreman", &mut self.foreman),
            ("first frontend", first),
            ("second frontend", second),
        ]
    }

    /// None has ended, and all end well when they are told to.
    pub(crate) async fn stop(&mut self) {
        for (name, process) in self.processes() {
            assert!(process.runs(), "the {name} has ended by itself");
            process.stop().await;
        }
    }
}
