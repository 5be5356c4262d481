//! Curves over time as lines of text, for reports that are read where no picture is: eight heights of a block, a few bins of a
//! run to a character.

use super::format;
use crate::history::Micros;
use crate::summary::Summary;

/// Characters that a run gets at most.
const COLUMNS: usize = 80;
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curves of a run, in a block of code: what was planned and sent, how long it took, what got no answer, the stock, the faults.
pub fn draw(summary: &Summary) -> String {
    let series = &summary.series;
    let (bin, latency_bin) = (series.bin_us.max(1), series.latency_bin_us.max(1));
    let ends = [series.planned.len() as Micros * bin, series.us_p99.len() as Micros * latency_bin];
    let span = ends.into_iter().max().unwrap_or(0);
    if span == 0 {
        return String::new();
    }
    let axis = Axis { span };
    let rates = |values: &[u32], bin: Micros| {
        let per_second = values.iter().map(|n| Some(f64::from(*n) * 1e6 / bin as f64)).collect::<Vec<_>>();
        axis.columns(&per_second, bin, |values| values.iter().sum::<f64>() / values.len() as f64)
    };
    let p99: Vec<Option<f64>> = series.us_p99.iter().map(|us| us.map(|us| us as f64)).collect();
    let p99 = axis.columns(&p99, latency_bin, |values| values.iter().copied().fold(0.0, f64::max));
    let stock = axis.sampled(&series.stock);
    let per_second = |value: f64| format!("{value:.0}/s");
    let mut lines = vec![
        line("planned", &rates(&series.planned, bin), per_second),
        line("sent", &rates(&series.sent, bin), per_second),
        line("TP99", &p99, |us| format::micros(us as u64)),
        line("no answer", &rates(&series.info, latency_bin), per_second),
        line("orders", &rates(&series.orders, latency_bin), per_second),
        line("stock", &stock, |units| format!("{units:.0}")),
    ];
    lines.extend(summary.faults.iter().filter_map(|fault| {
        let from = axis.column(us(fault.injected_at_ms?));
        let until = fault.healed_at_ms.map_or(COLUMNS - 1, |at| axis.column(us(at)));
        let bar: String = (0..COLUMNS).map(|at| if (from..=until).contains(&at) { '▓' } else { '·' }).collect();
        Some(format!("{:14} {bar} {}", format::shorten(&fault.id, 14), fault.kind))
    }));
    let seconds = span as f64 / 1e6;
    format!(
        "```text\n{}\n{:14} 0 s{:>width$}\n```\n",
        lines.join("\n"),
        "",
        format!("{seconds:.0} s"),
        width = COLUMNS - 3
    )
}

fn us(ms: f64) -> Micros {
    (ms * 1e3) as Micros
}

/// The time that the columns share.
struct Axis {
    span: Micros,
}

impl Axis {
    fn column(&self, at: Micros) -> usize {
        let column = at.max(0) as f64 / self.span as f64 * COLUMNS as f64;
        (column as usize).min(COLUMNS - 1)
    }

    /// For each column, what the bins come to that share some time with it.
    fn columns(&self, bins: &[Option<f64>], bin: Micros, together: impl Fn(&[f64]) -> f64) -> Vec<Option<f64>> {
        let at = |column: usize| self.span * column as Micros / COLUMNS as Micros;
        let one = |column: usize| {
            let first = (at(column) / bin) as usize;
            let after = ((at(column + 1) + bin - 1) / bin) as usize;
            let values: Vec<f64> = bins.iter().take(after).skip(first).flatten().copied().collect();
            (!values.is_empty()).then(|| together(&values))
        };
        (0..COLUMNS).map(one).collect()
    }

    /// What was last seen in or before each column.
    fn sampled(&self, samples: &[(Micros, Option<i64>)]) -> Vec<Option<f64>> {
        let mut out = vec![None; COLUMNS];
        for (at, value) in samples.iter().filter(|(at, value)| *at >= 0 && value.is_some()) {
            out[self.column(*at)] = value.map(|units| units as f64);
        }
        let mut last = None;
        for slot in &mut out {
            last = slot.or(last);
            *slot = last;
        }
        out
    }
}

/// A curve from nothing to its largest value, which is told.
fn line(name: &str, values: &[Option<f64>], told: impl Fn(f64) -> String) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let block = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if most > 0.0 && *value > 0.0 => HEIGHTS[((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
        Some(_) => '_',
    };
    let curve: String = values.iter().map(block).collect();
    format!("{name:14} {curve} at most {}", told(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reaches_its_top_where_the_value_does_and_shows_gaps() {
        let drawn = line("x", &[Some(0.0), Some(1.0), None, Some(8.0), Some(4.0)], |v| format!("{v}"));
        assert_eq!(drawn, format!("{:14} _▁ █▄ at most 8", "x"));
    }

    #[test]
    fn bins_are_put_together_and_samples_last_until_the_next() {
        let axis = Axis { span: 16_000_000 };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        // Two bins to a column, and then one bin over five.
        let narrow: Vec<Option<f64>> = (0..160).map(|n| Some(f64::from(n % 2))).collect();
        assert!(axis.columns(&narrow, 100_000, mean).iter().all(|value| *value == Some(0.5)));
        let wide: Vec<Option<f64>> = (0..16).map(|n| (n != 3).then_some(f64::from(n))).collect();
        let wide = axis.columns(&wide, 1_000_000, mean);
        assert_eq!(
            (wide[0], wide[4], wide[5], wide[15], wide[79]),
            (Some(0.0), Some(0.0), Some(1.0), None, Some(15.0))
        );
        let stock = axis.sampled(&[(-5, Some(9)), (0, Some(7)), (8_000_000, Some(3)), (9_000_000, None)]);
        assert_eq!((stock[0], stock[39], stock[40], stock[79]), (Some(7.0), Some(7.0), Some(3.0), Some(3.0)));
    }
}
