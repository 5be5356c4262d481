//! Numbers, times and foreign text as people read them: units, thousands separators, sensible rounding.
//!
//! Every report says a figure in the same words, so the words are made here and nowhere else. Text that came from
//! outside (a service's reply, a scenario's title) is made harmless for lines here; escaping for a format is left to
//! the writer of that format.

use crate::history::Micros;
use crate::measure::stats;

/// What stands where there is no value.
pub(crate) const NONE: &str = "–";

/// A count with thousands separators: `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    stats::grouped(value)
}

/// A signed count with thousands separators.
pub(crate) fn signed(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", count(value.unsigned_abs()))
}

/// A number rounded to about three significant digits: `0.042`, `3.14`, `42.1`, `1,234`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    if size >= 99.95 {
        return signed(value.round().clamp(i64::MIN as f64, i64::MAX as f64) as i64);
    }
    let decimals = match size {
        s if s >= 9.995 => 1,
        s if s >= 0.0995 => 2,
        s if s >= 0.0005 => 3,
        _ => 0,
    };
    trim_zeros(format!("{value:.decimals$}"))
}

/// A fraction as a percentage; what is not nothing never reads as nothing, what is not all never as all.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    let value = part as f64 * 100.0 / whole as f64;
    match value {
        v if part > 0 && v < 0.01 => "<0.01%".to_owned(),
        v if part < whole && v > 99.99 => ">99.99%".to_owned(),
        v if v < 1.0 || (v > 99.0 && v < 100.0) => format!("{}%", trim_zeros(format!("{v:.2}"))),
        v => format!("{}%", trim_zeros(format!("{v:.1}"))),
    }
}

/// A duration in microseconds, three significant digits and the unit that suits it.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..=999 => format!("{us} µs"),
        1_000..=9_994 => format!("{:.2} ms", us as f64 / 1e3),
        9_995..=99_949 => format!("{:.1} ms", us as f64 / 1e3),
        99_950..=999_499 => format!("{:.0} ms", us as f64 / 1e3),
        _ => seconds(us as f64 / 1e6),
    }
}

/// A duration in microseconds that may be absent.
pub(crate) fn micros_or_none(us: Option<u64>) -> String {
    us.map_or_else(|| NONE.to_owned(), micros)
}

/// A percentile in microseconds with its 95% confidence interval: `412 ms (399 ms – 430 ms)`.
pub(crate) fn micros_within(us: Option<u64>, interval: Option<[u64; 2]>) -> String {
    match (us, interval) {
        (Some(us), Some([low, high])) => format!("{} ({} – {})", micros(us), micros(low), micros(high)),
        (us, _) => micros_or_none(us),
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(ms: f64) -> String {
    if !ms.is_finite() {
        return NONE.to_owned();
    }
    if ms < 0.0 {
        return format!("-{}", micros((-ms * 1e3).round() as u64));
    }
    micros((ms * 1e3).round() as u64)
}

/// A duration in seconds, above one second.
pub(crate) fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() => NONE.to_owned(),
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 119.95 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{} min {:02} s", (s.round() as u64) / 60, (s.round() as u64) % 60),
        s => format!("{} h {:02} min", (s as u64) / 3_600, (s as u64) / 60 % 60),
    }
}

/// A moment on the run's clock, in milliseconds since the epoch: `12.345 s`.
pub(crate) fn moment_ms(ms: Option<f64>) -> String {
    match ms {
        Some(ms) if ms.is_finite() => format!("{:.2} s", ms / 1e3),
        _ => NONE.to_owned(),
    }
}

/// A moment on the run's clock to the microsecond: witnesses turn on such differences.
pub(crate) fn moment_us(us: Micros) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let size = us.unsigned_abs();
    format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
}

/// CPU-seconds, with two decimals so that a column of them lines up.
pub(crate) fn cpu_seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() => NONE.to_owned(),
        s if s.abs() < 1_000.0 => format!("{s:.2} s"),
        s => format!("{} s", number(s)),
    }
}

/// An amount of memory or traffic.
pub(crate) fn bytes(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let mut size = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size.abs() < 1_023.5 {
            return format!("{} {unit}", number(size));
        }
        size /= 1_024.0;
    }
    format!("{} TiB", number(size))
}

