//! The schema that editors complete scenario files by is the one that the harness reads them by.

#[test]
fn the_committed_schema_is_the_one_in_force() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/scenario.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let current = format!("{:#}\n", harness::scenario::json_schema());
    assert!(committed == current, "write it anew: target/release/seckill schema scenario > schemas/scenario.json");
}

#[test]
fn the_scenarios_that_come_with_the_project_are_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the scenarios folder").flatten() {
        if entry.path().extension().is_some_and(|e| e == "toml") {
            seen += 1;
            if let Err(error) = harness::scenario::load(&entry.path(), &[], None) {
                panic!("{error}");
            }
        }
    }
    assert!(seen > 0, "no scenario was found in {folder}");
}
