//! Templates to nodes. Owns the grammar, with its messages; must not look at objects.

use super::{Filter, Node, PathError, Slice, error};

/// How deeply filters and unions may nest.
const MAX_DEPTH: usize = 32;

/// The nodes of a template: pieces of text, and one list for each pair of braces.
pub(super) fn template(text: &str, depth: usize) -> Result<Vec<Node>, PathError> {
    if depth > MAX_DEPTH {
        return error("expression is nested too deeply");
    }
    let mut parser = Parser { text, at: 0, depth };
    let mut nodes = Vec::new();
    loop {
        let rest = parser.rest();
        let open = rest.find('{').unwrap_or(rest.len());
        let (before, action) = rest.split_at(open);
        if !before.is_empty() {
            nodes.push(Node::Text(before.to_owned()));
        }
        if action.is_empty() {
            return Ok(nodes);
        }
        parser.at += open + 1;
        nodes.push(Node::List(parser.action()?));
    }
}

/// The nodes of one expression.
fn expression(text: &str, depth: usize) -> Result<Vec<Node>, PathError> {
    let nodes = template(&format!("{{{text}}}"), depth + 1)?;
    match nodes.into_iter().next() {
        Some(Node::List(nodes)) => Ok(nodes),
        _ => error("unclosed action"),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes, at a character's start.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Text from `start` up to here.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// From behind an opening brace to behind its closing one.
    fn action(&mut self) -> Result<Vec<Node>, PathError> {
        let mut nodes = Vec::new();
        loop {
            if self.rest().starts_with("[?(") {
                self.at += 3;
                nodes.push(self.filter()?);
                continue;
            }
            if self.rest().starts_with("..") {
                self.recursive(&mut nodes)?;
                continue;
            }
            match self.peek() {
                None | Some('\r' | '\n') => return error("unclosed action"),
                Some('}') => {
                    self.at += 1;
                    return Ok(nodes);
                }
                Some(' ' | '@' | '$') => self.at += 1,
                Some('[') => self.array(&mut nodes)?,
                Some(quote @ ('"' | '\'')) => nodes.push(self.quoted(quote)?),
                Some('.') => {
                    self.at += 1;
                    nodes.push(self.field());
                }
                Some(c) if c == '+' || c == '-' || c.is_numeric() => nodes.push(self.number()?),
                Some(c) if is_word(c) => nodes.push(self.identifier()),
                Some(c) => {
                    return error(format!(
                        "unrecognized character in action: U+{:04X} '{c}'",
                        u32::from(c)
                    ));
                }
            }
        }
    }

    fn recursive(&mut self, nodes: &mut Vec<Node>) -> Result<(), PathError> {
        if nodes.last() == Some(&Node::Recursive) {
            return error("invalid multiple recursive descent");
        }
        self.at += 2;
        nodes.push(Node::Recursive);
        if self.peek().is_some_and(is_word) {
            nodes.push(self.field());
        }
        Ok(())
    }

    fn field(&mut self) -> Node {
        let mut name = String::new();
        let start = self.at;
        while let Some(c) = self.peek() {
            if is_terminator(c) {
                break;
            }
            self.at += c.len_utf8();
            if c != '\\' {
                name.push(c);
            } else if let Some(escaped) = self.next().filter(|c| *c != '\\') {
                name.push(escaped);
            }
        }
        if self.since(start) == "*" {
            Node::Wildcard
        } else {
            Node::Field(name)
        }
    }

    fn identifier(&mut self) -> Node {
        let start = self.at;
        while self.peek().is_some_and(|c| !is_terminator(c)) {
            self.next();
        }
        match self.since(start) {
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            name => Node::Identifier(name.to_owned()),
        }
    }

    fn number(&mut self) -> Result<Node, PathError> {
        let start = self.at;
        self.next();
        while self.peek().is_some_and(|c| c == '.' || c.is_numeric()) {
            self.next();
        }
        let text = self.since(start);
        let plain = text.strip_prefix('+').unwrap_or(text);
        let number = plain.parse::<i64>().ok().map(Into::into);
        let number = number.or_else(|| {
            let float = plain.parse::<f64>().ok()?;
            serde_json::Number::from_f64(float)
        });
        number.map_or_else(
            || error(format!("cannot parse number {text}")),
            |number| Ok(Node::Number(number)),
        )
    }

    fn quoted(&mut self, quote: char) -> Result<Node, PathError> {
        let start = self.at;
        self.next();
        let mut before = quote;
        loop {
            match self.next() {
                None | Some('\n') => return error("unterminated quoted string"),
                Some(c) if c == quote && before != '\\' => break,
                Some(c) => before = c,
            }
        }
        let text = self.since(start);
        match unquote(text, quote) {
            Some(value) => Ok(Node::Text(value)),
            None => error(format!("unquote string {text} error invalid syntax")),
        }
    }

    /// An index, a slice, a key in quotes, or several of them.
    fn array(&mut self, nodes: &mut Vec<Node>) -> Result<(), PathError> {
        self.next();
        let start = self.at;
        let inner = loop {
            match self.next() {
                None | Some('\n') => return error("unterminated array"),
                Some(']') => break self.text.get(start..self.at - 1).unwrap_or_default(),
                Some(_) => {}
            }
        };
        if inner.contains(',') {
            let parts = inner
                .split(',')
                .map(|part| expression(&format!("[{}]", part.trim_matches(' ')), self.depth));
            nodes.push(Node::Union(parts.collect::<Result<_, _>>()?));
            return Ok(());
        }
        let key = inner
            .strip_prefix('\'')
            .and_then(|key| key.strip_suffix('\''));
        if let Some(key) = key.filter(|key| !key.contains('\'')) {
            nodes.extend(expression(&format!(".{key}"), self.depth)?);
            return Ok(());
        }
        nodes.push(Node::Slice(slice(inner)?));
        Ok(())
    }

    /// Behind `[?(`, to behind `)]`.
    fn filter(&mut self) -> Result<Node, PathError> {
        let start = self.at;
        // In a comparison quotes stand around one side only, so one pair is all that has to be told apart.
        let (mut quote, mut closed) = (None, false);
        let mut before = ' ';
        loop {
            match self.next() {
                None | Some('\n') => return error("unterminated filter"),
                Some(c @ ('"' | '\'')) => {
                    match quote {
                        None => quote = Some(c),
                        Some(open) if open == c && before != '\\' => closed = true,
                        Some(_) => {}
                    }
                    before = c;
                }
                Some(')') if quote.is_some() == closed => break,
                Some(c) => before = c,
            }
        }
        let text = self.text.get(start..self.at - 1).unwrap_or_default();
        if self.next() != Some(']') {
            return error("unclosed array expect ]");
        }
        let filter = match comparison(text) {
            Some((left, operator, right)) => Filter {
                left: expression(left, self.depth)?,
                right: expression(right, self.depth)?,
                operator: operator.to_owned(),
            },
            None => Filter {
                left: expression(text, self.depth)?,
                right: Vec::new(),
                operator: "exists".to_owned(),
            },
        };
        Ok(Node::Filter(Box::new(filter)))
    }
}

/// Left side, operator and right side, if there is an operator.
fn comparison(text: &str) -> Option<(&str, &str, &str)> {
    const SIGNS: [char; 4] = ['!', '<', '>', '='];
    let at = text.find(SIGNS).filter(|at| *at > 0)?;
    let (left, rest) = text.split_at(at);
    let right = rest.trim_start_matches(SIGNS);
    let mut length = rest.len() - right.len();
    if right.is_empty() {
        length -= 1;
    }
    if length == 0 {
        return None;
    }
    let (operator, right) = rest.split_at(length);
    Some((left, operator, right))
}

fn slice(text: &str) -> Result<Slice, PathError> {
    let wrong = || PathError(format!("invalid array index {text}"));
    let parts: Vec<&str> = if text == "*" {
        vec!["", ""]
    } else {
        text.split(':').collect()
    };
    if parts.len() > 3 {
        return Err(wrong());
    }
    let number = |part: Option<&&str>| -> Result<Option<i64>, PathError> {
        let Some(part) = part.filter(|part| !part.is_empty()) else {
            return Ok(None);
        };
        let digits = part.strip_prefix('-').unwrap_or(part);
        if !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(wrong());
        }
        let parsed = part.parse().map(Some);
        parsed.map_err(|_| PathError(format!("array index {part} is not a number")))
    };
    let single = parts.len() == 1;
    let from = number(parts.first())?;
    let to = if single {
        Some(from.unwrap_or(0).saturating_add(1))
    } else {
        number(parts.get(1))?
    };
    Ok(Slice {
        from,
        to,
        step: number(parts.get(2))?,
        single,
    })
}

/// A quoted string's value, with Go's escapes; `None` when one of them is wrong.
fn unquote(text: &str, quote: char) -> Option<String> {
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = rest.next()?;
        let value = match escape {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' => '\\',
            'x' => coded(&mut rest, "", 2, 16)?,
            'u' => coded(&mut rest, "", 4, 16)?,
            'U' => coded(&mut rest, "", 8, 16)?,
            '0'..='7' => coded(&mut rest, escape.encode_utf8(&mut [0; 4]), 2, 8)?,
            c if c == quote => c,
            _ => return None,
        };
        out.push(value);
    }
    Some(out)
}

/// The character whose number is `first` and the next `count` digits.
fn coded(rest: &mut std::str::Chars<'_>, first: &str, count: usize, radix: u32) -> Option<char> {
    let digits: String = first.chars().chain(rest.take(count)).collect();
    let complete = digits.len() == first.len() + count && digits.chars().all(|c| c.is_digit(radix));
    let number = u32::from_str_radix(&digits, radix).ok()?;
    char::from_u32(number).filter(|_| complete)
}

fn is_terminator(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}'
    )
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
