//! Arrivals as they were recorded elsewhere: a CSV of offsets from the start of the recording.

use std::sync::Arc;

use csv::{ReaderBuilder, StringRecord, Trim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::Micros;
use crate::scenario::value::Dur;

/// Most arrivals that one trace may have; a day of a hundred each second is fewer.
const MOST: usize = 10_000_000;

/// A recorded trace, played again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// A CSV file, found from the folder of the scenario. Its column `offset_s`, `offset_ms` or `offset_us` says when each
    /// buyer came, counted from the start of the recording; without a header there is that column alone, in seconds. The
    /// order of the lines does not matter.
    pub file: String,
    /// When the recording begins.
    #[serde(default)]
    pub from: Dur,
    /// How much faster it is played than it was recorded: 2 takes half the time.
    #[serde(default = "as_recorded")]
    pub speed: f64,
    /// The arrivals in order, once the file was read.
    #[serde(skip)]
    #[schemars(skip)]
    pub(super) times: Arc<[Micros]>,
}

fn as_recorded() -> f64 {
    1.0
}

/// The units that a header may name, with the seconds that one of each is.
const UNITS: [(&str, f64); 3] = [("offset_s", 1.0), ("offset_ms", 1e-3), ("offset_us", 1e-6)];

impl Trace {
    /// What is wrong with the numbers, if anything: names the key and what is accepted.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.speed.is_finite() && (1e-3..=1e3).contains(&self.speed) {
            return Ok(());
        }
        Err(format!("`speed` is {}; from 0.001 to 1000 times as fast as it was recorded", self.speed))
    }

    /// Reads the file's content. It is sorted, since a log is written in the order in which requests ended.
    ///
    /// # Errors
    /// Names the line, what is wrong with it, and what is accepted. Nothing may come after `limit`.
    pub fn read(&mut self, content: &[u8], limit: Dur) -> Result<(), String> {
        let rows = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(Trim::All)
            .comment(Some(b'#'))
            .from_reader(content)
            .into_records();
        let mut column = (0, 1.0);
        let mut columns = 1;
        let mut times = Vec::new();
        let mut first = true;
        for row in rows {
            let row = row.map_err(|error| format!("this is no CSV: {error}"))?;
            let line = row.position().map_or(0, csv::Position::line);
            if std::mem::take(&mut first) && is_header(&row) {
                column = unit_of(&row).map_err(|why| format!("line {line}: {why}"))?;
                columns = row.len();
                continue;
            }
            if row.len() > columns {
                return Err(format!("line {line}: {}", too_wide(&row, columns)));
            }
            let time = self.time(&row, column).map_err(|why| format!("line {line}: {why}"))?;
            if time > limit.micros() {
                let at = Dur(std::time::Duration::from_micros(time as u64));
                return Err(format!("line {line}: this buyer comes at {at}, after load.duration ({limit})"));
            }
            if times.len() == MOST {
                return Err(format!("line {line}: these are too many; at most {MOST} arrivals"));
            }
            times.push(time);
        }
        if times.is_empty() {
            return Err("there is no arrival in it; one offset stands in each line".into());
        }
        times.sort_unstable();
        self.times = times.into();
        Ok(())
    }

    /// When the buyer of a line comes, in microseconds since the epoch.
    fn time(&self, row: &StringRecord, (column, unit): (usize, f64)) -> Result<Micros, String> {
        let text = row.get(column).ok_or_else(|| format!("there is no column {}", column + 1))?;
        let offset: f64 = text.parse().ok().filter(|offset: &f64| offset.is_finite()).ok_or_else(|| {
            format!("`{text}` is no number; an offset is one such as 12.5, and the header names it with its unit: offset_s, offset_ms or offset_us")
        })?;
        if offset < 0.0 {
            return Err(format!("{text} is negative; offsets count from the start of the recording"));
        }
        Ok(self.from.micros().saturating_add((offset * unit / self.speed * 1e6).round() as Micros))
    }
}

