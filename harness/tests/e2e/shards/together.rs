//! Several real generators on one real stack: as processes beside each other, and each in a network
//! namespace or a container of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Room, Sandbox, Started, skipped, wait_for};

/// From now until the start: enough for a busy machine to start some processes.
const AHEAD_S: u64 = 15;

/// A stack that is up, and what makes it the target of a scenario.
struct Shop {
    started: Started,
    target: String,
}

impl Shop {
    fn open(sandbox: &Sandbox, listen: &str) -> Shop {
        sandbox.write("shop.toml", include_str!("../support/short.toml"));
        sandbox.write("scenario.toml", &super::scenario());
        let started = sandbox.start(&["stack", "up", "shop.toml", "--listen", listen]);
        let said = || fs::read_to_string(sandbox.path("stderr")).unwrap();
        wait_for("the target for others", Duration::from_secs(120), || said().contains("--set '"));
        let target = said().split("--set '").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        Shop { started, target }
    }

    fn close(self) {
        kill(Pid::from_raw(self.started.id()), Signal::SIGINT).unwrap();
        assert_eq!(self.started.code(), Some(0));
    }
}

fn start_at() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    format!("@{}", now + AHEAD_S)
}

/// Where a generator runs.
enum Place<'a> {
    /// Beside the target.
    Here,
    /// In a network namespace.
    Namespace(&'a str),
    /// In a container of an image.
    Container(&'a str),
}

impl Place<'_> {
    /// `seckill` with these arguments, working in the sandbox.
    fn command(&self, sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let plain = sandbox.command(arguments);
        let root = sandbox.path("");
        let mut command = match self {
            Place::Here => return plain,
            Place::Namespace(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(plain.get_program());
                command
            }
            Place::Container(image) => {
                let (folder, tmp) = (root.display(), sandbox.tmp());
                let mut command = Command::new("docker");
                // The sandbox holds the socket of the audit listener, too, which belongs to whoever runs the test.
                command.args(["run", "--rm", "--user", "0", "--volume", &format!("{folder}:{folder}")]);
                command.args(["--workdir", &folder.to_string(), "--env", &format!("TMPDIR={}", tmp.display()), image]);
                command
            }
        };
        command.args(arguments).current_dir(root).env("TMPDIR", sandbox.tmp()).stdin(Stdio::null());
        command
    }
}

/// A shard under way; killed if the test ends before it.
struct Shard(Child);

impl Shard {
    fn start(sandbox: &Sandbox, place: &Place<'_>, shop: &Shop, slice: &str, start: &str) -> Shard {
        let out = format!("shard-{}", slice.split('/').next().unwrap());
        let arguments =
            ["run", "scenario.toml", "--set", &shop.target, "--shard", slice, "--start-at", start, "--out", &out];
        let mut command = place.command(sandbox, &arguments);
        let file = |kind: &str| fs::File::create(sandbox.path(&format!("{out}.{kind}"))).unwrap();
        Shard(command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap())
    }

    #[track_caller]
    fn completes(mut self, sandbox: &Sandbox, index: u32) {
        let code = self.0.wait().unwrap().code();
        let said = |kind: &str| fs::read_to_string(sandbox.path(&format!("shard-{index}.{kind}"))).unwrap();
        assert_eq!(code, Some(0), "shard {index}: {}{}", said("stdout"), said("stderr"));
        assert!(said("stdout").contains("completed") && said("stdout").contains("seckill merge"), "{}", said("stdout"));
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_history(run: &Path) -> bool {
    let parts = fs::read_dir(run.join("history"));
    parts.is_ok_and(|parts| parts.flatten().any(|part| part.path().extension().is_some_and(|e| e == "parquet")))
}

#[test]
fn shards_beside_each_other_pass_as_one_run() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, "127.0.0.1");
    let start = start_at();
    let shards: Vec<Shard> =
        (1..=3).map(|index| Shard::start(&sandbox, &Place::Here, &shop, &format!("{index}/3"), &start)).collect();
    for (shard, index) in shards.into_iter().zip(1..) {
        shard.completes(&sandbox, index);
    }
    shop.close();
    let merged = sandbox.seckill(&["merge", "shard-2", "shard-1", "shard-3", "--out", "run", "--output", "json"]);
    merged.assert_code(0);
    let summary: Value = serde_json::from_str(&merged.stdout).unwrap();
    let load = &summary["load"];
    assert_eq!(load["planned"], load["sent"], "{load:#}");
    assert_eq!(load["buyers"], 300, "a third of the buyers for each");
    // It is a run like any other: it can be judged and rendered again.
    let again = sandbox.seckill(&["check", "run", "--output", "json"]);
    again.assert_code(0);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap(), summary);
    for name in ["report.html", "latency.hlog", "audit.json", "ledger.jsonl", "scenario.toml"] {
        assert!(fs::metadata(sandbox.path("run").join(name)).is_ok_and(|file| file.len() > 0), "no {name}");
    }
    one_of_two_is_not_enough(&sandbox);
}

/// The same shards without one of them: the run is not silently lower, but unknown.
fn one_of_two_is_not_enough(sandbox: &Sandbox) {
    let merged = sandbox.seckill(&["merge", "shard-1", "shard-3", "--out", "gap"]);
    merged.assert_code(12);
    assert!(merged.stdout.contains("shard 2 of 3 is missing"), "{}", merged.stdout);
}

