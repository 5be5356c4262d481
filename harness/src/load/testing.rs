//! A real server for the tests of the client: HTTP/1.1 and HTTP/2, with TLS or without, and certificates for it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub type Body = BoxBody<Bytes, io::Error>;

/// A body that is there.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that comes in pieces, each after so many milliseconds; a piece that is none breaks the reply off.
pub fn pieces(pieces: Vec<(u64, Option<String>)>) -> Body {
    let stream = futures_util::stream::unfold(pieces.into_iter(), async |mut pieces| {
        let (after, piece) = pieces.next()?;
        tokio::time::sleep(Duration::from_millis(after)).await;
        let piece = piece.map(|piece| Frame::data(Bytes::from(piece)));
        Some((piece.ok_or_else(|| io::Error::other("broken off")), pieces))
    });
    BoxBody::new(StreamBody::new(stream))
}

/// A server on a thread of its own, for as long as the tests run.
pub struct Server {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

/// Serves what `answer` says to a request with its body.
pub fn serve(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(Request<Bytes>) -> Response<Body> + Send + Sync + 'static,
) -> Server {
    let answer = Arc::new(answer);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let address = accept(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (answer, tls) = (answer.clone(), tls.clone());
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)))
                }
            });
            let http = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up, or does not trust the certificate, is what is tested.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        }
    });
    Server { address, connections }
}

/// Does something with each connection, on a thread of its own.
pub fn accept<F: Future<Output = ()> + 'static>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::task::spawn_local(each(stream));
            }
        });
    });
    address
}

/// A certificate for a name, signed by an authority whose own certificate is written to `ca`; the server's side of it, which
/// offers these protocols.
pub fn certified(name: &str, ca: &Path, alpn: &[&str]) -> Arc<ServerConfig> {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca, authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
