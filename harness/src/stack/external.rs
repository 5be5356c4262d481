//! An external stack: a service that is already running on this machine. We put a proxy in front of it, and nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::control::Control;
use super::{Stack, StackError};
use crate::fault::proxy::{Endpoint, Protocol, Proxy, ProxyConfig};
use crate::scenario::{External, Scenario};

/// Puts a proxy in front of the service and checks that both its listeners answer.
///
/// # Errors
/// An address is not of this machine, or nobody answers there.
pub async fn up(scenario: &Scenario, external: &External) -> Result<Stack, StackError> {
    let address = loopback("target.external.address", external.address.get_ref())?;
    reachable("target.external.address", address).await?;
    let control = match &external.audit {
        None => None,
        Some(audit) => {
            let address = loopback("target.external.audit", audit.get_ref())?;
            reachable("target.external.audit", address).await?;
            Some(Control::new(&Endpoint::Tcp(address))?)
        }
    };
    let proxy = Proxy::start(ProxyConfig {
        name: "client→service".to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        upstream: Endpoint::Tcp(address),
        protocol: Protocol::Http,
        seed: scenario.seed,
    })?;
    let addresses = vec![
        ("service (through its proxy)".to_owned(), format!("http://{}", proxy.listen_addr())),
        ("service, directly".to_owned(), format!("http://{address}")),
    ];
    Ok(Stack { links: vec![proxy], components: Vec::new(), control, addresses, guard: None })
}

/// Load and faults go to this machine only.
fn loopback(key: &str, text: &str) -> Result<SocketAddr, StackError> {
    let bare = text.trim_start_matches("http://").trim_end_matches('/').replace("localhost", "127.0.0.1");
    let address: SocketAddr = bare.parse().map_err(|_| {
        StackError::Other(format!("{key} = \"{text}\" is no address; write 127.0.0.1:8080 or [::1]:8080"))
    })?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(StackError::Other(format!(
        "{key} = \"{text}\" is not this machine; a rehearsal goes only to loopback addresses (127.0.0.0/8 or [::1])"
    )))
}

async fn reachable(key: &str, address: SocketAddr) -> Result<(), StackError> {
    let attempt = tokio::time::timeout(Duration::from_secs(3), tokio::net::TcpStream::connect(address)).await;
    match attempt {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(StackError::Other(format!(
            "{key}: nobody answers at {address} ({error}); start the service first, or correct the address"
        ))),
        Err(_) => Err(StackError::Other(format!("{key}: {address} did not answer within 3 s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_a_target() {
        assert!(loopback("k", "http://localhost:8080/").is_ok());
        assert!(loopback("k", "[::1]:80").is_ok());
        let error = loopback("target.external.address", "10.0.0.7:80").unwrap_err().to_string();
        assert!(error.contains("target.external.address") && error.contains("loopback"), "{error}");
        assert!(loopback("k", "shop.example").unwrap_err().to_string().contains("127.0.0.1:8080"));
    }
}
