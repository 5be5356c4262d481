//! The proxies that clients of the API create and change, and those of a running stack that are lent to them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::addresses::{listen_of, upstream_of};
use super::toxics::{Asked, Toxic};
use crate::fault::proxy::{Endpoint, Protocol, Proxy, ProxyConfig, ProxyError};
use crate::fault::toxic::{self, ToxicId, ToxicKind};

/// All proxies, by name.
#[derive(Debug)]
pub struct Collection {
    /// Besides loopback, where upstreams may be and proxies may listen.
    allowed: Vec<IpNet>,
    /// Chooses the connections that a toxic strikes.
    seed: u64,
    entries: Mutex<BTreeMap<String, Entry>>,
}

/// A proxy as it is asked for, or the change of one: what is absent or null stays as it is, or gets its default.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AskedProxy {
    name: Option<String>,
    listen: Option<String>,
    upstream: Option<String>,
    enabled: Option<bool>,
}

/// A proxy as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    name: String,
    listen: String,
    upstream: String,
    enabled: bool,
    toxics: Vec<Toxic>,
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, listen, upstream, enabled, .. } = self;
        write!(f, "{name}  {listen} → {upstream}{}", if *enabled { "" } else { " (disabled)" })
    }
}

#[derive(Debug)]
struct Entry {
    listen: String,
    upstream: String,
    line: Line,
    toxics: Vec<Held>,
}

#[derive(Debug)]
enum Line {
    /// Made by a client; there is none while it is disabled.
    Own(Option<Proxy>),
    /// One that others run. While it is disabled, a reset is armed on it: it cannot stop listening, since others would
    /// lose its address.
    Lent { links: Arc<dyn Links>, at: usize, down: Option<ToxicId> },
}

/// Somebody whose proxies are lent to the clients of the API.
pub trait Links: std::fmt::Debug + Send + Sync {
    /// The proxies, always the same ones.
    fn links(&self) -> &[Proxy];
}

impl Links for crate::stack::Stack {
    fn links(&self) -> &[Proxy] {
        &self.links
    }
}

#[derive(Debug)]
struct Held {
    toxic: Toxic,
    /// None while the proxy is disabled, or if nothing has to be armed for it.
    armed: Option<ToxicId>,
}

impl Collection {
    /// One without proxies.
    pub fn new(allowed: Vec<IpNet>, seed: u64) -> Collection {
        Collection { allowed, seed, entries: Mutex::default() }
    }

    /// One with proxies that others run. An arrow is hard to write in a URL, so `client→service` is `client-to-service`.
    ///
    /// # Errors
    /// A proxy has been shut down.
    pub fn lent(links: &Arc<dyn Links>) -> Result<Collection, ProxyError> {
        let entry = |(at, proxy): (usize, &Proxy)| -> Result<(String, Entry), ProxyError> {
            let line = Line::Lent { links: links.clone(), at, down: None };
            let upstreams: Vec<String> = proxy.upstreams()?.iter().map(Endpoint::to_string).collect();
            let (listen, upstream) = (proxy.listen_addr().to_string(), upstreams.join(", "));
            Ok((proxy.name().replace('→', "-to-"), Entry { listen, upstream, line, toxics: Vec::new() }))
        };
        let entries = links.links().iter().enumerate().map(entry).collect::<Result<_, ProxyError>>()?;
        Ok(Collection { allowed: Vec::new(), seed: 0, entries: Mutex::new(entries) })
    }

    /// All proxies.
    pub fn views(&self) -> BTreeMap<String, View> {
        let entries = self.entries.lock().unwrap();
        entries.iter().map(|(name, entry)| (name.clone(), entry.view(name))).collect()
    }

