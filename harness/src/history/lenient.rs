//! Reads a ledger as other services write it: ids as numbers, words in any case, states that we have no name for.

use serde::{Deserialize, Deserializer, de};

use super::{EntryKind, OrderState};

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(serde_json::Number),
}

impl TextOrNumber {
    fn into_text(self) -> String {
        match self {
            TextOrNumber::Text(text) => text,
            TextOrNumber::Number(number) => number.to_string(),
        }
    }
}

/// A name or a number; a number is read as its digits.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let read = TextOrNumber::deserialize(deserializer).map_err(|_| de::Error::custom("expected text or a number"))?;
    Ok(read.into_text())
}

/// The same where there may be nothing.
pub(super) fn text_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<TextOrNumber>::deserialize(deserializer)?.map(TextOrNumber::into_text))
}

/// What happened, in any case of letters.
pub(super) fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntryKind, D::Error> {
    let word = String::deserialize(deserializer)?;
    EntryKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&word)).ok_or_else(|| {
        let known = EntryKind::ALL.map(EntryKind::name).join(", ");
        de::Error::custom(format!("`{word}` is no kind of entry; accepted are {known}"))
    })
}

/// A state in any case of letters; one that has no name here is unknown.
pub(super) fn state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OrderState>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|word| OrderState::parse(&word)))
}

#[cfg(test)]
mod tests {
    use super::super::LedgerEntry;
    use super::*;

    fn entry(kind: &str, order: &str, state: &str) -> Result<LedgerEntry, String> {
        let text = format!(
            r#"{{"seq":1,"at":2,"kind":"{kind}","order":{order},"item":1,"user":7,"quantity":1,"key":3,"state":{state}}}"#
        );
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_foreign_ledger_is_read_as_it_is_meant() {
        let read = entry("RESERVE", "17", "\"PAID\"").unwrap();
        assert_eq!((read.kind, read.order.as_str(), read.user.as_str()), (EntryKind::Reserve, "17", "7"));
        assert_eq!((read.key.as_deref(), read.state), (Some("3"), Some(OrderState::Paid)));
        assert_eq!(entry("pay", "\"a\"", "\"shipped\"").unwrap().state, Some(OrderState::Unknown));
        assert_eq!(entry("pay", "\"a\"", "null").unwrap().state, None);
        let error = entry("sold", "1", "null").unwrap_err();
        assert!(error.contains("`sold` is no kind") && error.contains("reserve, pay, release, refund"), "{error}");
        assert!(entry("pay", "[1]", "null").unwrap_err().contains("text or a number"));
    }
}
