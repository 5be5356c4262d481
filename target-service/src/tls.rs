//! TLS on the public listener, with a certificate that the service makes for itself.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What accepts TLS, with `certificate.pem` and `key.pem` in the folder. They are made, for the name `localhost`, where there
/// are none: a service that is started again has the certificate that its clients know.
pub fn acceptor(folder: &Path) -> Result<TlsAcceptor> {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    if !certificate.exists() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).context("making a certificate")?;
        write(&key, &made.signing_key.serialize_pem()).with_context(|| format!("writing {}", key.display()))?;
        write(&certificate, &made.cert.pem()).with_context(|| format!("writing {}", certificate.display()))?;
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("reading {}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("using the certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Writes a file that only its owner may read. It gets its name when it is whole, so that a service that was killed meanwhile
/// leaves no half of one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once() {
        let folder = tempfile::TempDir::new().unwrap();
        acceptor(folder.path()).unwrap();
        let read = || std::fs::read(folder.path().join("certificate.pem")).unwrap();
        let first = read();
        acceptor(folder.path()).unwrap();
        assert_eq!(first, read());
        std::fs::write(folder.path().join("key.pem"), "nonsense").unwrap();
        let error = acceptor(folder.path()).err().unwrap();
        assert!(format!("{error:#}").contains("key.pem"), "{error:#}");
    }
}
