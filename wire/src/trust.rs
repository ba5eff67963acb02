//! Whom an agent trusts: certificates of its CA, under any name.

use crate::error::WireError;
use crate::keys::PublicKey;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The CA of an agent's config.
#[derive(Debug, Clone)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<AnyName>,
}

fn broken(what: &'static str) -> impl Fn(String) -> WireError {
    move |reason| WireError::BadKey { what, reason }
}

impl Trust {
    /// Trusts the certificates of this CA, PEM.
    ///
    /// # Errors
    /// There is none that can be read.
    pub fn new(ca_pem: &[u8]) -> Result<Self, WireError> {
        let broken = broken("the CA");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.map_err(|error| broken(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| broken(error.to_string()))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
        let chain = built.build().map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            provider,
            verifier: Arc::new(AnyName(chain)),
        })
    }

    /// How to connect; HTTP/2 only if it may be offered.
    ///
    /// # Errors
    /// No version of TLS is to be had.
    pub fn client_config(&self, http2: bool) -> Result<ClientConfig, WireError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken("tls")(error.to_string()))?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier) as Arc<_>)
            .with_no_client_auth();
        config.alpn_protocols = match http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        Ok(config)
    }

    /// Checks what `server.pem` answers as an agent does: of the CA, in date, RSA, with `name` as
    /// its common name. Gives the key to which the agent encrypts.
    ///
    /// # Errors
    /// Whatever an agent would not take it for.
    pub fn check_server(&self, pem: &[u8], name: &str) -> Result<PublicKey, WireError> {
        let broken = broken("server.pem");
        let certificate =
            CertificateDer::from_pem_slice(pem).map_err(|error| broken(error.to_string()))?;
        let any = ServerName::try_from("any").map_err(|error| broken(error.to_string()))?;
        self.verifier
            .verify_server_cert(&certificate, &[], &any, &[], UnixTime::now())
            .map_err(|error| broken(error.to_string()))?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate).map_err(|error| broken(error.to_string()))?;
        let mut names = parsed.subject().iter_common_name();
        if !names.any(|common| common.as_str() == Ok(name)) {
            return Err(broken(format!(
                "its name is {}, not {name}",
                parsed.subject()
            )));
        }
        PublicKey::from_certificate_pem(pem)
    }
}

/// Checks the chain and lets every name pass.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is looked at last: whoever fails there has passed all else.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
