//! Putting roles together: all of them in one process, or one alone.

use crate::certificates;
use crate::config::Config;
use crate::readiness::Services;
use crate::secrets::Secrets;
use crate::setup;
use anyhow::{Context, Result, bail};
use nublar_core::fold::FoldConfig;
use nublar_ports::{Log, Storage};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long roles may take to end after they were told to.
const DRAIN: Duration = Duration::from_secs(20);

/// What `run` and `gui` leave in the data folder for the commands of people.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Api {
    /// Where the API is.
    pub(crate) url: String,
    /// What to show to be let in.
    pub(crate) token: String,
    /// Where agents connect.
    pub(crate) agents: Vec<String>,
}

impl Api {
    const FILE: &str = "api.json";

    /// Reads what the running server left.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data.join(Self::FILE)).ok()?).ok()
    }

    /// What stands there already is left alone: it needs no room on a full disk.
    fn write(&self, data: &Path) -> Result<()> {
        let path = data.join(Self::FILE);
        let text = serde_json::to_string_pretty(self)?;
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let draft = data.join("api.json.new");
        let options = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft);
        options
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The roles of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    /// Everything, on storage of one's own if it is embedded.
    All,
    /// One frontend.
    Frontend,
    /// The workers that the configuration names.
    Worker,
    /// A foreman.
    Foreman,
    /// The people's side.
    Gui,
}

impl Roles {
    fn has(self, role: Self) -> bool {
        self == Self::All || self == role
    }
}

/// Runs the roles until the process is told to end.
pub(crate) async fn run(config: Config, roles: Roles) -> Result<()> {
    if roles != Roles::All && !config.storage.is_shared() {
        bail!(
            "one role alone needs storage that processes can share: configure storage.log, storage.index and storage.objects, or use `nublar run`"
        );
    }
    let data = config.data()?.to_owned();
    std::fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let storage = config.storage.open(&data)?;
    let secrets = if roles == Roles::All {
        Secrets::load_or_make(&config.secrets_path()?)?
    } else {
        Secrets::load(&config.secrets_path()?)?
    };
    let shutdown = CancellationToken::new();
    let mut process = Process {
        config: &config,
        storage: &storage,
        secrets: &secrets,
        tasks: JoinSet::new(),
        shutdown: shutdown.clone(),
    };
    let ended = {
        let end = end_of_process();
        tokio::pin!(end);
        tokio::select! {
            started = process.start(roles, &data) => started,
            () = &mut end => return Ok(()),
        }?;
        println!("ready");
        tokio::select! {
            () = &mut end => Ok(()),
            failed = process.failure() => failed,
        }
    };
    shutdown.cancel();
    let drained = tokio::time::timeout(DRAIN, async {
        while process.tasks.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::warn!("not everything ended in time; what was not done is done at the next start");
    }
    ended
}

struct Process<'a> {
    config: &'a Config,
    storage: &'a Storage,
    secrets: &'a Secrets,
    tasks: JoinSet<Result<()>>,
    shutdown: CancellationToken,
}

