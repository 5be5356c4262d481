//! The cookies of one buyer on one journey.
//!
//! A jar keeps to names and values, and to removal: a cookie that a reply sets is sent with every later request, until a
//! reply sets it with `Max-Age` of 0 or less, or with an `Expires` that is over. All requests of a journey go to one host, so
//! `Domain`, `Path`, `Secure` and `SameSite` decide nothing here, and a journey is too short for a later expiry to matter.

use super::client::Reply;

/// A jar.
#[derive(Debug, Default)]
pub struct Jar {
    cookies: Vec<(String, String)>,
    header: String,
}

impl Jar {
    /// What the `cookie` header says; empty if there is nothing to say.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Keeps the cookies that a reply sets, and forgets those that it removes.
    pub fn keep(&mut self, reply: &Reply<'_>) {
        let mut changed = false;
        for line in reply.header("set-cookie") {
            let mut parts = line.split(';');
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() {
                continue;
            }
            changed = true;
            let at = self.cookies.iter().position(|(known, _)| known == name);
            match at {
                _ if is_over(parts) => self.cookies.retain(|(known, _)| known != name),
                Some(at) => value.clone_into(&mut self.cookies[at].1),
                None => self.cookies.push((name.to_owned(), value.to_owned())),
            }
        }
        if changed {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            self.header = pairs.join("; ");
        }
    }
}

/// Whether a cookie's attributes remove it. `Max-Age` comes before `Expires` (RFC 6265 5.3).
fn is_over<'a>(attributes: impl Iterator<Item = &'a str>) -> bool {
    let (mut age, mut over) = (None, false);
    for attribute in attributes {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "max-age" => age = value.trim().parse::<i64>().ok().or(age),
            "expires" => over = expired(value.trim()),
            _ => {}
        }
    }
    age.map_or(over, |age| age <= 0)
}

/// Whether a date is over; the older way to write one has dashes in it.
fn expired(date: &str) -> bool {
    let date = date.replace('-', " ");
    jiff::fmt::rfc2822::parse(&date).is_ok_and(|at| at.timestamp() <= jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> String {
        let mut jar = Jar::default();
        for line in lines {
            let head = format!("HTTP/1.1 200 OK\r\nSet-Cookie: {line}\r\n\r\n");
            jar.keep(&Reply { status: 200, retry_after_s: None, location: None, head: head.as_bytes(), body: b"" });
        }
        jar.header().to_owned()
    }

    #[test]
    fn cookies_are_kept_by_name_until_they_are_removed() {
        assert_eq!(after(&[]), "");
        assert_eq!(after(&["a=1; Path=/; HttpOnly", "b=x=y; Max-Age=60"]), "a=1; b=x=y");
        assert_eq!(after(&["a=1", "b=2", "a=3"]), "a=3; b=2");
        assert_eq!(after(&["a=1", "a=; max-age=0"]), "");
        assert_eq!(after(&["a=1", "a=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]), "");
        assert_eq!(after(&["a=1", "a=2; Expires=Thu, 01-Jan-1970 00:00:00 GMT"]), "");
        assert_eq!(after(&["a=1; Expires=Fri, 01 Jan 2100 00:00:00 GMT"]), "a=1");
        assert_eq!(after(&["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60"]), "a=1");
        assert_eq!(after(&["nonsense", "=x"]), "");
    }
}
