//! The doctor as others rely on it: what it reports, how it renders, and what it answers on this machine.

use harness::doctor::{
    EXIT_NOT_PROVISIONED, Finding, MINIMUM_POSTGRES_MAJOR, State, examine, find_postgres, render_text,
    unprivileged_user,
};

fn present(name: &'static str) -> Finding {
    Finding { name, needed_for: "everything", required: true, state: State::Present { detail: "1.0".into() } }
}

fn missing(name: &'static str, required: bool) -> Finding {
    let state = State::Missing { why: "it is nowhere".into(), remedy: format!("get-it {}", name.len()) };
    Finding { name, needed_for: "everything", required, state }
}

#[test]
fn a_missing_requirement_blocks_and_ends_with_its_command_alone_on_a_line() {
    let text = render_text(&[present("server"), missing("compiler", true), missing("browser", false)]);
    insta::assert_snapshot!(text, @r"
    present   server    1.0
    MISSING   compiler  it is nowhere
                        needed for: everything
                        get it by:  get-it 8
    absent    browser   it is nowhere
                        needed for: everything
                        get it by:  get-it 7

    A rehearsal cannot run here yet. To mend it:
        get-it 8
    (exit code 20)
    ");
    assert_eq!(EXIT_NOT_PROVISIONED, 20);
}

#[test]
fn what_is_optional_never_blocks() {
    let findings = [present("server"), missing("browser", false)];
    assert!(!findings.iter().any(Finding::blocks));
    assert!(render_text(&findings).ends_with("Everything that a rehearsal requires is present.\n"));
}

#[test]
fn json_keeps_the_state_beside_the_name() {
    let json = serde_json::to_value([present("server"), missing("compiler", true)]).unwrap();
    assert_eq!(json[0]["state"], "present");
    assert_eq!(json[0]["detail"], "1.0");
    assert_eq!(json[1]["state"], "missing");
    assert_eq!(json[1]["remedy"], "get-it 8");
    assert_eq!(json[1]["required"], true);
}

#[test]
fn every_finding_of_this_machine_says_what_it_is_for_and_how_to_mend_it() {
    let findings = examine();
    for finding in &findings {
        assert!(!finding.name.is_empty() && !finding.needed_for.is_empty());
        if let State::Missing { why, remedy } = &finding.state {
            assert!(!why.is_empty() && !remedy.is_empty(), "{} leaves the reader alone", finding.name);
        }
    }
    let names: std::collections::BTreeSet<_> = findings.iter().map(|finding| finding.name).collect();
    assert_eq!(names.len(), findings.len(), "two findings share a name");
    assert!(names.contains("Postgres server"));
}

#[test]
fn the_set_up_has_brought_a_postgres_that_the_dropped_user_can_run() {
    let found = find_postgres().expect("the set-up installs it before any test");
    assert!(found.program("initdb").is_file() && found.program("postgres").is_file());
    assert!(found.version.major >= MINIMUM_POSTGRES_MAJOR);
    let is_root = nix::unistd::geteuid().is_root();
    assert_eq!(unprivileged_user().unwrap().is_some(), is_root);
}
