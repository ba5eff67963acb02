//! `nublar-simulator`: a fleet against a server, its work, and whether all of it was kept.

use anyhow::{Context, Result, bail};
use clap::Parser;
use nublar_simulator::{
    ARTIFACT_YAML, AgentConfig, Api, Audit, Done, Faults, Fleet, Proxy, Script, Traffic, Trust,
    UploadScript, Work, agent_keys, audit, known_flows, memory, wait_until_final,
};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Agents by the thousand against a server: enrols them, gives them work through the REST API,
/// and compares what the server shows with what they were given and sent. Ends with 1 if anything
/// differs.
#[derive(Debug, Parser)]
#[command(name = "nublar-simulator", version)]
struct Arguments {
    /// Base URLs of the frontends, each with a slash at its end
    #[arg(long, value_delimiter = ',', required = true)]
    urls: Vec<String>,
    /// The CA of the agents' configuration, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The nonce of the agents' configuration
    #[arg(long)]
    nonce: String,
    /// How many agents
    #[arg(long, default_value_t = 5)]
    agents: usize,
    /// Folder in which the agents' keys are kept
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// How many times faster than real ones the agents live
    #[arg(long, default_value_t = 10.0)]
    speed: f64,
    /// Determines everything that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take another frontend for each request
    #[arg(long)]
    hop: bool,
    /// Do not take HTTP/2
    #[arg(long)]
    http1: bool,
    /// Speak over WebSockets
    #[arg(long)]
    websocket: bool,
    /// Lose one in n answers, after the server has given it: a coin of its own for each answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    lose_every: u32,
    /// Send one in n POSTs twice
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeat_every: u32,
    /// Lose one in n POSTs
    #[arg(long, value_name = "N", default_value_t = 0)]
    drop_every: u32,
    /// Cut off one in n answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    cut_every: u32,
    /// Let a proxy in front of each frontend, all of which must be plain HTTP, do these things to
    /// the POSTs of all agents together, instead of the network to those of each
    #[arg(long)]
    through_proxy: bool,
    /// Hold POSTs and answers up to so long
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay_ms: u64,
    /// The REST API
    #[arg(long, value_name = "URL")]
    api: String,
    /// File that holds the token of the API
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// How many flows
    #[arg(long, default_value_t = 50)]
    tasks: usize,
    /// How many of them at most that have not ended
    #[arg(long, default_value_t = 100)]
    outstanding: usize,
    /// Rows of a flow
    #[arg(long, default_value_t = 10)]
    rows: u64,
    /// Bytes of a row at least
    #[arg(long, default_value_t = 100)]
    row_bytes: usize,
    /// Log rows of a flow
    #[arg(long, default_value_t = 2)]
    logs: u64,
    /// Bytes of the file that every third flow uploads
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    upload: u64,
    /// How long a flow takes at speed 1
    #[arg(long, value_name = "MS", default_value_t = 0)]
    duration_ms: u64,
    /// Every nth flow is urgent
    #[arg(long, value_name = "N", default_value_t = 0)]
    urgent_every: usize,
    /// Every nth flow is cancelled
    #[arg(long, value_name = "N", default_value_t = 0)]
    cancel_every: usize,
    /// With every nth flow some agent is started anew
    #[arg(long, value_name = "N", default_value_t = 0)]
    restart_every: usize,
    /// How long all of it may take, the comparison not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    seconds_max: u64,
    /// How long to wait at most until the API knows all host names
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    named_within_s: u64,
    /// How long flows may take to end after their agents are done
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    settle_s: u64,
    /// Process of the server, for its memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Where to write the report, JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What is written at the end.
#[derive(Debug, Serialize)]
struct Report {
    agents: usize,
    enrolled_s: f64,
    named_s: f64,
    nameless: usize,
    tasks_per_s: f64,
    work: Done,
    open_at_the_end: usize,
    traffic: Traffic,
    /// MiB: now, and at most.
    server_memory: Option<(u64, u64)>,
    /// Announcements of ends, enrolments and commands: those there must be, and those there are.
    notifications: (u64, u64),
    audit: Audit,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NUBLAR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nublar-simulator: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> Result<bool> {
    let report = simulate(&arguments).await?;
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(file) = &arguments.report {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(report.audit.violations == 0 && report.open_at_the_end == 0)
}

async fn simulate(arguments: &Arguments) -> Result<Report> {
    let read = |file: &PathBuf| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    let trust = Trust::new(read(&arguments.ca)?.as_bytes())?;
    let api = Api::new(&arguments.api, &read(&arguments.token_file)?)?;
    if let Some(url) = arguments.urls.iter().find(|url| !url.ends_with('/')) {
        bail!("{url} must end with a slash");
    }
    eprintln!("making keys");
    let keys = agent_keys(arguments.keys.as_deref(), arguments.agents).await?;
    let before = api.topics().await?;
    let mut known = 0;
    for key in &keys {
        known += u64::from(api.client(key.client_id()).await?.is_some());
    }
    let clients: Vec<String> = keys.iter().map(|key| key.client_id().to_owned()).collect();
    let there_before = known_flows(&api, &clients).await?;
    api.put_artifact(ARTIFACT_YAML).await?;

    let until = Instant::now() + Duration::from_secs(arguments.seconds_max);
    let (proxies, proxied) = match arguments.through_proxy {
        true => proxies(arguments).await?,
        false => Default::default(),
    };
    let fleet = Fleet::start(&agent_config(arguments, proxied), &trust, keys)?;
    eprintln!("{} agents enrol", arguments.agents);
    let enrolled = fleet.enrolled(&api, until).await?;
    let name_by = until.min(Instant::now() + Duration::from_secs(arguments.named_within_s));
    let (named, nameless) = fleet.named(&api, name_by).await?;
    eprintln!("{} flows", arguments.tasks);
    let done = fleet.work(&api, &work(arguments, until)).await;
    eprintln!(
        "{} ended after {:.1} s; waiting until all are final",
        done.ended, done.seconds
    );
    let settle = Duration::from_secs(arguments.settle_s);
    let open_at_the_end = wait_until_final(&api, fleet.ledger(), settle).await?;
    eprintln!("{open_at_the_end} are open; comparing");
    let traffic = Traffic::of(fleet.ledger());
    let audit = audit(&api, fleet.ledger(), &there_before).await?;
    let after = api.topics().await?;
    let came = |topics: &std::collections::BTreeMap<String, u64>| {
        topics.get("notifications").copied().unwrap_or(0)
    };
    let due = audit.finished + audit.failed + audit.clients - known + done.cancelled + 1;
    let report = Report {
        agents: arguments.agents,
        enrolled_s: enrolled.as_secs_f64(),
        named_s: named.as_secs_f64(),
        nameless,
        tasks_per_s: if done.seconds > 0.0 {
            done.ended as f64 / done.seconds
        } else {
            0.0
        },
        work: done,
        open_at_the_end,
        traffic,
        server_memory: arguments.server_pid.and_then(memory),
        notifications: (due, came(&after) - came(&before)),
        audit,
    };
    fleet.stop().await;
    drop(proxies);
    Ok(report)
}

fn faults(arguments: &Arguments) -> Faults {
    Faults {
        lose_every: arguments.lose_every,
        repeat_every: arguments.repeat_every,
        drop_every: arguments.drop_every,
        cut_every: arguments.cut_every,
        delay_ms: arguments.delay_ms,
    }
}

/// Proxies in front of all frontends, and the URLs under which agents reach them.
async fn proxies(arguments: &Arguments) -> Result<(Vec<Proxy>, Vec<String>)> {
    let (mut proxies, mut urls) = (Vec::new(), Vec::new());
    for (number, url) in arguments.urls.iter().enumerate() {
        if !url.starts_with("http://") {
            bail!("{url} must be plain HTTP to have a proxy in front of it");
        }
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let seed = arguments.seed.wrapping_add(number as u64);
        let proxy = Proxy::start(listen, None, url, seed).await?;
        proxy.set(faults(arguments));
        urls.push(format!("http://{}/", proxy.address()));
        proxies.push(proxy);
    }
    Ok((proxies, urls))
}

fn agent_config(arguments: &Arguments, proxied: Vec<String>) -> AgentConfig {
    let (urls, faults) = if arguments.through_proxy {
        (proxied, Faults::NONE)
    } else {
        (arguments.urls.clone(), faults(arguments))
    };
    AgentConfig {
        speed: arguments.speed,
        hop: arguments.hop,
        http2: !arguments.http1,
        websockets: arguments.websocket,
        seed: arguments.seed,
        faults,
        ..AgentConfig::new(urls, arguments.nonce.clone())
    }
}

fn work(arguments: &Arguments, until: Instant) -> Work {
    let plain = Script {
        rows: arguments.rows,
        row_bytes: arguments.row_bytes,
        logs: arguments.logs,
        duration_ms: arguments.duration_ms,
        ..Script::default()
    };
    let mut scripts = vec![plain.clone(), plain.clone(), plain.clone()];
    if arguments.upload > 0 {
        let file = |name: &str, size, compress| UploadScript {
            name: name.to_owned(),
            size,
            compress,
        };
        scripts[2].uploads = vec![
            file("/var/log/simulated.bin", arguments.upload, false),
            file("/var/log/simulated.txt", arguments.upload / 2, true),
        ];
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Work {
        tasks: arguments.tasks,
        outstanding: arguments.outstanding,
        scripts,
        urgent_every: arguments.urgent_every,
        cancel_every: arguments.cancel_every,
        restart_every: arguments.restart_every,
        name: format!("simulator-{}-{}", arguments.seed, since.as_micros()),
        until,
    }
}
