//! Request templates: text with `${variables}`, compiled once and rendered for each request without parsing.

/// A variable that a template may use: a few are always there, the rest are captured from earlier replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// `${user}`: the buyer's name.
    User,
    /// `${key}`: the idempotency key of this purchase; retries share it.
    Key,
    /// `${item}`: the item's number.
    Item,
    /// `${quantity}`: units wanted.
    Quantity,
    /// Anything else: the slot of a captured value.
    Captured(usize),
}

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Sent as it stands.
    Text(Box<str>),
    /// Replaced at each rendering.
    Variable(Variable),
    /// The same, encoded as a value of a form.
    Encoded(Variable),
    /// The same within a string of a JSON body.
    InString(Variable),
}

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub Vec<Piece>);

/// The values that a template is rendered with.
#[derive(Debug)]
pub struct Values<'a> {
    /// The buyer's name.
    pub user: &'a str,
    /// The idempotency key.
    pub key: &'a str,
    /// The item.
    pub item: i64,
    /// Units wanted.
    pub quantity: i32,
    /// Captured values by slot; empty where nothing was captured yet.
    pub captured: &'a [String],
    /// What the `cookie` header says; empty if it is not sent.
    pub cookies: &'a str,
}

impl Values<'_> {
    fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        match variable {
            Variable::User => out.extend_from_slice(self.user.as_bytes()),
            Variable::Key => out.extend_from_slice(self.key.as_bytes()),
            Variable::Item => out.extend_from_slice(number.format(self.item).as_bytes()),
            Variable::Quantity => out.extend_from_slice(number.format(self.quantity).as_bytes()),
            Variable::Captured(slot) => {
                out.extend_from_slice(self.captured.get(*slot).map_or(&b""[..], |v| v.as_bytes()));
            }
        }
    }
}

/// The variables that are there without being captured.
pub(super) const BUILT_IN: [&str; 4] = ["user", "key", "item", "quantity"];

impl Template {
    /// Compiles a template. `slot` gives the slot of a captured variable's name.
    ///
    /// # Errors
    /// Names the variable that is unknown, or the brace that is not closed.
    pub fn compile(text: &str, slot: &mut dyn FnMut(&str) -> Option<usize>) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if start > 0 {
                pieces.push(Piece::Text(rest[..start].into()));
            }
            let after = &rest[start + 2..];
            let end = after.find('}').ok_or_else(|| format!("`${{` without its `}}` in `{text}`"))?;
            let name = after[..end].trim();
            let variable = match name {
                "user" => Variable::User,
                "key" => Variable::Key,
                "item" => Variable::Item,
                "quantity" => Variable::Quantity,
                other => Variable::Captured(slot(other).ok_or_else(|| unknown_variable(other))?),
            };
            pieces.push(Piece::Variable(variable));
            rest = &after[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Template(pieces))
    }

    /// Appends the rendered text.
    pub fn render(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => values.write(variable, out),
                Piece::Encoded(variable) => {
                    let mut plain = Vec::new();
                    values.write(variable, &mut plain);
                    out.extend(form_urlencoded::byte_serialize(&plain).flat_map(str::bytes));
                }
                Piece::InString(variable) => {
                    let mut plain = Vec::new();
                    values.write(variable, &mut plain);
                    let quoted = serde_json::to_vec(&String::from_utf8_lossy(&plain)).expect("a string is JSON");
                    out.extend_from_slice(&quoted[1..quoted.len() - 1]);
                }
            }
        }
    }

    /// The template of a form's value: its text is encoded now, its variables when they are known.
    pub fn encoded(self) -> Template {
        let encode = |piece| match piece {
            Piece::Text(text) => {
                Piece::Text(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().into())
            }
            Piece::Variable(variable) | Piece::Encoded(variable) | Piece::InString(variable) => {
                Piece::Encoded(variable)
            }
        };
        Template(self.0.into_iter().map(encode).collect())
    }

    /// The template of a JSON body: a captured value within quotes stays within them, whatever is in it; elsewhere it stands as
    /// it was captured, such as a number.
    pub fn json(self) -> Template {
        let (mut in_string, mut escaped) = (false, false);
        let place = |piece| match piece {
            Piece::Text(text) => {
                for byte in text.bytes() {
                    in_string ^= byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                }
                Piece::Text(text)
            }
            Piece::Variable(variable @ Variable::Captured(_)) if in_string => Piece::InString(variable),
            other => other,
        };
        Template(self.0.into_iter().map(place).collect())
    }

    /// The slots of the captured values that it sends.
    pub fn captured(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(Variable::Captured(slot))
            | Piece::Encoded(Variable::Captured(slot))
            | Piece::InString(Variable::Captured(slot)) => Some(*slot),
            _ => None,
        })
    }

    /// Whether it uses the idempotency key.
    pub fn uses_key(&self) -> bool {
        self.0.iter().any(|p| matches!(p, Piece::Variable(Variable::Key)))
    }
}

fn unknown_variable(name: &str) -> String {
    format!(
        "`${{{name}}}` is no variable: use ${{user}}, ${{key}}, ${{item}}, ${{quantity}}, or a value that an earlier step \
         of the journey captures (capture = {{ {name} = \"/json/pointer\" }})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_text_and_variables() {
        let mut slot = |name: &str| (name == "token").then_some(0);
        let template = Template::compile("/i/${item}?u=${user}&t=${token}&q=${quantity}&k=${key}", &mut slot).unwrap();
        let values = Values { user: "u1", key: "k9", item: 7, quantity: 2, captured: &["T".to_owned()], cookies: "" };
        let mut out = Vec::new();
        template.render(&values, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "/i/7?u=u1&t=T&q=2&k=k9");
        assert!(template.uses_key());
        assert_eq!(template.captured().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_forms_value_is_encoded_whatever_its_variables_hold() {
        let template = Template::compile("a&b ${user}", &mut |_| None).unwrap().encoded();
        let values = Values { user: "x=y/é", key: "", item: 7, quantity: 2, captured: &[], cookies: "" };
        let mut out = Vec::new();
        template.render(&values, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a%26b+x%3Dy%2F%C3%A9");
    }

    #[test]
    fn says_which_variable_is_unknown() {
        let error = Template::compile("/x/${nope}", &mut |_| None).unwrap_err();
        assert!(error.contains("${nope}") && error.contains("capture"), "{error}");
        assert!(Template::compile("/x/${user", &mut |_| None).unwrap_err().contains("without"));
    }

    #[test]
    fn a_captured_value_stays_where_a_json_body_has_it() {
        let mut slot = |name: &str| ["text", "number", "object"].iter().position(|known| *known == name);
        let body = r#"{"t":"${text}","say":"\"${text}\"","n":${number},"o":${object}}"#;
        let template = Template::compile(body, &mut slot).unwrap().json();
        let captured = ["a\"b\\c\u{1}".to_owned(), "17".to_owned(), r#"{"a":"b"}"#.to_owned()];
        let values = Values { user: "u", key: "k", item: 1, quantity: 1, captured: &captured, cookies: "" };
        let mut out = Vec::new();
        template.render(&values, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["t"], captured[0]);
        assert_eq!(json["say"], format!("\"{}\"", captured[0]));
        assert_eq!((json["n"].as_i64(), json["o"]["a"].as_str()), (Some(17), Some("b")));
        assert_eq!(template.captured().collect::<Vec<_>>(), [0, 0, 1, 2]);
    }
}
