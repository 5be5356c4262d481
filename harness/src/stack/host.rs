//! A host of its own for a role: a network namespace, joined to the machine's by one virtual cable (a veth pair).
//!
//! What goes over the cable can be lost there as on a real network: silently, without the reset that a proxy would send.
//! Namespace, cable and firewall rules bear the run's name, so the guard takes them away: see [`super::leftovers`].

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::leftovers::{NAMESPACES, Run, quiet};
use super::process::drop_to;
use super::{StackError, postgres, redis};
use crate::doctor;
use crate::fault::toxic::Direction;
use crate::scenario::topology::{ACCESS_PROCESSES, POSTGRES, REDIS, REDIS_REPLICA, STANDBY};

/// The network that addresses are taken from. It is set aside for tests of network devices, so nobody routes it (RFC 2544).
const RANGE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Cables that have room in it: four addresses each.
const CABLES: u32 = 1 << 15;
/// Where roles listen that speak HTTP: the first of as many as may play one role together.
const HTTP: u16 = 8080;
/// Addresses that are tried before it is given up; one that is taken is that of another run.
const TRIES: u32 = 50;

/// By which ports a host's firewall knows the packets that it is to lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The role is called there, by whomever: the first and the last of them.
    Own(u16, u16),
    /// The role calls somebody else there.
    Theirs(u16),
}

/// A host that a role has to itself.
#[derive(Debug)]
pub struct Host {
    role: &'static str,
    namespace: String,
    /// The address of the role.
    pub inside: Ipv4Addr,
    /// The address by which it sees the rest of the stack.
    pub outside: Ipv4Addr,
}

