//! The harness on trial, in short: one seed each of the correct target and of bugs that three different faults bring out.

use crate::support::{Room, Sandbox};
use harness::mutants::Row;

#[test]
fn seeded_bugs_are_found_and_the_correct_target_is_not_accused() {
    let _room = Room::for_rehearsals(3);
    let sandbox = Sandbox::new();
    let catalogue = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/mutants/catalogue.toml");
    let mut command =
        sandbox.command(&["mutants", "--seeds", "1", "--jobs", "3", "--output", "json", "--catalogue", catalogue]);
    // By a crowd for the last unit, by a reply cut after the commit, and one that cannot be planted yet.
    let output = command.args(["--bug", "0", "--bug", "4", "--bug", "17", "--bug", "20"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let rows: Vec<Row> = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    let row = |bug: u32| rows.iter().find(|row| row.bug == bug).unwrap();
    assert_eq!(rows.iter().map(|row| row.bug).collect::<Vec<_>>(), [0, 4, 17, 20]);
    assert_eq!((row(0).caught, row(0).found.len()), (0, 0), "a false alarm: {rows:#?}");
    assert!(row(20).pending.as_ref().is_some_and(|why| why.contains("queue")) && row(20).seeds == 0);
    for (bug, expected) in [(4, "I1"), (17, "I4")] {
        let row = row(bug);
        assert_eq!((row.expected.as_str(), row.caught, row.seeds), (expected, 1, 1), "{row:#?}\n{said}");
        assert!(row.found.iter().any(|id| id == expected) && row.witness.contains("runs-"), "{row:#?}");
    }
    // A machine that is too busy makes the correct target's run unknown; anything else is as it should be.
    let wanted = if row(0).unknown > 0 { harness::exit::UNKNOWN } else { harness::exit::PASS };
    assert_eq!(output.status.code(), Some(wanted), "{said}");
    let table = std::fs::read_to_string(sandbox.path("reports/mutants/latest.md")).unwrap();
    assert!(table.contains("| 17  | retry-under-new-key") && table.contains("1 of 1"), "{table}");
    assert_eq!(sandbox.left_behind(), [""; 0]);
}