#[test]
fn a_shard_that_is_killed_makes_the_run_unknown_and_the_gap_is_named() {
    let _room = Room::for_rehearsals(2);
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, "127.0.0.1");
    let start = start_at();
    let leader = Shard::start(&sandbox, &Place::Here, &shop, "1/2", &start);
    let mut victim = Shard::start(&sandbox, &Place::Here, &shop, "2/2", &start);
    let run = sandbox.path("shard-2");
    wait_for("the first part of the second shard", Duration::from_secs(120), || {
        assert!(victim.0.try_wait().unwrap().is_none(), "it ended before it recorded anything");
        has_history(&run)
    });
    victim.0.kill().unwrap();
    drop(victim);
    leader.completes(&sandbox, 1);
    shop.close();
    let merged = sandbox.seckill(&["merge", "shard-1", "shard-2", "--out", "run", "--output", "json"]);
    merged.assert_code(12);
    let summary: Value = serde_json::from_str(&merged.stdout).unwrap();
    let distrust = summary["distrust"].to_string();
    assert!(distrust.contains("shard 2 of 2 is incomplete (killed), and "), "{distrust}");
    assert_eq!(summary["ended"], "shard 2 killed");
    let failed: Vec<&Value> =
        summary["invariants"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == "fail").collect();
    assert!(failed.is_empty(), "a correct service is accused because of the gap: {failed:#?}");
}

/// Network namespaces, each joined to this one by a pair of interfaces. Gone when dropped.
struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// As many as wanted, or why there are none.
    fn new(count: u32) -> Result<Namespaces, String> {
        let id = std::process::id();
        let mut all = Namespaces { names: Vec::new() };
        for n in 0..count {
            let name = format!("seckill-{id}-{n}");
            let (outer, inner) = (format!("sk{id}o{n}"), format!("sk{id}i{n}"));
            ip(&["netns", "add", &name])?;
            all.names.push(name.clone());
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name])?;
            ip(&["addr", "add", &format!("{}/24", Namespaces::outside(n)), "dev", &outer])?;
            ip(&["link", "set", &outer, "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("10.213.{n}.2/24"), "dev", &inner])?;
            ip(&["-n", &name, "link", "set", &inner, "up"])?;
            ip(&["-n", &name, "route", "add", "default", "via", &Namespaces::outside(n)])?;
        }
        Ok(all)
    }

    /// This machine's address on the way to a namespace.
    fn outside(n: u32) -> String {
        format!("10.213.{n}.1")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // The interfaces go with them.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}

/// Two shards, each in a place of its own, on a target at an address that both reach; merged, they pass.
fn pass_from(places: [Place<'_>; 2], listen: &str) {
    let sandbox = Sandbox::new();
    let shop = Shop::open(&sandbox, listen);
    assert!(
        shop.target.contains(&format!("{listen}:")) && shop.target.contains(&format!("{listen}/32")),
        "{}",
        shop.target
    );
    let start = start_at();
    let shards = [("1/2", &places[0]), ("2/2", &places[1])]
        .map(|(slice, place)| Shard::start(&sandbox, place, &shop, slice, &start));
    for (shard, index) in shards.into_iter().zip(1..) {
        shard.completes(&sandbox, index);
    }
    shop.close();
    sandbox.seckill(&["merge", "shard-1", "shard-2", "--out", "run"]).assert_code(0);
}

#[test]
fn shards_in_namespaces_of_their_own_reach_the_target_over_the_network() {
    let _room = Room::for_rehearsals(2);
    match Namespaces::new(2) {
        Ok(all) => {
            pass_from([Place::Namespace(&all.names[0]), Place::Namespace(&all.names[1])], &Namespaces::outside(0));
        }
        Err(why) => skipped(&format!("no network namespaces here ({why})")),
    }
}

/// An image of what was built, under a name of its own; removed when dropped.
struct Image(String);

impl Image {
    /// The image, or why there is none.
    fn build() -> Result<Image, String> {
        let name = format!("seckill-shards-{}", std::process::id());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = Path::new(env!("CARGO_BIN_EXE_seckill")).parent().and_then(Path::parent).unwrap();
        let mut command = Command::new("sh");
        command.arg("ci/image/build.sh").arg(&name).current_dir(root);
        command.env("CARGO_TARGET_DIR", target).env("FROM_HERE", "yes");
        let output = command.output().map_err(|e| format!("sh: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(Image(name)),
            Some(77) => Err(said),
            code => panic!("ci/image/build.sh ended with {code:?}: {said}"),
        }
    }

    /// This machine's address on the containers' network, or why it has none.
    fn outside() -> Result<String, String> {
        let show = Command::new("ip").args(["-4", "-oneline", "address", "show", "docker0"]).output();
        let shown = String::from_utf8_lossy(&show.map_err(|e| format!("ip: {e}"))?.stdout).into_owned();
        let address = shown.split("inet ").nth(1).and_then(|rest| rest.split('/').next());
        address.map(str::to_owned).ok_or_else(|| "docker has no bridge docker0 here".to_owned())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

#[test]
fn shards_in_containers_reach_the_target_over_the_bridge() {
    let _room = Room::for_rehearsals(2);
    match Image::outside().and_then(|address| Ok((address, Image::build()?))) {
        Ok((address, image)) => pass_from([Place::Container(&image.0), Place::Container(&image.0)], &address),
        Err(why) => skipped(&why),
    }
}
