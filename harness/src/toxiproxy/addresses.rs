//! Where proxies may listen and lead to: this machine, and networks that were allowed.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use ipnet::IpNet;

use super::Refusal;
use crate::fault::proxy::Endpoint;
use crate::scenario::value;

/// Where a proxy may lead to: this machine, or a network that was allowed.
pub fn upstream_of(text: &str, allowed: &[IpNet]) -> Result<Endpoint, Refusal> {
    let text = if text.starts_with("unix:") { text.to_owned() } else { resolved(text)?.to_string() };
    value::endpoint(&text, allowed).map_err(|what| {
        Refusal::forbidden(format!("upstream: {what}, and faults go nowhere else; --allow names a private network"))
    })
}

/// Where a proxy listens. Toxiproxy takes an address without a host, and one of zeros, for all addresses of the machine; here
/// it is loopback, since nobody else is to find it unless that is asked for.
pub fn listen_of(text: &str, allowed: &[IpNet]) -> Result<SocketAddr, Refusal> {
    let bare = text.strip_prefix("0.0.0.0:").or_else(|| text.strip_prefix("[::]:")).or_else(|| text.strip_prefix(':'));
    let address = match bare {
        _ if text.is_empty() => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        Some(port) => resolved(&format!("{}:{port}", Ipv4Addr::LOCALHOST))?,
        None => resolved(text)?,
    };
    if may_listen(address, allowed) {
        return Ok(address);
    }
    Err(Refusal::forbidden(format!("listen: {text} is not on loopback; --allow names a private network to listen in")))
}

/// Whether that is loopback, or in a network that was allowed.
pub fn may_listen(address: SocketAddr, allowed: &[IpNet]) -> bool {
    address.ip().is_loopback() || allowed.iter().any(|network| network.contains(&address.ip()))
}

/// An address or a name with its port.
fn resolved(text: &str) -> Result<SocketAddr, Refusal> {
    let found = text.to_socket_addrs().map(|mut addresses| addresses.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Refusal::bad(format!("{text} is no address"))),
        Err(error) => Err(Refusal::bad(format!("{text} is no address: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_or_leads_beyond_what_is_allowed() {
        let allowed = [value::network("10.99.0.0/24").unwrap()];
        let listen = |text: &str| listen_of(text, &allowed).map(|address| address.to_string());
        for (text, address) in [
            ("", "127.0.0.1:0"),
            (":8001", "127.0.0.1:8001"),
            ("0.0.0.0:8001", "127.0.0.1:8001"),
            ("[::]:8001", "127.0.0.1:8001"),
            ("10.99.0.1:8001", "10.99.0.1:8001"),
        ] {
            assert_eq!(listen(text).unwrap(), address, "{text}");
        }
        assert_eq!(listen("10.99.1.1:8001").unwrap_err().status, 403);
        assert_eq!(listen("8001").unwrap_err().status, 400);
        assert_eq!(upstream_of("10.99.0.1:80", &[]).unwrap_err().status, 403);
        assert_eq!(upstream_of("8.8.8.8:53", &allowed).unwrap_err().status, 403);
        assert_eq!(upstream_of("10.99.0.1:80", &allowed).unwrap().to_string(), "10.99.0.1:80");
        assert_eq!(upstream_of("unix:/tmp/x", &[]).unwrap().to_string(), "unix:/tmp/x");
    }
}
