//! `nublar`: every role of the server, all of them in one process by default, and the commands of
//! people.

mod certificates;
mod check_url;
mod cli;
mod client_config;
mod compose;
mod config;
mod import;
mod keys;
mod manual;
mod readiness;
mod replay;
mod secrets;
mod setup;
mod yaml;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use client_config::AgentOptions;
use compose::Roles;
use config::Config;
use secrets::Secrets;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A server for fleets of Velociraptor agents
///
/// `nublar run` is the whole server in one process over one folder. `setup`, `frontend`, `worker`,
/// `foreman` and `gui` are its parts, each a process of its own, over storage that they share.
///
/// The other commands ask a running server. Which one, is said by --data DIR for a server on this
/// machine, or by --server URL and --token-file FILE; or once, by NUBLAR_DATA, or NUBLAR_SERVER and
/// NUBLAR_TOKEN_FILE. They print tables for people and, with --json, JSON for programs. Errors go to
/// standard error, and the exit code is then not 0.
#[derive(Debug, Parser)]
#[command(name = "nublar", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process; prints `ready` when agents and people can connect
    Run {
        #[command(flatten)]
        at: At,
        /// Where agents connect by HTTPS; several addresses are several frontends
        #[arg(long = "frontend", value_name = "ADDR")]
        frontends: Vec<SocketAddr>,
        /// Where agents connect by plain HTTP, for proxies that end TLS
        #[arg(long = "frontend-http", value_name = "ADDR")]
        frontends_http: Vec<SocketAddr>,
        /// Where people connect
        #[arg(long, value_name = "ADDR")]
        gui: Option<SocketAddr>,
    },
    /// Make topics, index, objects and the secrets file; safe to repeat
    ///
    /// Needed once before the parts of a server are started as processes of their own, and again
    /// after an upgrade. `nublar run` does it by itself.
    Setup(At),
    /// Run a frontend: what agents connect to
    Frontend(At),
    /// Run ingest-workers: they store what agents send
    Worker(At),
    /// Run a foreman: it decides which agent is given what, and when a flow has ended
    Foreman(At),
    /// Run the API: what people and programs connect to
    Gui(At),
    /// Print the configuration for agents
    ///
    /// YAML for `velociraptor client --config`. Without --url it names this machine.
    ClientConfig {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        client: AgentOptions,
    },
    /// Go to the server as agents do, and say what is in the way
    ///
    /// Tries a URL that agents are given, through the load balancers and proxies in between: whether
    /// agents trust what is shown there, whether answers pass as they are sent, how long a connection
    /// may be silent, how large a body may be, and by which address the server knows whoever comes. A
    /// line for each, with the directive that is to be changed. The exit code is 0 if agents can live
    /// with all of it. On a machine without the server's secrets an agent's configuration
    /// (--client-config) will do.
    CheckUrl(check_url::Options),
    /// Take over a deployment of another server, with its agents as they are
    #[command(subcommand)]
    Import(import::Command),
    /// Look at the keys and certificates of agents, or put a new key in their place
    #[command(subcommand)]
    Keys(keys::Command),
    /// Read topics again from their beginning, into an index that is new or was made wrong
    ///
    /// The server must be stopped; of one over shared storage, its workers. Whatever is read twice is
    /// stored once, so that an index which lacks something is filled and one that lacks nothing stays
    /// as it is. What is older than the log keeps is not there to be read: see that an index holds
    /// nothing older before you throw it away.
    Replay {
        #[command(flatten)]
        at: At,
        /// Which topics; all of them if left out
        #[arg(value_enum)]
        topics: Vec<replay::Topic>,
    },
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    ///
    /// For bash, save them as ~/.local/share/bash-completion/completions/nublar; for zsh, as _nublar
    /// in a folder of the fpath; for fish, as ~/.config/fish/completions/nublar.fish.
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the pages of the manual, one for each command
    ///
    /// `man` finds them in ~/.local/share/man/man1 or /usr/local/share/man/man1.
    Man {
        /// Folder to write them into; made if it is not there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    #[command(flatten)]
    People(cli::Command),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration and the secrets can be used, and what is wrong if not
    Check(At),
}

/// Which installation.
#[derive(Debug, Clone, clap::Args)]
struct At {
    /// Folder in which everything is kept; of a server over shared storage, its secrets
    #[arg(long, value_name = "DIR", env = "NUBLAR_DATA")]
    data: Option<PathBuf>,
    /// Configuration file, TOML; the defaults if left out
    #[arg(long, value_name = "FILE", env = "NUBLAR_CONFIG")]
    config: Option<PathBuf>,
}