/// A noun with its count: `1 unit`, `2 units`.
pub(crate) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Foreign text on one line: line breaks and tabs become spaces, other control characters a visible mark.
///
/// Replies of a broken service end up in details; they must not move a terminal's cursor nor end a table's row.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            // Overrides of the writing direction would let a reply reorder the line that it stands in.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => {}
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Columns that a text takes on a terminal: East Asian wide characters take two, combining marks none.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(column_of).sum()
}

fn column_of(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036f | 0x200b..=0x200f | 0x2060 | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The text cut to at most so many columns, with an ellipsis where something was cut.
///
/// Characters are limited too, since any number of combining marks fits into one column.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let most = width.saturating_mul(3);
    if columns(text) <= width && text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars().take(most) {
        let wide = column_of(c);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        out.push(c);
    }
    let kept = out.trim_end().len();
    out.truncate(kept);
    if width > 0 {
        out.push('…');
    }
    out
}

/// A finding's detail as its parts, each on one line; all of them cut to so many columns.
pub(crate) fn parts(detail: &str, width: usize) -> Vec<String> {
    let mut left = width;
    let mut parts = Vec::new();
    for part in detail.lines().map(one_line).filter(|part| !part.trim().is_empty()) {
        if left == 0 {
            break;
        }
        let part = shorten(&part, left);
        left = left.saturating_sub(columns(&part));
        parts.push(part);
    }
    parts
}

/// The text padded with spaces to so many columns.
pub(crate) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// The text padded on its left to so many columns.
pub(crate) fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

fn trim_zeros(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A table in Markdown, padded so that it reads well in a terminal too; the first line is its head.
pub(crate) fn markdown_table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |i: usize| lines.iter().filter_map(|line| line.get(i)).map(|cell| self::columns(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|i| width(i).unwrap_or(0)).collect();
    let mut out = String::new();
    for (n, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
        if n == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat((*width).max(3))).collect();
            out.push_str(&format!("| {} |\n", rule.join(" | ")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(signed(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn durations_keep_three_digits_at_the_edges_of_units() {
        assert_eq!(micros(0), "0 µs");
        assert_eq!(micros(999), "999 µs");
        assert_eq!(micros(1_000), "1.00 ms");
        assert_eq!(micros(9_999), "10.0 ms");
        assert_eq!(micros(99_999), "100 ms");
        assert_eq!(micros(999_999), "1.00 s");
        assert_eq!(micros(61_000_000), "61.0 s");
        assert_eq!(micros(150_000_000), "2 min 30 s");
        assert_eq!(millis(-2.5), "-2.50 ms");
        assert_eq!(millis(f64::NAN), NONE);
    }

    #[test]
    fn percentages_do_not_round_to_nothing_or_all() {
        assert_eq!(percent(0, 0), NONE);
        assert_eq!(percent(0, 5), "0%");
        assert_eq!(percent(1, 1_000_000), "<0.01%");
        assert_eq!(percent(999_999, 1_000_000), ">99.99%");
        assert_eq!(percent(1, 3), "33.3%");
        assert_eq!(percent(5, 5), "100%");
    }

    #[test]
    fn numbers_are_rounded() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.0421), "0.042");
        assert_eq!(number(2.71443), "2.71");
        assert_eq!(number(42.13), "42.1");
        assert_eq!(number(1234.5), "1,235");
        assert_eq!(number(f64::INFINITY), NONE);
        assert_eq!(bytes(1536.0), "1.5 KiB");
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a\r\nb\tc\u{1b}[31m"), "a b c\u{fffd}[31m");
        assert_eq!(columns("秒杀 ok"), 7);
        assert_eq!(shorten("秒杀手机", 5), "秒杀…");
        assert_eq!(shorten("short", 10), "short");
        assert_eq!(pad("秒", 4), "秒  ");
    }

    #[test]
    fn details_fall_into_their_parts() {
        assert_eq!(parts("One;\ntwo.\n", 80), ["One;", "two."]);
        assert_eq!(parts("One;\ntwo three.\nfour", 8), ["One;", "two…"]);
        assert!(parts("", 80).is_empty());
    }

    #[test]
    fn moments_are_exact() {
        assert_eq!(moment_us(-1_500), "-0.001500");
        assert_eq!(moment_us(12_345_678), "12.345678");
    }
}
