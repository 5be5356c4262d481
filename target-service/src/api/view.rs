//! The buyer's page as HTML: the same bytes for everybody, whoever asks and in whatever language, so that any cache may keep it. What
//! changes, and what is a buyer's own, its script asks for.

use std::fmt::Write as _;

use super::assets;

/// What the page may load and be loaded by: nothing of anybody else's.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("../../page/page.html");
const PAUSED: &str = include_str!("../../page/paused.html");

/// Longer than anybody waits: such a hold has no end.
const MOST_HOLD_MS: i64 = 86_400_000;

/// What the page says of an item.
pub struct Item<'a> {
    /// Its number.
    pub id: i64,
    /// What the seller calls it.
    pub title: &'a str,
    /// In cents.
    pub price_cents: i64,
    /// Units, all in all.
    pub stock: i64,
    /// Units that a buyer may have.
    pub limit: i32,
    /// Unix microseconds.
    pub opens_at_us: i64,
    /// Unix microseconds.
    pub closes_at_us: i64,
    /// Milliseconds that an order is held for.
    pub hold_ms: i64,
}

/// The page of an item.
pub fn page(item: &Item<'_>) -> String {
    let price = format!("¥{}.{:02}", item.price_cents / 100, item.price_cents % 100);
    let (hold_zh, hold_en) = hold(item.hold_ms);
    fill(PAGE, |name| match name {
        "item" => item.id.to_string(),
        "title" => item.title.to_owned(),
        "price" => price.clone(),
        "stock" => item.stock.to_string(),
        "limit" => item.limit.to_string(),
        // The script counts in milliseconds, and the sale is never shown as open before it is.
        "opens" => ceil_ms(item.opens_at_us).to_string(),
        "closes" => ceil_ms(item.closes_at_us).to_string(),
        "hold_zh" => hold_zh.clone(),
        "hold_en" => hold_en.clone(),
        other => asset(other),
    })
}

/// The page while everything is static, of an item that nobody has looked at before.
pub fn paused() -> String {
    fill(PAUSED, asset)
}

fn asset(name: &str) -> String {
    let asset = match name {
        "style" => assets::style(),
        "script" => assets::script(),
        "art" => assets::art(),
        unknown => unreachable!("the page asks for `{unknown}`, which nobody fills in"),
    };
    asset.address().to_owned()
}

fn ceil_ms(us: i64) -> i64 {
    -(-us).div_euclid(1_000)
}

fn hold(ms: i64) -> (String, String) {
    let seconds = (ms + 999) / 1_000;
    match seconds {
        _ if ms > MOST_HOLD_MS => ("到付款为止".to_owned(), "until you pay".to_owned()),
        120.. if seconds % 60 == 0 => (format!(" {} 分钟", seconds / 60), format!("for {} minutes", seconds / 60)),
        1 => (" 1 秒".to_owned(), "for 1 second".to_owned()),
        _ => (format!(" {seconds} 秒"), format!("for {seconds} seconds")),
    }
}

/// The template with a value in place of each `{{name}}`. Values are escaped, and are not looked through for names.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut filled = String::with_capacity(template.len() + 1_024);
    let mut rest = template;
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
    {
        filled.push_str(before);
        escape(&value(name), &mut filled);
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// As text and within quotes alike.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' => write!(out, "&#{};", c as u32).expect("memory takes what is written"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(title: &str) -> Item<'_> {
        Item {
            id: 7,
            title,
            price_cents: 9_905,
            stock: 80,
            limit: 2,
            opens_at_us: 1_000_001,
            closes_at_us: 9_000_000,
            hold_ms: 900_000,
        }
    }

    #[test]
    fn a_page_says_what_is_for_sale() {
        let page = page(&item("一部手机"));
        for text in [
            "data-item=\"7\"",
            "data-opens=\"1001\"",
            "data-closes=\"9000\"",
            "¥99.05",
            "一部手机",
            "15 分钟",
            assets::script().address(),
        ] {
            assert!(page.contains(text), "{text} is missing");
        }
        assert!(!page.contains("{{"), "everything is filled in");
        assert!(!paused().contains("{{"));
    }

    #[test]
    fn a_title_is_text_and_nothing_else() {
        let page = page(&item("<script>alert(1)</script> \"{{price}}\" '&'"));
        assert!(!page.contains("<script>alert"), "it would be run");
        assert!(page.contains("&#60;script&#62;alert(1)"));
        assert!(page.contains("&#34;{{price}}&#34; &#39;&#38;&#39;"), "nor is a name in it filled in");
    }

    #[test]
    fn holds_are_told_in_words() {
        let told = |ms| hold(ms).1;
        assert_eq!((told(1), told(60_000)), ("for 1 second".into(), "for 60 seconds".into()));
        assert_eq!((told(900_000), told(i64::MAX / 1_000)), ("for 15 minutes".into(), "until you pay".into()));
    }
}
