//! Rust text as the rules need it: the code without comments, strings and test modules; and the comments alone. Owns
//! just enough of Rust's lexical rules for that (Rust reference, "Lexical structure"); lines keep their numbers.

/// A file taken apart; each part has the lines of the original, with blanks for what is not in it.
pub(crate) struct Source {
    /// Code outside tests.
    pub(crate) code: String,
    /// Comments, tests' included.
    pub(crate) comments: String,
    /// Lines that are not in a test module.
    pub(crate) lines: usize,
}

/// What a character belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes `text` apart.
    pub(crate) fn read(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let parts = parts(&chars);
        let only = |part: Part| -> String {
            let kept = chars.iter().zip(&parts);
            kept.map(|(c, is)| if *is == part || *c == '\n' { *c } else { ' ' })
                .collect()
        };
        let (code, in_tests) = without_tests(&only(Part::Code));
        Self {
            code,
            comments: only(Part::Comment),
            lines: text.lines().count() - in_tests,
        }
    }
}

/// The part of each character.
fn parts(chars: &[char]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(chars.len());
    while let Some(rest) = chars.get(parts.len()..).filter(|rest| !rest.is_empty()) {
        let before = parts
            .len()
            .checked_sub(1)
            .and_then(|place| chars.get(place))
            .copied();
        let (part, length) = token(rest, before);
        parts.resize(parts.len() + length.clamp(1, rest.len()), part);
    }
    parts
}

/// The part and length of what `rest` begins with.
fn token(rest: &[char], before: Option<char>) -> (Part, usize) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest {
        ['/', '/', ..] => (
            Part::Comment,
            rest.iter().take_while(|c| **c != '\n').count(),
        ),
        ['/', '*', ..] => (Part::Comment, block_comment(rest)),
        ['"', ..] => (Part::Literal, quoted(rest, '"')),
        ['r' | 'b' | 'c', ..] if !in_word => match raw_string(rest) {
            Some(length) => (Part::Literal, length),
            None => (Part::Code, 1),
        },
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => (Part::Literal, quoted(rest, '\'')),
        _ => (Part::Code, 1),
    }
}

/// Block comments nest.
fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut place = 0;
    while let Some(pair) = rest.get(place..place + 2) {
        match pair {
            ['/', '*'] => depth += 1,
            ['*', '/'] => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return place;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut place = 1;
    while let Some(c) = rest.get(place) {
        place += match c {
            '\\' => 2,
            c if *c == quote => return place + 1,
            _ => 1,
        };
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br#"…"#` and the like, if `rest` begins with one.
fn raw_string(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| matches!(c, 'b' | 'c')).count();
    let rest = rest.get(prefix..)?.strip_prefix(&['r'])?;
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    let body = rest.get(hashes..)?.strip_prefix(&['"'])?;
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let length = body
        .windows(end.len())
        .position(|window| window == end)
        .map_or(body.len(), |at| at + end.len());
    Some(prefix + 1 + hashes + 1 + length)
}

/// The code without `#[cfg(test)] mod NAME { … }`, and how many lines those had.
fn without_tests(code: &str) -> (String, usize) {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    let mut lines = 0;
    while let Some(at) = rest.find(MARK) {
        let (before, tests) = rest.split_at(at);
        let length = test_module(tests).unwrap_or(MARK.len());
        let (tests, after) = tests.split_at(length);
        kept.push_str(before);
        kept.extend(tests.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        if length > MARK.len() {
            lines += tests.lines().count();
        }
        rest = after;
    }
    kept.push_str(rest);
    (kept, lines)
}

/// The length of the module with a body that `tests` begins with, its attribute included.
fn test_module(tests: &str) -> Option<usize> {
    let open = tests.find('{')?;
    let head = tests.get(..open)?;
    if head.contains(';') || !head.split_whitespace().any(|word| word == "mod") {
        return None;
    }
    let mut depth = 0_usize;
    for (place, c) in tests.char_indices().skip_while(|(place, _)| *place < open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(place + 1);
        }
    }
    None
}