impl Host {
    /// Makes a host for each of these roles of the run.
    ///
    /// # Errors
    /// This machine does not let us, with the remedy.
    pub fn all(run: &Run, roles: &[&'static str]) -> Result<Vec<Host>, StackError> {
        if !roles.is_empty() {
            doctor::network_namespaces()?;
        }
        roles.iter().map(|role| Host::create(run, role)).collect()
    }

    fn create(run: &Run, role: &'static str) -> Result<Host, StackError> {
        let namespace = run.thing(role);
        ip(&["netns", "add", &namespace])?;
        let made = Self::joined(role, &namespace);
        if made.is_err() {
            let _ = ip(&["netns", "delete", &namespace]);
        }
        made
    }

    fn joined(role: &'static str, namespace: &str) -> Result<Host, StackError> {
        let number = crc32fast::hash(namespace.as_bytes());
        // The name of a link has at most 15 characters; its alias says whose it is.
        let cable = format!("sk{number:08x}");
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(&["link", "set", &cable, "alias", namespace])?;
        let taken = addresses()?;
        let free = (0..TRIES).map(|n| RANGE + (number.wrapping_add(n) % CABLES) * 4).find(|network| {
            let mut both = [1, 2].map(|host| format!(" {}/30 ", Ipv4Addr::from(network + host))).into_iter();
            !both.any(|address| taken.contains(&address))
        });
        let network = free.ok_or_else(|| StackError::Other("no address is free for a host in 198.18.0.0/15".into()))?;
        let (outside, inside) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        ip(&["address", "add", &format!("{outside}/30"), "dev", &cable])?;
        ip(&["link", "set", &cable, "up"])?;
        ip(&["-n", namespace, "address", "add", &format!("{inside}/30"), "dev", "eth0"])?;
        for link in ["lo", "eth0"] {
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        Ok(Host { role, namespace: namespace.to_owned(), inside, outside })
    }

    /// The role that it is for.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// The ports on which it is called, by its role.
    pub fn ports(&self) -> Ports {
        match self.role {
            POSTGRES | STANDBY => Ports::Own(postgres::PORT, postgres::PORT),
            REDIS | REDIS_REPLICA => Ports::Own(redis::PORT, redis::PORT),
            _ => Ports::Own(HTTP, HTTP + ACCESS_PROCESSES.len() as u16 - 1),
        }
    }

    /// Where the n-th process of the role is called that speaks HTTP, counted from 0.
    pub fn http(&self, number: usize) -> SocketAddr {
        (self.inside, HTTP + number as u16).into()
    }

    /// The file by which a process enters it.
    pub fn namespace(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.namespace)
    }

    /// Begins to lose packets of connections with one of these ports at one end. `table` names the rules.
    ///
    /// # Errors
    /// The firewall refuses them.
    pub fn lose(&self, table: &str, ports: Ports, direction: Direction, share: f64) -> Result<(), StackError> {
        self.nft(&rules(table, ports, direction, share)).map(drop)
    }

    /// Loses no more packets by these rules; says how many they have lost. None if there are no such rules.
    ///
    /// # Errors
    /// The firewall does not obey.
    pub fn lose_no_more(&self, table: &str) -> Result<Option<u64>, StackError> {
        if !self.nft("list tables\n")?.lines().any(|line| line.trim() == format!("table inet {table}")) {
            return Ok(None);
        }
        let listed = self.nft(&format!("list table inet {table}\n"))?;
        self.nft(&format!("delete table inet {table}\n"))?;
        Ok(Some(packets(&listed)))
    }

    /// Lets the firewall of the host do something; returns what it says.
    fn nft(&self, script: &str) -> Result<String, StackError> {
        let fail = |what: String| StackError::Other(format!("the firewall of {} refuses: {what}", self.namespace));
        let mut command = program("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program("nft").get_program()).args(["-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        drop_to(&mut command, None);
        let mut child = command.spawn().map_err(|e| fail(e.to_string()))?;
        let mut to = child.stdin.take();
        let written = to.as_mut().map_or(Ok(()), |to| to.write_all(script.as_bytes()));
        drop(to);
        let output = child.wait_with_output().map_err(|e| fail(e.to_string()))?;
        if !output.status.success() {
            return Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        written.map_err(|e| fail(e.to_string()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The rules that lose packets: those that go to the ports (up), those that come from them (down), or both.
fn rules(table: &str, ports: Ports, direction: Direction, share: f64) -> String {
    let which = if share < 1.0 {
        format!("numgen random mod 1000 < {} ", ((share * 1000.0).round() as u32).clamp(1, 999))
    } else {
        String::new()
    };
    let mut script = format!("add table inet {table}\n");
    let (ports, to_them, from_them) = match ports {
        Ports::Own(first, last) if first < last => (format!("{first}-{last}"), "input", "output"),
        Ports::Own(port, _) => (port.to_string(), "input", "output"),
        Ports::Theirs(port) => (port.to_string(), "output", "input"),
    };
    for (hook, end, wanted) in [(to_them, "dport", Direction::Up), (from_them, "sport", Direction::Down)] {
        if direction == wanted || direction == Direction::Both {
            script.push_str(&format!("add chain inet {table} {hook} {{ type filter hook {hook} priority 0; }}\n"));
            script.push_str(&format!("add rule inet {table} {hook} tcp {end} {ports} {which}counter drop\n"));
        }
    }
    script
}

/// What the counters of some rules come to: `counter packets 17 bytes 900 drop`.
fn packets(listed: &str) -> u64 {
    let words: Vec<&str> = listed.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == "packets").filter_map(|pair| pair[1].parse::<u64>().ok()).sum()
}

fn program(name: &str) -> Command {
    Command::new(doctor::on_path(name).unwrap_or_else(|| name.into()))
}

fn ip(arguments: &[&str]) -> Result<(), StackError> {
    let what = |said| StackError::Other(format!("`ip {}` failed: {said}", arguments.join(" ")));
    quiet(program("ip").args(arguments)).map_err(what)
}

/// The addresses of this machine, as a text.
fn addresses() -> Result<String, StackError> {
    let output = program("ip").args(["-4", "-o", "address", "show"]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| StackError::io("cannot ask `ip` for addresses", e))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn rules_name_the_ways_and_the_share() {
        let both = rules("t", Ports::Own(5432, 5432), Direction::Both, 1.0);
        assert!(both.contains("inet t input tcp dport 5432 counter drop"), "{both}");
        assert!(both.contains("inet t output tcp sport 5432 counter drop"), "{both}");
        let called = rules("t", Ports::Theirs(40_000), Direction::Both, 1.0);
        assert!(called.contains("inet t output tcp dport 40000 counter drop"), "{called}");
        assert!(called.contains("inet t input tcp sport 40000 counter drop"), "{called}");
        let layer = rules("t", Ports::Own(8080, 8087), Direction::Up, 1.0);
        assert!(layer.contains("inet t input tcp dport 8080-8087 counter drop"), "{layer}");
        let some = rules("t", Ports::Own(5432, 5432), Direction::Down, 0.25);
        assert!(some.contains("tcp sport 5432 numgen random mod 1000 < 250 counter drop"), "{some}");
        assert!(!some.contains("input"), "{some}");
        assert_eq!(packets("x counter packets 17 bytes 900 drop\n y counter packets 3 bytes 1 drop"), 20);
        assert_eq!(packets("table inet t {\n}"), 0);
    }

    #[test]
    fn packets_to_a_host_are_lost_and_come_through_again_and_nothing_is_left() {
        if let Err(why) = doctor::network_namespaces() {
            crate::skipped::skipped(&why.to_string());
            return;
        }
        let run = Run::of_id(&format!("host{}", std::process::id()));
        let host = Host::all(&run, &["postgres"]).unwrap().remove(0);
        // A thread enters alone, so the rest of the tests stay where they are.
        let (namespace, inside) = (host.namespace(), host.inside);
        let listener = std::thread::spawn(move || {
            let file = std::fs::File::open(namespace).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind((inside, 0)).unwrap()
        });
        let listener = listener.join().unwrap();
        let address = listener.local_addr().unwrap();
        let reached = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
        reached().unwrap();
        for direction in [Direction::Up, Direction::Down] {
            host.lose("seckill_t", Ports::Own(address.port(), address.port()), direction, 1.0).unwrap();
            assert_eq!(
                reached().unwrap_err().kind(),
                std::io::ErrorKind::TimedOut,
                "{direction:?}: silent, not refused"
            );
            assert!(host.lose_no_more("seckill_t").unwrap().unwrap() >= 1);
            assert_eq!(host.lose_no_more("seckill_t").unwrap(), None);
            reached().unwrap();
        }
        assert_eq!(super::super::leftovers::find_all(&run).len(), 1);
        assert!(super::super::leftovers::remove_all(&run, Duration::from_secs(5)).is_empty());
        assert!(super::super::leftovers::find_all(&run).is_empty());
    }
}
