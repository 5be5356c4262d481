//! Reads `text/event-stream`: server-sent events (WHATWG HTML standard, section 9.2), as they come and however they are cut.

use std::time::Duration;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` if the stream names none.
    pub name: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// The state of a stream under way.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return, whose line feed may still come.
    after_cr: bool,
    /// The stream's first line, which may begin with a byte order mark, is over.
    begun: bool,
    name: String,
    data: String,
    id: String,
    last_id: String,
    retry: Option<Duration>,
}

impl Parser {
    /// Reads the next bytes of the stream; adds the events that they complete.
    pub fn push(&mut self, bytes: &[u8], events: &mut impl Extend<Event>) {
        for byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&line));
                    self.line = line;
                    self.line.clear();
                }
                _ => self.line.push(*byte),
            }
        }
    }

    /// What to send as `Last-Event-ID` when the stream is asked for again; empty if nothing.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long to wait before the stream is asked for again, if it says so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The stream begins anew: half an event is forgotten, what is known for asking again is not.
    pub fn restart(&mut self) {
        let last_id = std::mem::take(&mut self.last_id);
        *self = Parser { id: last_id.clone(), last_id, retry: self.retry, ..Parser::default() };
    }

    fn line(&mut self, line: &[u8]) -> Option<Event> {
        let marked = !std::mem::replace(&mut self.begun, true);
        let line = if marked { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // A comment, or a field that the standard tells to ignore.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        self.last_id.clone_from(&self.id);
        let (mut name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        // An event without data is none.
        data.pop()?;
        if name.is_empty() {
            "message".clone_into(&mut name);
        }
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(stream: &[u8]) -> (Vec<Event>, Parser) {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        parser.push(stream, &mut events);
        (events, parser)
    }

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn a_stream_is_read_as_the_standard_says() {
        let stream = "\u{feff}: a comment\nretry: 70\ndata: first\ndata:second\nid: 1\n\n\
                      event: open\ndata\n\nevent: nothing\n\ndata:  x\nretry: 7s\nunknown: y\n\ndata: never ended\n";
        let (events, parser) = read(stream.as_bytes());
        assert_eq!(events, [event("message", "first\nsecond"), event("open", ""), event("message", " x")]);
        assert_eq!((parser.last_id(), parser.retry()), ("1", Some(Duration::from_millis(70))));
    }

    #[test]
    fn a_byte_order_mark_counts_once() {
        assert_eq!(read("\u{feff}data: x\n\n".as_bytes()).0, [event("message", "x")]);
        assert_eq!(read("\u{feff}\u{feff}data: x\n\n".as_bytes()).0, []);
    }

    #[test]
    fn the_id_holds_once_its_event_is_whole_and_across_a_new_start() {
        let (_, mut parser) = read(b"id: 7\ndata: x\n\nid: 8\ndata: half");
        assert_eq!(parser.last_id(), "7");
        parser.restart();
        let mut events = Vec::new();
        parser.push(b"data: y\n\n", &mut events);
        assert_eq!((parser.last_id(), events), ("7", vec![event("message", "y")]));
        parser.push(b"id\n\n", &mut Vec::new());
        assert_eq!(parser.last_id(), "");
        parser.push(b"id: 9\n\nid: \0\n\n", &mut Vec::new());
        assert_eq!(parser.last_id(), "9");
    }

    /// Lines as streams have them, with every way to end one.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let field = prop::sample::select(vec!["data", "event", "id", "retry", "", "other", "\u{feff}data"]);
        let line = (field, "[ :a-z0-9é]{0,6}", prop::bool::ANY);
        let line = line.prop_map(|(field, value, colon)| format!("{field}{}{value}", if colon { ":" } else { "" }));
        let end = prop::sample::select(vec!["\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r"]);
        prop::collection::vec((line, end), 0..12).prop_map(|lines| {
            lines.into_iter().flat_map(|(line, end)| [line.into_bytes(), end.as_bytes().to_vec()].concat()).collect()
        })
    }

    proptest! {
        #[test]
        fn wherever_it_is_cut_it_says_the_same(stream in streams(), cuts in prop::collection::vec(0usize..200, 0..20)) {
            let (whole, known) = read(&stream);
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts.into_iter().chain([stream.len()]) {
                parser.push(&stream[from..cut], &mut events);
                from = cut;
            }
            prop_assert_eq!(events, whole);
            prop_assert_eq!((parser.last_id(), parser.retry()), (known.last_id(), known.retry()));
        }

        #[test]
        fn however_its_lines_end_it_says_the_same(stream in "(data: [a-z]{0,3}\n|event: [a-z]{1,3}\n|\n|id: [0-9]\n){0,12}") {
            let with = |end: &str| read(stream.replace('\n', end).as_bytes()).0;
            prop_assert_eq!(with("\n"), with("\r"));
            prop_assert_eq!(with("\n"), with("\r\n"));
        }
    }
}