    /// One proxy.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn view(&self, name: &str) -> Result<View, Refusal> {
        self.on(name, |entry| Ok(entry.view(name)))
    }

    /// Adds a proxy.
    ///
    /// # Errors
    /// Something is missing or not allowed, the name is taken, or the system refuses the address.
    pub fn add(&self, asked: AskedProxy) -> Result<View, Refusal> {
        let name = given(asked.name.as_ref(), "name")?;
        let (listen, upstream, enabled) = self.asked(&asked)?;
        let mut entries = self.entries.lock().unwrap();
        if entries.contains_key(&name) {
            return Err(Refusal::conflict("proxy already exists"));
        }
        let mut entry = Entry { listen, upstream, line: Line::Own(None), toxics: Vec::new() };
        if enabled {
            self.start(&name, &mut entry)?;
        }
        let view = entry.view(&name);
        entries.insert(name, entry);
        Ok(view)
    }

    /// Adds proxies. One that exists stays as it is, unless it listens or leads elsewhere: then it is made anew.
    ///
    /// # Errors
    /// Something is missing or not allowed in any of them, and then none is touched; or the system refuses an address.
    pub fn populate(&self, all: Vec<AskedProxy>) -> Result<Vec<View>, Refusal> {
        for (number, asked) in all.iter().enumerate() {
            let place = |key: &str| format!("{key} at proxy {}", number + 1);
            given(asked.name.as_ref(), &place("name"))?;
            given(asked.upstream.as_ref(), &place("upstream"))?;
            self.asked(asked)?;
        }
        let mut views = Vec::new();
        for asked in all {
            let name = asked.name.clone().unwrap_or_default();
            let (listen, upstream, _) = self.asked(&asked)?;
            match self.view(&name) {
                Ok(view) if view.listen == listen && view.upstream == upstream => views.push(view),
                Ok(_) => {
                    self.remove(&name)?;
                    views.push(self.add(asked)?);
                }
                Err(_) => views.push(self.add(asked)?),
            }
        }
        Ok(views)
    }

    /// Changes a proxy.
    ///
    /// # Errors
    /// There is none of that name, the change is not allowed, or the system refuses the address.
    pub fn change(&self, name: &str, asked: &AskedProxy) -> Result<View, Refusal> {
        self.on(name, |entry| {
            let keeps = |new: Option<&String>, old: &str| new.map_or(old, String::as_str).to_owned();
            let listen = keeps(asked.listen.as_ref(), &entry.listen);
            let upstream = keeps(asked.upstream.as_ref(), &entry.upstream);
            let enabled = asked.enabled.unwrap_or(entry.is_enabled());
            if listen != entry.listen || upstream != entry.upstream {
                entry.own()?;
                let asked = AskedProxy { listen: Some(listen), upstream: Some(upstream), ..AskedProxy::default() };
                let (listen, upstream, _) = self.asked(&asked)?;
                entry.stop()?;
                (entry.listen, entry.upstream) = (listen, upstream);
            }
            match (enabled, entry.is_enabled()) {
                (true, false) => self.start(name, entry)?,
                (false, true) => entry.stop()?,
                _ => {}
            }
            Ok(entry.view(name))
        })
    }

    /// Removes a proxy.
    ///
    /// # Errors
    /// There is none of that name, or it belongs to a running stack.
    pub fn remove(&self, name: &str) -> Result<(), Refusal> {
        self.on(name, |entry| entry.own())?;
        // Dropping the proxy shuts it down.
        self.entries.lock().unwrap().remove(name);
        Ok(())
    }

    /// Enables all proxies and removes all toxics.
    ///
    /// # Errors
    /// The system refuses an address.
    pub fn reset(&self) -> Result<(), Refusal> {
        for (name, entry) in self.entries.lock().unwrap().iter_mut() {
            for held in std::mem::take(&mut entry.toxics) {
                entry.disarm(held.armed)?;
            }
            if !entry.is_enabled() {
                self.start(name, entry)?;
            }
        }
        Ok(())
    }

    /// The toxics of a proxy.
    ///
    /// # Errors
    /// There is no such proxy.
    pub fn toxics(&self, proxy: &str) -> Result<Vec<Toxic>, Refusal> {
        self.on(proxy, |entry| Ok(entry.toxics()))
    }

    /// One toxic of a proxy.
    ///
    /// # Errors
    /// There is no such proxy or toxic.
    pub fn toxic(&self, proxy: &str, name: &str) -> Result<Toxic, Refusal> {
        self.on(proxy, |entry| entry.find(name).map(|at| entry.toxics[at].toxic.clone()))
    }

    /// Adds a toxic; when this returns, no connection moves another byte without it.
    ///
    /// # Errors
    /// There is no such proxy, the name is taken, or the toxic makes no sense.
    pub fn add_toxic(&self, proxy: &str, asked: Asked) -> Result<Toxic, Refusal> {
        self.on(proxy, |entry| {
            let toxic = Toxic::new(asked)?;
            if entry.find(&toxic.name).is_ok() {
                return Err(Refusal::conflict("toxic already exists"));
            }
            let armed = entry.arm(&toxic)?;
            entry.toxics.push(Held { toxic: toxic.clone(), armed });
            Ok(toxic)
        })
    }

    /// Changes a toxic: what it was is disarmed, and what it becomes is armed.
    ///
    /// # Errors
    /// There is no such proxy or toxic, or the change makes no sense; then it stays as it was.
    pub fn change_toxic(&self, proxy: &str, name: &str, asked: &Asked) -> Result<Toxic, Refusal> {
        self.on(proxy, |entry| {
            let at = entry.find(name)?;
            let toxic = entry.toxics[at].toxic.changed(asked)?;
            let armed = entry.arm(&toxic)?;
            let before = std::mem::replace(&mut entry.toxics[at], Held { toxic: toxic.clone(), armed });
            entry.disarm(before.armed)?;
            Ok(toxic)
        })
    }

    /// Removes a toxic.
    ///
    /// # Errors
    /// There is no such proxy or toxic.
    pub fn remove_toxic(&self, proxy: &str, name: &str) -> Result<(), Refusal> {
        self.on(proxy, |entry| {
            let at = entry.find(name)?;
            let held = entry.toxics.remove(at);
            entry.disarm(held.armed)
        })
    }

    /// What the proxies have read, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let name = "toxiproxy_proxy_received_bytes_total";
        let mut text = format!("# HELP {name} Bytes read by a proxy.\n# TYPE {name} counter\n");
        for (proxy, entry) in self.entries.lock().unwrap().iter() {
            let Some(stats) = entry.proxy().map(Proxy::stats) else { continue };
            let Entry { listen, upstream, .. } = entry;
            for (direction, bytes) in [("upstream", stats.bytes_up), ("downstream", stats.bytes_down)] {
                let _ = writeln!(
                    text,
                    "{name}{{direction=\"{direction}\",proxy={proxy:?},listener={listen:?},upstream={upstream:?}}} {bytes}"
                );
            }
        }
        text
    }

    fn on<T>(&self, name: &str, work: impl FnOnce(&mut Entry) -> Result<T, Refusal>) -> Result<T, Refusal> {
        work(self.entries.lock().unwrap().get_mut(name).ok_or_else(|| Refusal::absent("proxy not found"))?)
    }

    /// Where a proxy shall listen and lead to, and whether it shall do so at once.
    fn asked(&self, asked: &AskedProxy) -> Result<(String, String, bool), Refusal> {
        let upstream = given(asked.upstream.as_ref(), "upstream")?;
        upstream_of(&upstream, &self.allowed)?;
        let listen = listen_of(asked.listen.as_deref().unwrap_or(""), &self.allowed)?;
        Ok((listen.to_string(), upstream, asked.enabled.unwrap_or(true)))
    }

    fn start(&self, name: &str, entry: &mut Entry) -> Result<(), Refusal> {
        match &mut entry.line {
            Line::Own(line) => {
                let proxy = Proxy::start(ProxyConfig {
                    name: name.to_owned(),
                    listen: listen_of(&entry.listen, &self.allowed)?,
                    upstream: upstream_of(&entry.upstream, &self.allowed)?,
                    protocol: Protocol::Opaque,
                    seed: self.seed,
                })?;
                // The port that the kernel chose stays when it is disabled and enabled again.
                entry.listen = proxy.listen_addr().to_string();
                *line = Some(proxy);
                for at in 0..entry.toxics.len() {
                    entry.toxics[at].armed = entry.arm(&entry.toxics[at].toxic)?;
                }
                Ok(())
            }
            Line::Lent { down, .. } => {
                let down = down.take();
                entry.disarm(down)
            }
        }
    }
}

