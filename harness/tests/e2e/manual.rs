//! The manual pages and the completions, against the commands that the program itself names.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Sandbox, skipped_in_part};

/// The commands that `--help` shows.
fn commands(sandbox: &Sandbox) -> BTreeSet<String> {
    let help = sandbox.seckill(&["--help"]).stdout;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A line that goes on is indented further.
    let starts = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = starts.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert!(names.contains("run") && names.contains("man") && names.len() > 15, "{names:?}");
    names
}

#[test]
fn each_command_has_a_manual_page() {
    let sandbox = Sandbox::new();
    sandbox.seckill(&["man", "--out", "new/man1"]).assert_code(0).assert_says(&["manual pages in new/man1"]);
    let pages = crate::support::files(&sandbox.path("new/man1"));
    for command in commands(&sandbox).iter().filter(|command| *command != "help") {
        assert!(pages.contains(&format!("seckill-{command}.1")), "no page for {command} among {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("__")), "what is not for people has a page: {pages:?}");
    let run = fs::read_to_string(sandbox.path("new/man1/seckill-run.1")).unwrap();
    assert!(run.contains(".TH") && run.contains("\\-\\-start\\-at") && run.contains("dry"), "{run}");
    let printed = sandbox.seckill(&["man"]);
    let kept = fs::read_to_string(sandbox.path("new/man1/seckill.1")).unwrap();
    assert!(printed.assert_code(0).stdout.contains("Exit codes: 0 pass") && kept.contains("Exit codes: 0 pass"));

    sandbox.write("taken", "");
    sandbox.seckill(&["man", "--out", "taken"]).assert_code(2).assert_says(&["taken", "--out names a folder"]);
}

#[test]
fn shells_understand_the_completions_and_know_each_command() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.seckill(&["completions", shell]).assert_code(0).stdout.clone();
        for command in commands(&sandbox) {
            assert!(script.contains(&command), "{shell} does not know {command}");
        }
        let Ok(mut asked) = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
            skipped_in_part(&format!("there is no {shell} here to read its completions"));
            continue;
        };
        asked.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let answer = asked.wait_with_output().unwrap();
        assert!(answer.status.success(), "{shell}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    sandbox.seckill(&["completions", "cmd"]).assert_code(2).assert_says(&["bash", "zsh", "fish"]);
}
