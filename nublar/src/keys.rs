//! `nublar keys`: shows what agents encrypt to and trust, and puts a new key in the old one's place
//! while they work.

use crate::At;
use crate::certificates::{Authority, Dates};
use crate::secrets::{NextKey, Pair, Secrets};
use crate::setup::now_us;
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use clap::Subcommand;
use nublar_core::ids::hex;
use nublar_wire::PublicKey;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use time::OffsetDateTime;

const MINUTE_US: i64 = 60_000_000;
const DAY_S: i64 = 86_400;

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say which keys there are, and when certificates end
    Show(At),
    /// Make a new key for agents to encrypt to; the old one stays good
    Roll {
        #[command(flatten)]
        at: At,
        /// From when on agents are shown it: in which time every process must have the new
        /// secrets file
        #[arg(long, value_name = "MINUTES", default_value_t = 10)]
        in_minutes: u32,
    },
    /// Forget the old key, once agents are shown the new one
    Retire(At),
}

/// Does it, and prints what it did.
pub(crate) fn execute(command: &Command) -> Result<()> {
    match command {
        Command::Show(at) => show(at),
        Command::Roll { at, in_minutes } => roll(at, *in_minutes),
        Command::Retire(at) => retire(at),
    }
}

fn show(at: &At) -> Result<()> {
    let secrets = Secrets::load(&at.load()?.secrets_path()?)?;
    let line = |what: &str, certificate: &str, more: &str| -> Result<()> {
        let ends = day(Dates::of(certificate)?.until)?;
        println!("{what:<12} certificate until {ends}{more}");
        Ok(())
    };
    let signs = if secrets.ca.key.trim().is_empty() {
        ", its key is kept elsewhere"
    } else {
        ""
    };
    line("ca", &secrets.ca.certificate, signs)?;
    let fingerprint = |pair: &Pair| Ok::<_, anyhow::Error>(format!(", key {}", name(pair)?));
    let agents = &secrets.agents;
    line("agents", &agents.certificate, &fingerprint(agents)?)?;
    if let Some(next) = &secrets.agents_next {
        let (from, pair) = (moment(next.from_us)?, next.pair());
        let more = format!("{}, shown from {from} on", fingerprint(&pair)?);
        line("agents_next", &next.certificate, &more)?;
    }
    line("tls", &secrets.tls.certificate, "")
}

fn roll(at: &At, in_minutes: u32) -> Result<()> {
    let config = at.load()?;
    let path = config.secrets_path()?;
    let mut secrets = Secrets::load(&path)?;
    if secrets.agents_next.is_some() {
        bail!("the keys are being rolled already: end that with `nublar keys retire` first");
    }
    let authority = Authority::of(&secrets.ca)?.with_context(|| {
        format!(
            "the key of the authority is not in {}: put it into ca.key for as long as this takes",
            path.display()
        )
    })?;
    let now = now_us();
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let life = i64::from(config.certificates.days) * DAY_S;
    let until = authority.until(now / 1_000_000, life);
    let next = NextKey {
        from_us: now + i64::from(in_minutes) * MINUTE_US,
        certificate: authority.sign(&key, &secrets.agents.certificate, until)?,
        key: key.serialize_pem(),
    };
    let (from, name) = (moment(next.from_us)?, name(&next.pair())?);
    secrets.agents_next = Some(next);
    secrets.write(&path)?;
    println!("key {name} is in {}", path.display());
    println!("agents are shown it from {from} on: give the file to every frontend before");
    println!("both keys are good until `nublar keys retire`");
    Ok(())
}

fn retire(at: &At) -> Result<()> {
    let path = at.load()?.secrets_path()?;
    let mut secrets = Secrets::load(&path)?;
    let Some(next) = secrets.agents_next.take() else {
        bail!("there is one key alone: `nublar keys roll` makes another");
    };
    if next.from_us > now_us() {
        let from = moment(next.from_us)?;
        bail!("agents are shown the new key from {from} on: the old one is needed until then");
    }
    let old = name(&secrets.agents)?;
    secrets.agents = next.pair();
    secrets.write(&path)?;
    println!("key {old} is forgotten: give the file to every frontend");
    println!("agents that still use it are refused once, and come back with the new one");
    Ok(())
}

/// The first digits of a hash of the public key.
fn name(pair: &Pair) -> Result<String> {
    let key = PublicKey::from_certificate_pem(pair.certificate.as_bytes())?;
    let hash = digest(&SHA256, &key.to_der());
    Ok(hex(&hash.as_ref()[..8]))
}

fn day(seconds: i64) -> Result<String> {
    Ok(OffsetDateTime::from_unix_timestamp(seconds)?
        .date()
        .to_string())
}

fn moment(us: i64) -> Result<String> {
    let at = OffsetDateTime::from_unix_timestamp(us.div_euclid(1_000_000))?;
    Ok(at.format(&time::format_description::well_known::Rfc3339)?)
}
