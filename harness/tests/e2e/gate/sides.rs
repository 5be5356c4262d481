//! What the two sides of a gate may be, each for real: a revision that is built, a program out of an image, two shops that are running.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::gate::Decision;

use super::{SMALL, report};
use crate::support::{Room, Sandbox, answers, skipped};

/// The reference service's program.
fn service() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_seckill")).with_file_name("seckill-target")
}

#[track_caller]
fn run(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).current_dir(sandbox.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

/// A repository with one revision, in which a build only has to fetch a program that is there already.
fn with_repository() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.write("small.toml", SMALL);
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=T", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"];
        run(&sandbox, "git", &[&who, arguments].concat())
    };
    git(&["init", "--quiet", "."]);
    git(&["add", "small.toml"]);
    git(&["commit", "--quiet", "-m", "a revision"]);
    let short = git(&["rev-parse", "HEAD"])[..12].to_owned();
    (sandbox, short)
}

/// An image with nothing in it but the service where `make image` puts it; it is removed when this is dropped.
struct Image(String);

impl Image {
    fn make(sandbox: &Sandbox) -> Option<Image> {
        if !answers("docker", "version") {
            skipped("there is no Docker engine to take an image from: apt-get install docker.io");
            return None;
        }
        let at = sandbox.path("image/usr/local/bin");
        fs::create_dir_all(&at).unwrap();
        fs::copy(service(), at.join("seckill-target")).unwrap();
        run(sandbox, "tar", &["-C", "image", "-cf", "image.tar", "."]);
        let name = format!("seckill-test-side-{}", std::process::id());
        let entry = r#"ENTRYPOINT ["/usr/local/bin/seckill-target"]"#;
        run(sandbox, "docker", &["import", "--change", entry, "image.tar", &name]);
        Some(Image(name))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[test]
fn a_revision_is_built_and_a_program_is_taken_out_of_an_image() {
    let (sandbox, short) = with_repository();
    let fetch = format!("mkdir -p out && cp {} out/shop", service().display());
    let built = ["--build", &fetch, "--program", "out/shop"];
    let image = Image::make(&sandbox);
    let new = image.as_ref().map_or_else(|| "git:HEAD".to_owned(), |image| format!("image:{}", image.0));
    let _room = Room::for_rehearsals(2);
    let sides = ["--old", "git:HEAD", "--new", &new, "--out", "gate", "--output", "json", "--quiet"];
    let ended = sandbox.seckill(&[&["gate", "small.toml"][..], &sides, &built].concat());
    let found = report(&ended.stdout, &ended.stderr);
    assert_eq!(found.old.name, format!("HEAD ({short})"));
    if let Some(image) = &image {
        assert_eq!(found.new.name, format!("image {}", image.0));
    }
    assert_eq!(found.rounds.len(), 2, "{}", found.reason);
    // They are the same program: whatever noise makes of the times, there is no call more and no hop more.
    let counted = found.findings.iter().filter(|finding| finding.metric == "calls").count();
    assert!(counted == 0 && found.decision != Decision::Violated, "{:#?}", found.findings);
    let of_this_revision = sandbox.path(&format!("target/gate/{short}/out/shop"));
    assert!(of_this_revision.is_file(), "the build is kept for the next gate");
    sandbox.assert_nothing_left();
}

#[test]
fn a_revision_that_cannot_be_built_and_an_image_without_the_program_are_told() {
    let (sandbox, short) = with_repository();
    let gate = |arguments: &[&str]| sandbox.seckill(&[&["gate", "small.toml"][..], arguments].concat());
    let broken = gate(&["--old", "git:HEAD", "--build", "echo it does not compile >&2; exit 3"]);
    broken.assert_code(20).assert_says(&[&short, "exit status: 3", "it does not compile", "--build names another"]);
    let elsewhere = gate(&["--old", "git:HEAD", "--build", "true", "--program", "out/none"]);
    elsewhere.assert_code(20).assert_says(&["it made no", "out/none", "--program names the file"]);
    let unknown = gate(&["--old", "git:v99"]);
    unknown.assert_code(20).assert_says(&["revision v99", "fetch-depth"]);
    let no_image = gate(&["--old", "image:seckill-nobody-has-this"]);
    no_image.assert_code(20).assert_says(&["seckill-nobody-has-this", "make image"]);
    sandbox.assert_nothing_left();
}

#[test]
fn two_running_shops_are_compared_and_the_one_that_oversells_is_convicted() {
    if !answers("python3", "--version") {
        return skipped("the shops are in Python, and there is no python3: apt-get install python3");
    }
    let sandbox = Sandbox::new();
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/adapted-shop");
    let free: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<String> = free.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
    drop(free);
    // The scenario says what is common to both; the address, the books and the process are each side's own.
    let sale = fs::read_to_string(home.join("sale.toml")).unwrap();
    let cut = |text: &str, from: &str, to: &str| {
        let (start, end) = (text.find(from).unwrap(), text.find(to).unwrap());
        format!("{}{}", &text[..start], &text[end..])
    };
    let common = cut(&cut(&sale, "[target.external]", "[[item]]"), "[[fault]]", "[steady_state]");
    let here = "[target.external]\naddress = \"127.0.0.1:1\"\n[gate]\nrounds = 2\nturn = \"200ms\"\n";
    sandbox.write("sale.toml", &common.replace("[[item]]", &format!("{here}[[item]]")));
    let mut arguments = vec!["gate".to_owned(), "sale.toml".into()];
    for (number, side) in ["old", "new"].into_iter().enumerate() {
        let (address, ads) = (&ports[2 * number], &ports[2 * number + 1]);
        let shop = fs::read_to_string(home.join("shop.py")).unwrap();
        let shop = shop.replace("127.0.0.1:8099", address).replace("127.0.0.1:8098", ads);
        fs::create_dir_all(sandbox.path(side)).unwrap();
        sandbox.write(&format!("{side}/shop.py"), &shop);
        let bug = if side == "new" { r#", "--bug", "oversell""# } else { "" };
        let command = |word: &str, more: &str| format!(r#"["python3", "{side}/shop.py", "{word}"{more}]"#);
        arguments.extend([format!("--{side}"), format!("http://{address}")]);
        for (key, value) in [
            ("setup", command("setup", "")),
            ("audit_command", command("audit", "")),
            ("process.service.start", command("serve", bug)),
        ] {
            arguments.extend([format!("--{side}-set"), format!("target.external.{key}={value}")]);
        }
    }
    arguments
        .extend(["--set", "load.send_lag_limit=3s", "--out", "gate", "--output", "json", "--quiet"].map(Into::into));
    let _room = Room::for_rehearsals(2);
    let ended = sandbox.seckill(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let found = report(&ended.stdout, &ended.stderr);
    assert!(found.old.name.starts_with(&format!("http://{}", ports[0])), "{}", found.old.name);
    assert_eq!((found.decision, ended.code, found.rounds.len()), (Decision::Violated, Some(11), 1), "{}", found.reason);
    assert!(found.reason.contains("the new side violates an invariant"), "{}", found.reason);
    // Their books are the shops' own, and stay.
    let left: Vec<String> = sandbox.left_behind().into_iter().filter(|left| !left.contains("adapted-shop-")).collect();
    assert_eq!(left, [""; 0]);
}
