//! What this frontend shows of itself: the certificate of `server.pem` with the keys that agents
//! encrypt to, and the leaf of HTTPS. It can be changed while everything goes on.

use crate::config::{Credentials, TlsMaterial};
use crate::error::FrontendError;
use bytes::Bytes;
use nublar_wire::{PublicKey, ServerKey, ServerKeys};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is shown at a time.
pub(crate) struct Shown {
    /// What `server.pem` answers.
    pub(crate) certificate: Bytes,
    /// What agents may have encrypted to.
    pub(crate) keys: ServerKeys,
    tls: Option<Arc<CertifiedKey>>,
}

impl Shown {
    /// Reads it, and holds certificates against keys.
    fn read(of: &Credentials) -> Result<Self, FrontendError> {
        let keys = ServerKeys::from_pem(of.agent_keys_pem.as_bytes())?;
        let certified = PublicKey::from_certificate_pem(of.certificate_pem.as_bytes())?;
        if certified != *keys.newest().public_key() {
            let text = "the certificate of server.pem is not for the newest agent-facing key";
            return Err(FrontendError::Config(text.into()));
        }
        Ok(Self {
            certificate: Bytes::copy_from_slice(of.certificate_pem.as_bytes()),
            keys,
            tls: of.tls.as_ref().map(leaf).transpose()?.map(Arc::new),
        })
    }

    /// Whether agents may still use this key.
    pub(crate) fn has(&self, key: &ServerKey) -> bool {
        self.keys.contain(key)
    }
}

fn leaf(material: &TlsMaterial) -> Result<CertifiedKey, FrontendError> {
    let bad = |what: &str, error: &dyn fmt::Display| FrontendError::Tls(format!("{what}: {error}"));
    let chain = CertificateDer::pem_slice_iter(material.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("certificate chain", &error))?;
    let key = PrivateKeyDer::from_pem_slice(material.key_pem.as_bytes())
        .map_err(|error| bad("private key", &error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| bad("certificate and key", &error))
}

impl Credentials {
    /// Whether a frontend can use them.
    ///
    /// # Errors
    /// What can not be read, or does not belong together.
    pub fn check(&self) -> Result<(), FrontendError> {
        Shown::read(self).map(drop)
    }
}

/// What is shown now; read by every handshake and every new session.
pub(crate) struct Identity(RwLock<Arc<Shown>>);

impl Identity {
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, FrontendError> {
        let shown = Shown::read(credentials)?;
        Ok(Self(RwLock::new(Arc::new(shown))))
    }

    pub(crate) fn now(&self) -> Arc<Shown> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether there is something for listeners that speak TLS.
    pub(crate) fn has_leaf(&self) -> bool {
        self.now().tls.is_some()
    }

    /// Changes with what comes, until the shutdown. What can not be used is said, and changes
    /// nothing.
    pub(crate) async fn follow(
        &self,
        mut credentials: watch::Receiver<Credentials>,
        shutdown: CancellationToken,
    ) {
        loop {
            let changed = tokio::select! {
                changed = credentials.changed() => changed,
                () = shutdown.cancelled() => return,
            };
            if changed.is_err() {
                // Nobody will change it any more.
                return shutdown.cancelled().await;
            }
            let read = Shown::read(&credentials.borrow_and_update());
            match read {
                Ok(shown) => {
                    let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
                    *now = Arc::new(shown);
                    tracing::info!("keys and certificates are others from now on");
                }
                Err(error) => {
                    tracing::error!(%error, "keys and certificates stay as they are");
                }
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now().tls.clone()
    }
}