impl Entry {
    fn view(&self, name: &str) -> View {
        let (listen, upstream) = (self.listen.clone(), self.upstream.clone());
        View { name: name.to_owned(), listen, upstream, enabled: self.is_enabled(), toxics: self.toxics() }
    }

    /// Those upstream come first, as Toxiproxy lists them.
    fn toxics(&self) -> Vec<Toxic> {
        let mut toxics: Vec<Toxic> = self.toxics.iter().map(|held| held.toxic.clone()).collect();
        toxics.sort_by_key(|toxic| toxic.stream);
        toxics
    }

    fn is_enabled(&self) -> bool {
        match &self.line {
            Line::Own(proxy) => proxy.is_some(),
            Line::Lent { down, .. } => down.is_none(),
        }
    }

    fn proxy(&self) -> Option<&Proxy> {
        match &self.line {
            Line::Own(proxy) => proxy.as_ref(),
            Line::Lent { links, at, .. } => links.links().get(*at),
        }
    }

    /// # Errors
    /// It is not the clients' own.
    fn own(&self) -> Result<(), Refusal> {
        match self.line {
            Line::Own(_) => Ok(()),
            Line::Lent { .. } => Err(Refusal::forbidden(
                "the proxy belongs to a running stack: it can be disabled and have toxics, but not be moved or deleted",
            )),
        }
    }

