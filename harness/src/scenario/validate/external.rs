//! What `[target.external]` must hold: addresses of this machine or of networks that are named, one way to its books, commands
//! that name a program.

use std::net::SocketAddr;
use std::ops::Range;

use super::Mistakes;
use crate::scenario::external::{self, External, ShopLink, ShopProcess};
use crate::scenario::reading::is_token;
use crate::scenario::topology::{ENTRANCE, ends};
use crate::scenario::value;

const ADDRESSES: &str = "an address of this machine, such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/shop.sock\"; or name \
                         the private network that it is in: allow = [\"10.99.0.0/24\"]";

pub(super) fn external(external: &External, m: &mut Mistakes) {
    if let Some(payments) = external.payments.as_ref().filter(|_| external.audit.is_none()) {
        m.add(
            payments.span(),
            "target.external.payments: without `audit` there is no ledger to hold the books against",
            "add audit = \"ADDRESS\", or remove it",
        );
    }
    let all = [
        ("address", Some(&external.address)),
        ("audit", external.audit.as_ref()),
        ("payments", external.payments.as_ref()),
    ];
    for (key, address) in all.into_iter().filter_map(|(key, address)| Some((key, address?))) {
        if let Err(what) = value::endpoint(address.get_ref(), &external.allowed()) {
            m.add(address.span(), format!("target.external.{key}: {what}"), ADDRESSES);
        }
    }
    for network in &external.allow {
        if let Err(what) = value::network(network.get_ref()) {
            m.add(
                network.span(),
                format!("target.external.allow: {what}"),
                "private networks only, such as \"10.99.0.0/24\" or \"fd00:1::/64\": a rehearsal is no attack on others",
            );
        }
    }
    if let Some(host) = external.host.as_ref().filter(|host| !is_host(host.get_ref())) {
        m.add(
            host.span(),
            format!("target.external.host: `{}` is no name of a host", host.get_ref()),
            "what stands in the `host` header, such as \"shop.example\" or \"shop.example:8080\"",
        );
    }
    if let Some(metrics) = &external.metrics
        && let Err(what) = value::endpoint(metrics.get_ref().place().0, &external.allowed())
    {
        m.add(metrics.span(), format!("target.external.metrics.at: {what}"), ADDRESSES);
    }
    books(external, m);
    if let Some(tag) = external.tag.as_ref().filter(|tag| !tag.get_ref().is_empty() && !is_token(tag.get_ref())) {
        m.add(
            tag.span(),
            format!("target.external.tag: `{}` is no name of a header", tag.get_ref()),
            "the header that every request bears with the run's id, such as \"x-rehearsal\"; \"\" for none",
        );
    }
    commands(external, m);
    for (role, process) in &external.process {
        self::process(external, role, process.get_ref(), process.span(), m);
    }
    for (name, link) in &external.link {
        self::link(external, name, link.get_ref(), link.span(), m);
    }
}

/// A name or an address, perhaps with a port.
fn is_host(text: &str) -> bool {
    text.parse::<http::uri::Authority>().is_ok_and(|host| !host.host().is_empty() && !text.contains('@'))
}

/// One way to the books, and one that stays on this machine.
fn books(external: &External, m: &mut Mistakes) {
    let ways = [
        ("audit", external.audit.as_ref().map(|way| way.span())),
        ("sql", external.sql.as_ref().map(|way| way.span())),
        ("audit_command", external.audit_command.as_ref().map(|way| way.span())),
    ];
    let mut given = ways.into_iter().filter_map(|(key, at)| Some((key, at?)));
    if let (Some((first, _)), Some((second, at))) = (given.next(), given.next()) {
        m.add(
            at,
            format!("target.external has both `{first}` and `{second}`"),
            "the books are read in one way: `audit` is our HTTP contract, `sql` is for a Postgres, `audit_command` for all else",
        );
    }
    let Some(sql) = &external.sql else { return };
    let sql = sql.get_ref();
    if let Err(why) = external::postgres(sql.url.get_ref(), &external.allowed()) {
        m.add(
            sql.url.span(),
            format!("target.external.sql.url: {why}"),
            "\"postgres://user@127.0.0.1:5432/shop\", on this machine or in a network that target.external.allow names",
        );
    }
    for (key, query) in [("stock", &sql.stock), ("ledger", &sql.ledger)] {
        let text = query.get_ref().trim_start().to_ascii_lowercase();
        if !text.starts_with("select") && !text.starts_with("with") {
            m.add(
                query.span(),
                format!("target.external.sql.{key} is no query"),
                "one SELECT, or WITH ... SELECT; it is run in a transaction that can only read",
            );
        }
    }
}

