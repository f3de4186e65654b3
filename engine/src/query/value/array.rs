//! PostgreSQL's array literals, of one dimension.

use super::Misfit;

/// The elements of `{a,"b c",NULL}`; `None` stands for NULL.
pub(in crate::query) fn read(text: &str) -> Result<Vec<Option<String>>, Misfit> {
    let malformed =
        || Misfit("write an array as {a,b}, and elements with , { } or \" in double quotes".into());
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .ok_or_else(malformed)?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut characters = inner.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut element = String::new();
        let is_quoted = characters.next_if_eq(&'"').is_some();
        if is_quoted {
            loop {
                match characters.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => element.push(characters.next().ok_or_else(malformed)?),
                    other => element.push(other),
                }
            }
            while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        } else {
            // What a backslash takes as it is does not count as a blank at the end.
            let mut kept = 0;
            while let Some(character) = characters.next_if(|c| *c != ',') {
                match character {
                    '{' | '}' | '"' => return Err(malformed()),
                    '\\' => {
                        element.push(characters.next().ok_or_else(malformed)?);
                        kept = element.len();
                    }
                    other => element.push(other),
                }
            }
            let blank = |c: char| c.is_ascii_whitespace();
            element.truncate(element.trim_end_matches(blank).len().max(kept));
            if element.is_empty() {
                return Err(malformed());
            }
        }
        let is_null = !is_quoted && element.eq_ignore_ascii_case("null");
        elements.push((!is_null).then_some(element));
        match characters.next() {
            None => return Ok(elements),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

/// An array literal in which every element is quoted.
pub(in crate::query) fn write<T: AsRef<str>>(
    elements: impl IntoIterator<Item = Option<T>>,
) -> String {
    let quoted: Vec<String> = elements
        .into_iter()
        .map(|element| match element {
            Some(text) => {
                let escaped = text.as_ref().replace('\\', "\\\\").replace('"', "\\\"");
                format!("\"{escaped}\"")
            }
            None => "NULL".to_owned(),
        })
        .collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_are_read_as_postgresql_reads_them() {
        let check = |text: &str, expected: Option<&[Option<&str>]>| {
            let found = read(text).ok();
            let found: Option<Vec<Option<&str>>> = found
                .as_ref()
                .map(|f| f.iter().map(Option::as_deref).collect());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("{}", Some(&[]));
        check("{ }", Some(&[]));
        check("{1, 2 ,null}", Some(&[Some("1"), Some("2"), None]));
        check("{\"null\",\"\"}", Some(&[Some("null"), Some("")]));
        check(
            "{a b,\"c,}\\\"\\\\\" ,\\{}",
            Some(&[Some("a b"), Some("c,}\"\\"), Some("{")]),
        );
        check("{a\\ }", Some(&[Some("a ")]));
        for malformed in [
            "", "1,2", "{1", "{,}", "{1,}", "{\"a}", "{\"a\"b}", "{{1}}", "{a}b}", "{a\\", "{a\\}",
        ] {
            check(malformed, None);
        }
        assert_eq!(write([Some("a\"b\\c"), None]), "{\"a\\\"b\\\\c\",NULL}");
    }
}