impl Process<'_> {
    async fn start(&mut self, roles: Roles, data: &Path) -> Result<()> {
        let services = Services::new(self.config, self.storage);
        if roles == Roles::All {
            services.prepared(self.config).await?;
        } else {
            services.log().await?;
            self.watch(services, roles).await?;
        }
        if roles.has(Roles::Foreman) {
            self.foreman()?;
        }
        if roles.has(Roles::Worker) {
            self.worker();
        }
        let mut api = Api {
            url: String::new(),
            token: self.secrets.api_token.clone(),
            agents: Vec::new(),
        };
        if roles.has(Roles::Frontend) {
            api.agents = self.frontends().await?;
        }
        if roles.has(Roles::Gui) {
            api.url = format!("http://{}", self.gui(&api.agents).await?);
            let announcing = announce(self.storage.log.clone(), self.shutdown.clone());
            self.spawn(announcing);
        }
        if roles == Roles::All {
            api.write(data)?;
            greet(&api, data);
        } else if roles.has(Roles::Gui) {
            // A process for frontends on the same folder may have told where they are.
            if let Some(left) = Api::read(data) {
                api.agents = left.agents;
            }
            if let Err(error) = api.write(data) {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "commands need --server and --token-file"
                );
            }
        }
        Ok(())
    }

    /// Says what is wrong with the index and the objects of a role alone. A foreman needs the
    /// objects before anything else; the others do what they can without.
    async fn watch(&mut self, services: Services, roles: Roles) -> Result<()> {
        if roles == Roles::Foreman {
            return services.objects().await;
        }
        let shutdown = self.shutdown.clone();
        self.spawn(async move {
            let answer = async {
                if roles == Roles::Frontend {
                    services.objects().await
                } else {
                    tokio::try_join!(services.index(), services.objects()).map(drop)
                }
            };
            tokio::select! {
                answer = answer => answer?,
                () = shutdown.cancelled() => {}
            }
            shutdown.cancelled().await;
            Ok(())
        });
        Ok(())
    }

    fn foreman(&mut self) -> Result<()> {
        let ports = nublar_foreman::Ports {
            log: self.storage.log.clone(),
            objects: self.storage.objects.clone(),
        };
        let fold = FoldConfig {
            names: self.secrets.hidden_names(),
            ..FoldConfig::new(self.secrets.mac_keys()?)
        };
        let config = self.config.foreman.clone();
        let foreman = nublar_foreman::run(config, fold, ports, self.shutdown.clone());
        self.spawn(async {
            foreman.await;
            Ok(())
        });
        Ok(())
    }

    fn worker(&mut self) {
        let ports = nublar_ingest_workers::Ports {
            log: self.storage.log.clone(),
            index: self.storage.index.clone(),
            objects: self.storage.objects.clone(),
        };
        let config = nublar_ingest_workers::Config {
            names: self.secrets.hidden_names(),
            ..self.config.workers.clone()
        };
        let workers = nublar_ingest_workers::run(config, ports, self.shutdown.clone());
        self.spawn(async { Ok(workers.await?) });
    }

    /// Each address is a frontend of its own, with its own sessions and polls. Their URLs.
    async fn frontends(&mut self) -> Result<Vec<String>> {
        let config = self.config;
        let watch = certificates::watch(&config.certificates, config.secrets_path()?)?;
        let credentials = watch.credentials.clone();
        let watching = watch.run(self.shutdown.clone());
        self.spawn(async {
            watching.await;
            Ok(())
        });
        let mut urls = Vec::new();
        for listen in &config.frontend.listen {
            let addr = self.frontend(credentials.clone(), *listen).await?;
            let scheme = if listen.tls { "https" } else { "http" };
            urls.push(format!("{scheme}://{addr}{}", config.frontend.base_path));
        }
        Ok(urls)
    }

    async fn frontend(
        &mut self,
        credentials: watch::Receiver<nublar_frontend::Credentials>,
        listen: nublar_frontend::Listen,
    ) -> Result<SocketAddr> {
        let one = nublar_frontend::Config {
            listen: vec![listen],
            ..self.config.frontend.clone()
        };
        let frontend = nublar_frontend::Frontend::bind(
            one,
            theirs(self.secrets, credentials)?,
            self.storage.log.clone(),
            self.storage.objects.clone(),
        )
        .await?;
        let addr = frontend
            .addresses()
            .first()
            .copied()
            .context("the frontend listens nowhere")?;
        let shutdown = self.shutdown.clone();
        self.spawn(async move { Ok(frontend.serve(shutdown).await?) });
        Ok(addr)
    }

    async fn gui(&mut self, agents: &[String]) -> Result<SocketAddr> {
        let (config, secrets) = (&self.config.gui, self.secrets);
        let mut gui = nublar_gui_api::Config::new(config.listen, secrets.api_token.clone());
        gui.names = secrets.hidden_names();
        gui.agent_urls.clone_from(&config.agent_urls);
        if gui.agent_urls.is_empty() {
            gui.agent_urls = agents.iter().map(|url| crate::reachable(url)).collect();
        }
        let Storage {
            log,
            index,
            objects,
        } = self.storage.clone();
        let gui = nublar_gui_api::Gui::bind(gui, log, index, objects, secrets.mac_keys()?).await?;
        let addr = gui.address();
        let shutdown = self.shutdown.clone();
        self.spawn(async move { Ok(gui.serve(shutdown).await?) });
        Ok(addr)
    }

    fn spawn(&mut self, role: impl Future<Output = Result<()>> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                ended = role => ended,
                () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
            }
        });
    }

    /// Waits for a role that ends although nobody told it to.
    async fn failure(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) => bail!("a role ended by itself"),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(error).context("a role failed"),
            None => bail!("nothing to run"),
        }
    }
}

/// What a frontend is to keep to itself.
fn theirs(
    secrets: &Secrets,
    credentials: watch::Receiver<nublar_frontend::Credentials>,
) -> Result<nublar_frontend::Secrets> {
    let orgs = secrets.orgs.iter().map(|org| {
        Ok(nublar_frontend::Org {
            nonce: org.nonce.clone(),
            id: org.id.parse()?,
        })
    });
    Ok(nublar_frontend::Secrets {
        credentials,
        orgs: orgs.collect::<Result<_>>()?,
        mac: secrets.mac_keys()?,
    })
}

/// How often the interrogation is announced anew: its request must not outlive its topic.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(86_400);
/// How soon after it failed.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);

/// Announces the interrogation until the shutdown.
async fn announce(log: Arc<dyn Log>, shutdown: CancellationToken) -> Result<()> {
    while !shutdown.is_cancelled() {
        let wait = match setup::announce(log.as_ref()).await {
            Ok(()) => ANNOUNCE_EVERY,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the interrogation is not announced, trying again"
                );
                ANNOUNCE_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

fn greet(api: &Api, data: &Path) {
    println!("people:  {}", api.url);
    println!("token:   {}", api.token);
    for agents in &api.agents {
        println!("agents:  {agents}");
    }
    println!(
        "config:  nublar client-config --data {} > client.config.yaml",
        data.display()
    );
}

async fn end_of_process() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
