//! How the target's public entry is reached: where, over which protocol, and whom to trust there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::Broken;
use super::stream::Stream;
use crate::scenario::{HttpVersion, Scenario, Target};

/// The way to the target, as the scenario describes it. Everything that talks to the public entry goes the same way.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether HTTP/2 is spoken, and HTTP/1.1 if not.
    pub http2: bool,
    /// Whether a connection serves more than one request.
    pub reuse: bool,
    tls: Option<Arc<Tls>>,
    /// The name of the service as it stands in the `host` header, if the scenario gives one.
    host: Option<String>,
    /// The header line by which the traffic of a rehearsal is known; empty if there is none.
    tag: String,
}

#[derive(Debug)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The other side, or this machine, refused it.
    #[error("no connection: {0}")]
    Tcp(io::Error),
    /// No encryption was agreed on.
    #[error("no TLS: {0}")]
    Tls(io::Error),
}

impl ConnectError {
    /// What it means for a request that was to be sent: none of it was.
    pub fn broken(&self) -> Broken {
        match self {
            ConnectError::Tcp(error) => super::not_connected(error),
            ConnectError::Tls(_) => Broken::Handshake,
        }
    }
}

impl Entry {
    /// A plain one: HTTP/1.1 over connections that are kept.
    pub fn plain(address: SocketAddr) -> Entry {
        Entry { address, http2: false, reuse: true, tls: None, host: None, tag: String::new() }
    }

    /// The one that a scenario describes. `certificate` is the one that the stack made for itself, in PEM, if it did.
    ///
    /// # Errors
    /// What is wrong with the certificates; only files that have changed since the scenario was read can be.
    pub fn of(scenario: &Scenario, address: SocketAddr, certificate: Option<&[u8]>) -> Result<Entry, String> {
        let spec = &scenario.load.connection;
        let http2 = spec.http == HttpVersion::Two;
        let tls = match (&scenario.target, certificate) {
            (Target::Reference(_), None) => None,
            (Target::Reference(_), Some(pem)) => {
                let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
                Some(Tls { config: config(Some(&roots(pem)?), http2), name })
            }
            (Target::External(_), _) => match spec.tls.as_ref().map(toml::Spanned::get_ref) {
                None => None,
                Some(tls) => {
                    let name = match &tls.name {
                        Some(name) => {
                            ServerName::try_from(name.get_ref().clone()).map_err(|error| error.to_string())?
                        }
                        None => ServerName::IpAddress(address.ip().into()),
                    };
                    let roots = match &tls.ca {
                        Some(path) => Some(roots(&read_ca(path.get_ref())?)?),
                        None => None,
                    };
                    Some(Tls { config: config(roots.as_ref(), http2), name })
                }
            },
        };
        let host = match &scenario.target {
            Target::Reference(_) => None,
            Target::External(external) => {
                let certified = spec.tls.as_ref().and_then(|tls| tls.get_ref().name.as_ref());
                external.host.as_ref().or(certified).map(|name| name.get_ref().clone())
            }
        };
        Ok(Entry { address, http2, reuse: spec.reuse, tls: tls.map(Arc::new), host, tag: String::new() })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The header lines that every request has.
    pub fn header_lines(&self) -> String {
        let host = self.host.clone().unwrap_or_else(|| self.address.to_string());
        // HTTP/2 knows no such header (RFC 9113 8.2.2), and a connection is closed there without a word.
        let close = if self.reuse || self.http2 { "" } else { "connection: close\r\n" };
        format!("host: {host}\r\nuser-agent: seckill-rehearsal\r\n{close}{}", self.tag)
    }

    /// From now on every request bears this header, with this value.
    pub fn tag(&mut self, header: Option<(&str, &str)>) {
        self.tag = header.map_or_else(String::new, |(name, value)| format!("{name}: {value}\r\n"));
    }

    /// Connects, and agrees on encryption where there is some.
    ///
    /// # Errors
    /// Who refused it, and why.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let stream = TcpStream::connect(self.address).await.map_err(ConnectError::Tcp)?;
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        unpaced(&stream, self.address);
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let connector = TlsConnector::from(tls.config.clone());
        let stream = connector.connect(tls.name.clone(), stream).await.map_err(ConnectError::Tls)?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Tls(io::Error::other(
                "the service did not choose HTTP/2 when it was offered (ALPN)",
            )));
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Reads a file of certificates.
///
/// # Errors
/// What the system says.
pub fn read_ca(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// The certificates to trust, from PEM.
///
/// # Errors
/// There is none, or one that cannot be read.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in it cannot be trusted: {error}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
}

/// How TLS is spoken. Sessions are not resumed: each buyer is somebody else, and pays for a whole handshake.
fn config(roots: Option<&RootCertStore>, http2: bool) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the default versions");
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots.clone()),
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Arc::new(config)
}

/// Takes every certificate, for `verify = false`. The handshake's signature is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
/// On this machine nothing is lost or congested, so a congestion control that paces what is sent, as BBR does, costs the
/// processor time of its timers and nothing else. Who cannot have the plain one keeps what the system gives.
fn unpaced(stream: &TcpStream, address: SocketAddr) {
    if address.ip().is_loopback() {
        let _ = SockRef::from(stream).set_tcp_congestion(b"reno");
    }
}
