//! What a step reads from a reply: the values that later steps need, and the checks that a success has to pass.

use std::ops::Range;

use regex::Regex;
use regex::bytes::Regex as BytesRegex;
use serde_json::Value;

use super::ReplyCheck;
use super::journey::text_of;
use crate::load::client::Reply;

/// The places that a value can be captured from, for messages.
pub const PLACES: &str = "a JSON pointer such as \"/token\", \"header:etag\", \"header:location\" for the last part of that \
                          path, \"cookie:sid\", or 'regex:name=\"csrf\" value=\"([^\"]+)\"'";

/// Where in a reply a value stands.
#[derive(Debug, Clone)]
pub enum Source {
    /// At a JSON pointer into the body (RFC 6901).
    Json(String),
    /// The last part of the path in `Location`.
    Location,
    /// A header, by its name.
    Header(String),
    /// A cookie that the reply sets, by its name.
    Cookie(String),
    /// What the one group of an expression matches in the body; the whole match if it has no group.
    Regex(BytesRegex),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Json(pointer) => f.write_str(pointer),
            Source::Location => f.write_str("header:location"),
            Source::Header(name) => write!(f, "header:{name}"),
            Source::Cookie(name) => write!(f, "cookie:{name}"),
            Source::Regex(regex) => write!(f, "regex:{regex}"),
        }
    }
}

impl Source {
    /// Reads a source as scenarios write it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Source, String> {
        if text.starts_with('/') {
            return pointer(text).map(|()| Source::Json(text.to_owned()));
        }
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(format!("`{text}` is no place in a reply"));
        };
        match kind {
            "header" if rest.eq_ignore_ascii_case("location") => Ok(Source::Location),
            "header" if is_token(rest) => Ok(Source::Header(rest.to_ascii_lowercase())),
            "cookie" if is_token(rest) => Ok(Source::Cookie(rest.to_owned())),
            "header" | "cookie" => Err(format!("`{rest}` is no name of a {kind}")),
            "regex" => {
                let regex = BytesRegex::new(rest).map_err(|error| format!("`{rest}` is no regex: {error}"))?;
                let groups = regex.captures_len() - 1;
                if groups > 1 {
                    return Err(format!("the regex `{rest}` has {groups} groups, and one value is kept"));
                }
                Ok(Source::Regex(regex))
            }
            _ => Err(format!("`{kind}:` is no kind of place in a reply")),
        }
    }

    /// Whether it needs the body as JSON.
    pub fn is_json(&self) -> bool {
        matches!(self, Source::Json(_))
    }

    /// Whether it stands in the head.
    pub fn in_head(&self) -> bool {
        matches!(self, Source::Location | Source::Header(_) | Source::Cookie(_))
    }

    /// The value in a reply; empty if it is not there. `json` is the body, null where it was not read as JSON. A value of
    /// several lines is cut after the first, since it may be sent in a head, which further lines would change.
    pub fn read(&self, reply: &Reply<'_>, json: &Value) -> String {
        let mut value = self.whole(reply, json);
        value.truncate(value.find(['\r', '\n', '\0']).unwrap_or(value.len()));
        value
    }

    fn whole(&self, reply: &Reply<'_>, json: &Value) -> String {
        match self {
            Source::Json(pointer) => json.pointer(pointer).map(text_of).unwrap_or_default(),
            Source::Location => reply.location.unwrap_or_default().to_owned(),
            Source::Header(name) => reply.header(name).next().unwrap_or_default().to_owned(),
            Source::Cookie(name) => {
                let set = reply.header("set-cookie").filter_map(|line| line.split(';').next()?.split_once('='));
                let last = set.filter(|(key, _)| key.trim() == name).last();
                last.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
            }
            Source::Regex(regex) => {
                let found = regex.captures(reply.body).and_then(|groups| groups.get(groups.len() - 1));
                found.map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned()).unwrap_or_default()
            }
        }
    }
}

/// Whether a text is a JSON pointer to something within a document (RFC 6901 3).
///
/// # Errors
/// Says what is wrong with it.
pub fn pointer(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is no JSON pointer: one starts with `/`"));
    }
    if text.split('~').skip(1).all(|after| after.starts_with(['0', '1'])) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no JSON pointer: in one, `~0` stands for a tilde and `~1` for a slash, and `~` for nothing else"
    ))
}

/// Whether a text can be the name of a header or a cookie (a token, RFC 9110 5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// A step's checks, compiled.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    status: Vec<u16>,
    json: Vec<(String, Value)>,
    header: Vec<(String, Regex)>,
    body: Option<BytesRegex>,
    not_body: Option<BytesRegex>,
}

impl Checks {
    /// Compiles what a scenario declares.
    ///
    /// # Errors
    /// The place and the mistake, for each that there is.
    pub fn compile(check: &ReplyCheck) -> Result<Checks, Vec<(Range<usize>, String)>> {
        let mut wrong = Vec::new();
        for status in check.status.iter().flatten() {
            if !(200..400).contains(status.get_ref()) {
                let why = format!("status {} cannot be declared a success", status.get_ref());
                wrong.push((status.span(), why));
            }
        }
        for (place, value) in &check.json {
            wrong.extend(pointer(place).err().map(|why| (value.span(), why)));
        }
        let mut header = Vec::new();
        for (name, pattern) in &check.header {
            match Regex::new(pattern.get_ref()) {
                _ if !is_token(name) => wrong.push((pattern.span(), format!("`{name}` is no name of a header"))),
                Ok(regex) => header.push((name.to_ascii_lowercase(), regex)),
                Err(error) => wrong.push((pattern.span(), format!("`{}` is no regex: {error}", pattern.get_ref()))),
            }
        }
        let mut body = |pattern: &Option<toml::Spanned<String>>| {
            let pattern = pattern.as_ref()?;
            let compiled = BytesRegex::new(pattern.get_ref());
            compiled
                .map_err(|error| wrong.push((pattern.span(), format!("`{}` is no regex: {error}", pattern.get_ref()))))
                .ok()
        };
        let (body, not_body) = (body(&check.body), body(&check.not_body));
        let status = check.status.iter().flatten().map(|status| *status.get_ref()).collect();
        let json = check.json.iter().map(|(pointer, value)| (pointer.clone(), value.get_ref().clone())).collect();
        if wrong.is_empty() { Ok(Checks { status, json, header, body, not_body }) } else { Err(wrong) }
    }