impl At {
    fn load(&self) -> Result<Config> {
        Config::load(self.config.as_deref(), self.data.as_deref())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The commands of people print what they find; only trouble is worth a line beside it.
    let usual = if matches!(arguments.command, Command::People(_) | Command::CheckUrl(_)) {
        "warn"
    } else {
        "info"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("NUBLAR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours())
        .init();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nublar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Colours are for a terminal whose owner has not set NO_COLOR.
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}

#[tokio::main]
async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run {
            at,
            frontends,
            frontends_http,
            gui,
        } => {
            let config = with_addresses(at.load()?, &frontends, &frontends_http, gui);
            compose::run(config, Roles::All).await?;
        }
        Command::Setup(at) => set_up(&at.load()?).await?,
        Command::Frontend(at) => compose::run(at.load()?, Roles::Frontend).await?,
        Command::Worker(at) => compose::run(at.load()?, Roles::Worker).await?,
        Command::Foreman(at) => compose::run(at.load()?, Roles::Foreman).await?,
        Command::Gui(at) => compose::run(at.load()?, Roles::Gui).await?,
        Command::ClientConfig { at, client } => print!("{}", client_yaml(&at.load()?, &client)?),
        Command::CheckUrl(options) => return check_url::execute(options).await,
        Command::Import(command) => import::execute(command).await?,
        Command::Keys(command) => keys::execute(&command)?,
        Command::Replay { at, topics } => replay::execute(&at.load()?, &topics).await?,
        Command::Config(ConfigCommand::Check(at)) => check(&at.load()?)?,
        Command::Completions { shell } => {
            manual::completions(Arguments::command(), shell, &mut std::io::stdout())?;
        }
        Command::Man { dir } => {
            let written = manual::pages(Arguments::command(), &dir)?;
            println!("{written} pages are in {}", dir.display());
        }
        Command::People(command) => return cli::execute(command).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// The addresses of the command line win over those of the file.
fn with_addresses(
    mut config: Config,
    https: &[SocketAddr],
    http: &[SocketAddr],
    gui: Option<SocketAddr>,
) -> Config {
    let tls = |tls| move |addr: &SocketAddr| nublar_frontend::Listen { addr: *addr, tls };
    let given: Vec<_> = https
        .iter()
        .map(tls(true))
        .chain(http.iter().map(tls(false)))
        .collect();
    if !given.is_empty() {
        config.frontend.listen = given;
    } else if config.frontend.listen.is_empty() {
        let addr = SocketAddr::from(([0, 0, 0, 0], 8000));
        config.frontend.listen = vec![nublar_frontend::Listen { addr, tls: true }];
    }
    if let Some(gui) = gui {
        config.gui.listen = gui;
    }
    config
}

async fn set_up(config: &Config) -> Result<()> {
    let data = config.data.clone().unwrap_or_else(|| PathBuf::from("."));
    let storage = config.storage.open(&data)?;
    setup::prepare(config, &storage).await?;
    let secrets = config.secrets_path()?;
    Secrets::load_or_make(&secrets)?;
    setup::announce(storage.log.as_ref()).await?;
    println!(
        "topics, index and objects are there; secrets are in {}",
        secrets.display()
    );
    Ok(())
}

fn client_yaml(config: &Config, client: &AgentOptions) -> Result<String> {
    let secrets = Secrets::load(&config.secrets_path()?)?;
    let api = config.data.as_deref().and_then(compose::Api::read);
    let url = api.and_then(|api| api.agents.first().map(|url| reachable(url)));
    client.yaml(&secrets, url.as_deref(), config.frontend.max_poll)
}

/// A server that listens everywhere is reached by this machine's name in the examples.
fn reachable(url: &str) -> String {
    url.replace("//0.0.0.0:", "//127.0.0.1:")
        .replace("//[::]:", "//[::1]:")
}

fn check(config: &Config) -> Result<()> {
    let secrets = config.secrets_path()?;
    if Path::new(&secrets).exists() {
        Secrets::load(&secrets)?.mac_keys()?;
        certificates::watch(&config.certificates, secrets)?;
        println!("configuration and secrets can be read");
    } else {
        println!(
            "configuration can be read; the secrets file {} is made by `nublar setup` or `nublar run`",
            secrets.display()
        );
    }
    Ok(())
}