    fn stop(&mut self) -> Result<(), Refusal> {
        let reset = toxic::Toxic::new(ToxicKind::Reset { after: std::time::Duration::ZERO });
        match &mut self.line {
            Line::Own(proxy) => {
                // Dropping it closes its listener and its connections.
                drop(proxy.take());
                self.toxics.iter_mut().for_each(|held| held.armed = None);
            }
            Line::Lent { links, at, down } => {
                *down = links.links().get(*at).map(|proxy| proxy.arm(reset)).transpose()?
            }
        }
        Ok(())
    }

    fn find(&self, toxic: &str) -> Result<usize, Refusal> {
        let at = self.toxics.iter().position(|held| held.toxic.name == toxic);
        at.ok_or_else(|| Refusal::absent("toxic not found"))
    }

    fn arm(&self, toxic: &Toxic) -> Result<Option<ToxicId>, Refusal> {
        match (self.proxy(), toxic.to_arm()) {
            (Some(proxy), Some(toxic)) => Ok(Some(proxy.arm(toxic)?)),
            _ => Ok(None),
        }
    }

    fn disarm(&self, armed: Option<ToxicId>) -> Result<(), Refusal> {
        if let (Some(proxy), Some(id)) = (self.proxy(), armed) {
            proxy.disarm(id)?;
        }
        Ok(())
    }
}

impl From<ProxyError> for Refusal {
    fn from(error: ProxyError) -> Refusal {
        match error {
            ProxyError::Toxic { reason, .. } => Refusal::bad(format!("bad request body: {reason}")),
            error => Refusal::internal(error.to_string()),
        }
    }
}

fn given(text: Option<&String>, what: &str) -> Result<String, Refusal> {
    let given = text.filter(|text| !text.is_empty());
    given.cloned().ok_or_else(|| Refusal::bad(format!("missing required field: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Links for Vec<Proxy> {
        fn links(&self) -> &[Proxy] {
            self
        }
    }

    #[test]
    fn a_lent_proxy_can_be_poisoned_and_disabled_but_not_moved_or_deleted() {
        let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ProxyConfig {
            name: "client→service".into(),
            listen,
            upstream: upstream.local_addr().unwrap().into(),
            protocol: Protocol::Http,
            seed: 1,
        };
        let links: Arc<dyn Links> = Arc::new(vec![Proxy::start(config).unwrap()]);
        let address = links.links()[0].listen_addr();
        let collection = Collection::lent(&links).unwrap();
        let name = "client-to-service";
        assert_eq!(collection.view(name).unwrap().listen, address.to_string());
        assert_eq!(collection.remove(name).unwrap_err().status, 403);
        let moved = AskedProxy { listen: Some("127.0.0.1:1".into()), ..AskedProxy::default() };
        assert_eq!(collection.change(name, &moved).unwrap_err().status, 403);
        let latency = serde_json::from_str(r#"{"type": "latency", "attributes": {"latency": 1}}"#).unwrap();
        collection.add_toxic(name, latency).unwrap();

        let is_reset = || {
            use std::io::Read as _;
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            stream.read(&mut [0]).unwrap_err().kind() == std::io::ErrorKind::ConnectionReset
        };
        let disabled = AskedProxy { enabled: Some(false), ..AskedProxy::default() };
        assert!(!collection.change(name, &disabled).unwrap().enabled);
        assert!(is_reset(), "a disabled proxy takes no connections");
        collection.reset().unwrap();
        let view = collection.view(name).unwrap();
        assert!(view.enabled && view.toxics.is_empty());
        assert!(!is_reset(), "it works again");
    }
}