    /// Whether a status is declared to be a success.
    pub fn declares(&self, status: u16) -> bool {
        self.status.contains(&status)
    }

    /// Whether the body is needed as JSON.
    pub fn wants_json(&self) -> bool {
        !self.json.is_empty()
    }

    /// The reason by which a reply fails, if it does. A 304 has no body that could be looked at.
    pub fn failed(&self, reply: &Reply<'_>, json: &Value) -> Option<&'static str> {
        if !self.status.is_empty() && !self.declares(reply.status) {
            return Some("check-status");
        }
        if self.header.iter().any(|(name, regex)| !reply.header(name).any(|value| regex.is_match(value))) {
            return Some("check-header");
        }
        if reply.status == 304 {
            return None;
        }
        if self.json.iter().any(|(pointer, wanted)| json.pointer(pointer) != Some(wanted)) {
            return Some("check-json");
        }
        if self.body.as_ref().is_some_and(|regex| !regex.is_match(reply.body)) {
            return Some("check-body");
        }
        self.not_body.as_ref().is_some_and(|regex| regex.is_match(reply.body)).then_some("check-not-body")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(body: &'static str) -> Reply<'static> {
        let head = b"HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nset-cookie: sid=old\r\nSet-Cookie: sid=s=1; Path=/\r\n\r\n";
        Reply { status: 200, retry_after_s: None, location: Some("17"), head, body: body.as_bytes() }
    }

    fn read(source: &str, body: &'static str) -> String {
        let json = serde_json::from_str(body).unwrap_or_default();
        Source::parse(source).unwrap_or_else(|error| panic!("{error}")).read(&reply(body), &json)
    }

    #[test]
    fn a_value_is_read_from_where_it_stands() {
        assert_eq!(read("/a/0", r#"{"a":["x"]}"#), "x");
        assert_eq!(read("/a", r#"{"a":17}"#), "17");
        assert_eq!(read("/a", r#"{"a":"x\r\ny: z"}"#), "x");
        assert_eq!(read("/nope", r#"{"a":17}"#), "");
        assert_eq!(read("/a~1b~0c", r#"{"a/b~c":17}"#), "17");
        assert_eq!(read("header:location", ""), "17");
        assert_eq!(read("header:etag", ""), "\"v1\"");
        assert_eq!(read("header:nope", ""), "");
        assert_eq!(read("cookie:sid", ""), "s=1");
        assert_eq!(read("cookie:si", ""), "");
        let page = r#"<input name="csrf" value="t0k">"#;
        assert_eq!(read(r#"regex:name="csrf" value="([^"]+)""#, page), "t0k");
        assert_eq!(read("regex:t[0-9]k", page), "t0k");
        assert_eq!(read("regex:nothing", page), "");
    }

    #[test]
    fn a_place_that_is_none_is_named() {
        for (source, why) in [
            ("token", "no place in a reply"),
            ("head:etag", "`head:` is no kind of place"),
            ("header:", "no name of a header"),
            ("cookie:a b", "no name of a cookie"),
            ("regex:(", "no regex"),
            ("regex:(a)(b)", "has 2 groups"),
            ("/a~2b", "`~0` stands for a tilde and `~1` for a slash"),
            ("/a~", "`~0` stands for a tilde"),
        ] {
            let error = Source::parse(source).unwrap_err();
            assert!(error.contains(why), "{source}: {error}");
        }
    }

    #[test]
    fn a_success_that_fails_a_check_says_by_which() {
        let failed = |toml: &str, body: &'static str| {
            let check: ReplyCheck = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}"));
            let json = serde_json::from_str(body).unwrap_or_default();
            Checks::compile(&check).unwrap().failed(&reply(body), &json)
        };
        assert_eq!(failed("", ""), None);
        assert_eq!(failed("status = [200, 304]", ""), None);
        assert_eq!(failed("status = [201]", ""), Some("check-status"));
        assert_eq!(failed("header = { etag = 'v\\d' }", ""), None);
        assert_eq!(failed("header = { etag = 'x' }", ""), Some("check-header"));
        assert_eq!(failed("header = { nope = '' }", ""), Some("check-header"));
        assert_eq!(failed("json = { '/state' = 'open', '/n' = 3 }", r#"{"state":"open","n":3}"#), None);
        assert_eq!(failed("json = { '/state' = 'open' }", r#"{"state":"shut"}"#), Some("check-json"));
        assert_eq!(failed("json = { '/state' = 'open' }", "open"), Some("check-json"));
        assert_eq!(failed("body = 'buy'", "buy now"), None);
        assert_eq!(failed("body = 'buy'", "sorry"), Some("check-body"));
        assert_eq!(failed("not_body = 'sorry'", "sorry"), Some("check-not-body"));
    }
}