fn commands(external: &External, m: &mut Mistakes) {
    let named = [("setup", &external.setup), ("audit_command", &external.audit_command)];
    for (key, command) in named.into_iter().filter_map(|(key, command)| Some((key, command.as_ref()?))) {
        self::command(&format!("target.external.{key}"), command.get_ref(), command.span(), m);
    }
    if let Some(cleanup) = &external.cleanup {
        let at = cleanup.span();
        let cleanup = cleanup.get_ref();
        self::command("target.external.cleanup.command", &cleanup.command, at.clone(), m);
        if let Some(verify) = &cleanup.verify {
            self::command("target.external.cleanup.verify", verify, at, m);
        }
    }
}

fn command(key: &str, command: &[String], at: Range<usize>, m: &mut Mistakes) {
    if command.first().is_none_or(|program| program.trim().is_empty()) {
        m.add(
            at,
            format!("{key} names no program"),
            "the program and its arguments, each by itself and without a shell: [\"python3\", \"shop.py\", \"setup\"]",
        );
    }
}

fn process(external: &External, role: &str, process: &ShopProcess, at: Range<usize>, m: &mut Mistakes) {
    let key = format!("target.external.process.{role}");
    if ["generator", "proxy", "harness"].contains(&role) || !super::names_a_folder(role) {
        m.add(
            at.clone(),
            format!("{key}: \"{role}\" cannot be the role of a process of the shop"),
            "a name of letters, digits and dashes, such as \"service\"; generator, proxy and harness are the rehearsal's own",
        );
    }
    let told = (process.start.is_some(), process.pid_file.is_some(), process.container.is_some());
    if let (true, _, true) | (_, true, true) | (false, false, false) = told {
        m.add(
            at.clone(),
            format!("{key} does not say in one way which process it is"),
            "start = [\"python3\", \"shop.py\"] for one that the rehearsal starts; pid_file = \"shop.pid\" (and `start`) for one in the \
             background; or container = \"shop\"",
        );
    } else if process.pid_file.is_some() && process.start.is_none() {
        m.add(
            at.clone(),
            format!("{key}: a process that is killed has to be started again, and there is no `start`"),
            "add the command that starts it in the background: start = [\"./shop\", \"--daemon\"]",
        );
    }
    let commands = [("start", &process.start), ("stop", &process.stop), ("kill", &process.kill)];
    for (name, command) in commands.into_iter().filter_map(|(name, command)| Some((name, command.as_ref()?))) {
        self::command(&format!("{key}.{name}"), command, at.clone(), m);
        if process.container.is_some() {
            m.add(
                at.clone(),
                format!("{key}: `{name}` of a container is the engine's business"),
                format!("remove `{name}`, or remove `container` and give the commands"),
            );
        }
    }
    if let Some(ready) = &process.ready
        && let Err(what) = value::endpoint(ready, &external.allowed())
    {
        m.add(at, format!("{key}.ready: {what}"), ADDRESSES);
    }
}

fn link(external: &External, name: &str, link: &ShopLink, at: Range<usize>, m: &mut Mistakes) {
    let key = format!("target.external.link.\"{name}\"");
    let (caller, callee) = ends(name);
    if caller == callee || caller.is_empty() || callee.is_empty() || name == ENTRANCE {
        m.add(
            at.clone(),
            format!("{key} is no name of a link behind the service"),
            format!("who calls whom, such as \"service→postgres\"; {ENTRANCE} is there anyway"),
        );
    }
    if !link.listen.parse::<SocketAddr>().is_ok_and(|listen| listen.ip().is_loopback() && listen.port() > 0) {
        m.add(
            at.clone(),
            format!("{key}.listen: `{}` is no address on loopback with a port", link.listen),
            "where the shop finds the proxy, such as \"127.0.0.1:6432\"",
        );
    }
    if let Err(what) = value::endpoint(&link.upstream, &external.allowed()) {
        m.add(at, format!("{key}.upstream: {what}"), ADDRESSES);
    }
}
