//! TLS for HTTPS checks, with or without a look at the certificate.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use shunt_api::config::Tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::failure::{Failure, Within};

/// Both ways to begin TLS, made once.
pub struct Connectors {
    verifying: TlsConnector,
    trusting: TlsConnector,
    authorities: usize,
}

impl Connectors {
    /// Trusts whom this box trusts.
    pub fn of_this_box() -> Self {
        let mut roots = RootCertStore::empty();
        // A certificate that cannot be read makes a check fail with its reason, if any check needs it.
        roots.add_parsable_certificates(load_native_certs().certs);
        Self::new(roots)
    }

    /// Trusts `roots`.
    pub fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("ring speaks the versions that rustls does")
        };
        let authorities = roots.len();
        let trusting = builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider: Arc::clone(&provider) }));
        Self {
            verifying: connector(builder().with_root_certificates(roots).with_no_client_auth()),
            trusting: connector(trusting.with_no_client_auth()),
            authorities,
        }
    }

    /// Begins TLS with the server of `name`, or with one at `address` if there is no name.
    pub async fn connect(
        &self,
        tls: &Tls,
        name: Option<&str>,
        address: IpAddr,
        stream: TcpStream,
        within: Within,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        if tls.verify && self.authorities == 0 {
            return Err(Failure::own(
                "this box trusts no certificate authority; install the package ca-certificates",
            ));
        }
        let server = match name {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|_| {
                Failure::own(format!("`{name}` is no server name; write one such as example.com"))
            })?,
            None => ServerName::IpAddress(address.into()),
        };
        let connector = if tls.verify { &self.verifying } else { &self.trusting };
        let told = server.to_str().into_owned();
        let handshake =
            async { connector.connect(server, stream).await.map_err(|error| refused(&error, &told)) };
        within.wait("no TLS session", handshake).await
    }
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed shows no certificate, and one that expired in between would not be noticed.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// What came in the way of TLS.
fn refused(error: &io::Error, name: &str) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(problem)) => Failure::backend(certificate(problem, name)),
        Some(Error::AlertReceived(alert)) => {
            Failure::backend(format!("TLS refused with the alert {alert:?}"))
        }
        Some(Error::InvalidMessage(_)) => Failure::backend("no TLS is spoken there"),
        Some(other) => Failure::backend(format!("TLS failed: {other}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::backend("the connection was closed before TLS began")
        }
        None => Failure::io(error),
    }
}

fn certificate(problem: &CertificateError, name: &str) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate not valid for the name `{name}`")
        }
        CertificateError::BadSignature => "certificate not signed by the authority it names".into(),
        CertificateError::UnknownIssuer => {
            "certificate issued by an authority this box does not trust".into()
        }
        other => format!("certificate refused: {other}"),
    }
}

/// Takes any certificate. The server must still hold its key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
