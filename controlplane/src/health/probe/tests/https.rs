use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use shunt_api::config::{HttpCheck, Tls};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use super::*;

/// A certificate that signs itself, and a server that shows it.
pub struct Server {
    pub address: SocketAddr,
    certificate: CertificateDer<'static>,
}

async fn serve(names: &[&str], change: impl Fn(&mut CertificateParams)) -> Server {
    serve_on("127.0.0.1:0", names, change).await
}

/// Serves several clients at a time.
pub async fn serve_on(address: &str, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepting = acceptor.accept(stream);
            tokio::spawn(async {
                // A client that does not like the certificate goes away.
                if let Ok(stream) = accepting.await {
                    web::answer(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            });
        }
    });
    Server { address, certificate }
}

fn https(verify: bool, server_name: Option<&str>) -> HttpCheck {
    HttpCheck { tls: Some(Tls { verify, server_name: server_name.map(Into::into) }), ..web::http() }
}

/// Asks as a box that trusts the certificate if `trusted`, and another one anyway.
async fn ask(server: &Server, trusted: bool, check: HttpCheck) -> Result<(), Failure> {
    let mut other = CertificateParams::new(vec!["other.example".into()]).unwrap();
    other.distinguished_name.push(DnType::CommonName, "another authority");
    let mut roots = RootCertStore::empty();
    roots.add(other.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()).unwrap();
    if trusted {
        roots.add(server.certificate.clone()).unwrap();
    }
    let prober = Prober { connectors: Connectors::new(roots) };
    let check = super::check(CheckKind::Http(check), PATIENCE);
    prober.probe(&check, &target(server.address)).await.map(drop)
}

fn failed(reason: &str) -> Result<(), Failure> {
    Err(Failure::backend(reason))
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for() {
    let server = serve(&["example.com"], |_| {}).await;
    let untrusted = failed("certificate issued by an authority this box does not trust");
    assert_eq!(ask(&server, false, https(true, Some("example.com"))).await, untrusted);
    assert_eq!(ask(&server, false, https(false, Some("example.com"))).await, Ok(()));
    assert_eq!(ask(&server, false, https(false, None)).await, Ok(()));
}

#[tokio::test]
async fn names_are_verified() {
    let server = serve(&["example.com"], |_| {}).await;
    assert_eq!(ask(&server, true, https(true, Some("example.com"))).await, Ok(()));
    let by_host = HttpCheck { host: Some("example.com:8443".into()), ..https(true, None) };
    assert_eq!(ask(&server, true, by_host).await, Ok(()));
    let wrong = ask(&server, true, https(true, Some("example.org"))).await;
    assert_eq!(wrong, failed("certificate not valid for the name `example.org`"));
    let by_address = ask(&server, true, https(true, None)).await;
    assert_eq!(by_address, failed("certificate not valid for the name `127.0.0.1`"));
    let for_address = serve(&["127.0.0.1"], |_| {}).await;
    assert_eq!(ask(&for_address, true, https(true, None)).await, Ok(()));
}

#[tokio::test]
async fn an_expired_certificate() {
    let server = serve(&["example.com"], |params| params.not_after = date_time_ymd(2001, 2, 3)).await;
    assert_eq!(ask(&server, true, https(true, Some("example.com"))).await, failed("certificate expired"));
    assert_eq!(ask(&server, true, https(false, Some("example.com"))).await, Ok(()));
    let server = serve(&["example.com"], |params| params.not_before = date_time_ymd(2999, 2, 3)).await;
    assert_eq!(
        ask(&server, true, https(true, Some("example.com"))).await,
        failed("certificate not valid yet")
    );
}

#[tokio::test]
async fn what_is_no_tls() {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let plain =
        Server { address: listener.local_addr().unwrap(), certificate: CertificateDer::from(Vec::new()) };
    let greet = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mail.example ESMTP\r\n").await.unwrap();
        stream
    };
    let (result, _stream) = tokio::join!(ask(&plain, false, https(false, None)), greet);
    assert_eq!(result, failed("no TLS is spoken there"));
}

#[tokio::test]
async fn a_box_that_trusts_nobody_cannot_verify() {
    let server = serve(&["example.com"], |_| {}).await;
    let prober = Prober { connectors: Connectors::new(web::no_roots()) };
    let check = super::check(CheckKind::Http(https(true, Some("example.com"))), PATIENCE);
    let failure = prober.probe(&check, &target(server.address)).await.unwrap_err();
    assert_eq!(failure.fault, Fault::Own);
    assert!(failure.reason.contains("install the package ca-certificates"), "{failure}");
}
