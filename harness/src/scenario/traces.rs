//! Recorded traces that a scenario names: read once, when the scenario is, and taken along into the run folder, so that a
//! run can be judged and repeated from its folder alone.

use std::path::{Path, PathBuf};

use super::Scenario;
use super::diagnose::{Mistake, Place};
use crate::load::arrival::Arrivals;

/// A file that a scenario names, as it goes into the run folder beside the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its name there.
    pub name: String,
    /// Its content, as it was read.
    pub content: Vec<u8>,
}

/// A place in the scenario that names a file, and the file's name in the run folder.
pub(super) struct Renamed {
    /// The keys that lead there.
    pub keys: Vec<String>,
    /// What it says in the run folder.
    pub name: String,
}

/// What came of reading the traces.
#[derive(Default)]
pub(super) struct Traces {
    /// The files, each once.
    pub files: Vec<Attached>,
    /// Where they came from.
    sources: Vec<PathBuf>,
    /// The places that name them.
    pub renamed: Vec<Renamed>,
    /// What is wrong with them.
    pub mistakes: Vec<Mistake>,
}

/// Reads all traces of a scenario. They are found from its folder.
pub(super) fn read(path: &Path, scenario: &mut Scenario) -> Traces {
    let folder = path.parent().unwrap_or(Path::new(""));
    let limit = scenario.load.duration;
    let mut traces = Traces::default();
    let lists = scenario.cohort.iter_mut().map(|(name, cohort)| (vec!["cohort", name], &mut cohort.as_mut().arrivals));
    for (owner, list) in lists.chain([(vec!["load"], &mut scenario.load.arrivals)]) {
        for (index, arrivals) in list.iter_mut().enumerate() {
            // A trace whose numbers are wrong is told elsewhere.
            let fits = arrivals.check(1.0).is_ok();
            let Arrivals::Trace(trace) = arrivals else { continue };
            let file = folder.join(&trace.file);
            let name = traces.attach(&file).map_err(|error| format!("cannot be read: {error}"));
            let read = name.and_then(|number| {
                let Attached { name, content } = &traces.files[number];
                if fits {
                    trace.read(content, limit)?;
                }
                let place = ["arrivals", &index.to_string(), "trace", "file"].map(str::to_owned);
                let keys = owner.iter().map(|key| (*key).to_owned()).chain(place).collect();
                traces.renamed.push(Renamed { keys, name: name.clone() });
                Ok(())
            });
            if let Err(why) = read {
                let owner = owner.join(".");
                let at = Place::key(&format!("{owner}.arrivals.{index}.trace.file"));
                let what = format!("{owner}: the trace {}: {why}", file.display());
                let help = "a trace is a CSV, found from the scenario's folder, with one offset in each line: offset_ms, 12, 15.5";
                traces.mistakes.push(Mistake { at, what, help: help.into() });
            }
        }
    }
    traces
}

impl Traces {
    /// Reads a file unless it was read before; gives its place among the files.
    fn attach(&mut self, file: &Path) -> std::io::Result<usize> {
        if let Some(number) = self.sources.iter().position(|source| source == file) {
            return Ok(number);
        }
        let (name, content) = (format!("trace-{}.csv", self.files.len() + 1), std::fs::read(file)?);
        self.files.push(Attached { name, content });
        self.sources.push(file.to_owned());
        Ok(self.files.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::scenario;

    const SHORT: &str = include_str!("../../tests/e2e/support/short.toml");

    #[test]
    fn a_run_folder_can_do_without_the_place_that_the_trace_came_from() {
        let dir = tempfile::TempDir::new().unwrap();
        let (there, run) = (dir.path().join("there"), dir.path().join("run"));
        fs::create_dir_all(there.join("traces")).unwrap();
        fs::create_dir(&run).unwrap();
        fs::write(there.join("traces/day.csv"), "offset_ms\n10\n2500\n40\n").unwrap();
        let text = SHORT.replace(
            "constant = { rate = 5, lasts = \"7s\" }",
            "trace = { file = \"traces/day.csv\", from = \"1s\" }\n\n[[cohort.buyers.arrivals]]\ntrace = { file = \"traces/day.csv\" }",
        );
        fs::write(there.join("short.toml"), text).unwrap();
        let load = |path: &std::path::Path| scenario::load(path, &[], None).unwrap_or_else(|error| panic!("{error}"));
        let loaded = load(&there.join("short.toml"));
        assert_eq!(loaded.attached.len(), 1, "a trace that is named twice is kept once");
        fs::write(run.join("scenario.toml"), &loaded.resolved).unwrap();
        for file in &loaded.attached {
            fs::write(run.join(&file.name), &file.content).unwrap();
        }
        fs::remove_dir_all(&there).unwrap();
        let again = load(&run.join("scenario.toml"));
        assert_eq!(again.scenario.plan().count_and_hash(), loaded.scenario.plan().count_and_hash());
        let times: Vec<_> = again.scenario.plan().map(|arrival| arrival.at_us).collect();
        for recorded in [10_000, 40_000, 1_010_000, 1_040_000, 2_500_000, 3_500_000] {
            assert!(times.contains(&recorded), "{recorded}");
        }
        assert_eq!((again.resolved, again.attached), (loaded.resolved, loaded.attached), "and so on for ever");
    }
}