/// What is wrong with a line of more columns than there are names for. As a rule it is a comma that is meant as a decimal
/// point, and whoever took the part before it would play another trace than was recorded.
fn too_wide(row: &StringRecord, columns: usize) -> String {
    let fields: Vec<&str> = row.iter().collect();
    let names = match columns {
        1 => "one column".to_owned(),
        more => format!("{more} columns"),
    };
    format!(
        "`{}` has {} columns where {names} may be; a decimal is written with a point, such as 12.5, and further columns have \
         their names in the header",
        fields.join(","),
        row.len()
    )
}

/// A header names its columns: the one with the offsets, or at least none that is a number.
fn is_header(row: &StringRecord) -> bool {
    let offsets = |field: &str| UNITS.iter().any(|(known, _)| field.eq_ignore_ascii_case(known));
    row.iter().any(offsets) || row.iter().all(|field| field.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// The column with the offsets, and the seconds that one of its unit is.
fn unit_of(header: &StringRecord) -> Result<(usize, f64), String> {
    let named = |name: &str| UNITS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, unit)| *unit);
    let mut columns = header.iter().enumerate().filter_map(|(column, name)| Some((column, named(name)?)));
    columns.next().ok_or_else(|| {
        let names: Vec<&str> = header.iter().collect();
        format!("no column of `{}` says its unit; call the one with the offsets offset_s, offset_ms or offset_us", {
            names.join(",")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, from_ms: u64, speed: f64) -> Result<Vec<Micros>, String> {
        let mut trace = Trace { file: "t.csv".into(), from: Dur::millis(from_ms), speed, times: Arc::default() };
        trace.read(text.as_bytes(), Dur::millis(10_000)).map(|()| trace.times.to_vec())
    }

    #[test]
    fn a_header_names_the_unit_and_seconds_are_the_default() {
        assert_eq!(read("0.5\n0.25\n2\n", 0, 1.0).unwrap(), [250_000, 500_000, 2_000_000]);
        assert_eq!(read("offset_ms\n500\n250.5\n", 1_000, 1.0).unwrap(), [1_250_500, 1_500_000]);
        assert_eq!(read("path,offset_us\n/a,10\n/b,4\n", 0, 2.0).unwrap(), [2, 5]);
        assert_eq!(read("offset_ms,1st,2nd\n5,a,b\n", 0, 1.0).unwrap(), [5_000]);
        assert_eq!(read("# recorded in spring\r\nOffset_S , path\r\n1.5 , /a\r\n\r\n", 0, 1.0).unwrap(), [1_500_000]);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, says) in [
            ("1\n2\nthree\n", "line 3: `three` is no number"),
            ("offset_ms\n5\n-1\n", "line 3: -1 is negative"),
            ("offset_ms\n5\nNaN\n", "line 3: `NaN` is no number"),
            ("1\n10.5\n", "line 2: this buyer comes at 10500ms, after load.duration (10s)"),
            ("when\n1\n", "line 1: no column of `when` says its unit"),
            ("path,offset_s\n/a,1\n/b\n", "line 3: there is no column 2"),
            (
                "offset_ms\n12\n12,5\n",
                "line 3: `12,5` has 2 columns where one column may be; a decimal is written with a point",
            ),
            ("1,5\n", "line 1: `1,5` has 2 columns where one column may be"),
            ("path,offset_s\n/a,1,5\n", "line 2: `/a,1,5` has 3 columns where 2 columns may be"),
            ("offset_ms\n\"12,5\"\n", "line 2: `12,5` is no number; an offset is one such as 12.5"),
            ("1st,2nd\n", "line 1: `1st,2nd` has 2 columns where one column may be"),
            ("offset_s\n", "there is no arrival in it"),
            ("", "there is no arrival in it"),
        ] {
            let why = read(text, 0, 1.0).unwrap_err();
            assert!(why.contains(says), "{text:?}: {why}");
        }
    }

    proptest! {
        #[test]
        fn what_was_recorded_is_played(mut offsets in proptest::collection::vec(0u32..9_000, 1..200)) {
            let text: String = offsets.iter().map(|offset| format!("{offset}\n")).collect();
            let played = read(&format!("offset_ms\n{text}"), 500, 1.0).unwrap();
            offsets.sort_unstable();
            let recorded: Vec<Micros> = offsets.iter().map(|ms| (Micros::from(*ms) + 500) * 1_000).collect();
            prop_assert_eq!(played, recorded);
        }
    }
}
