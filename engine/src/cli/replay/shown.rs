//! A replay as text.

use std::fmt::Write;

use super::frame::Report;
use crate::host::Frame;

/// Changes that are shown; JSON has all.
const MOST_CHANGES: usize = 50;

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    plain(&text)
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report {
        position,
        stream_id,
        kind,
        projection,
        generation,
        ..
    } = report;
    writeln!(
        text,
        "event {position} of stream \"{stream_id}\", type {kind}, in projection {projection}, generation {generation}"
    )?;
    if let Some(event) = &report.event {
        writeln!(text, "{}", pretty(event.get()))?;
    }
    let (then, now) = (&report.recorded, &report.plugin);
    let (name, version, hash) = (&then.plugin.name, &then.plugin.version, &then.plugin.hash);
    writeln!(text, "\nfailed   {}", then.failed_at)?;
    writeln!(text, "         {name} {version}, sha256 {hash}")?;
    writeln!(text, "         {}", indented(&then.error.message))?;
    let (name, version, hash) = (&now.name, &now.version, &now.hash);
    writeln!(text, "now      {name} {version}, sha256 {hash}")?;
    let bytes = match report.same_bytes {
        true => "the same bytes",
        false => "these are other bytes",
    };
    writeln!(text, "         {bytes}")?;
    match &report.error {
        None => writeln!(text, "         the plugin processes the event")?,
        Some(error) if *error == then.error.message => {
            writeln!(text, "         fails with the same error")?;
        }
        Some(error) => writeln!(text, "         fails: {}", indented(error))?,
    }
    if !report.logs.is_empty() {
        writeln!(text, "\nlog of the plugin")?;
    }
    for line in &report.logs {
        writeln!(text, "  {:5}  {}", line.level, indented(&line.message))?;
    }
    backtrace(text, &report.backtrace)?;
    if report.error.is_none() && report.changes.is_empty() {
        writeln!(text, "\nno changes")?;
    } else if !report.changes.is_empty() {
        writeln!(text, "\nchanges")?;
    }
    for change in report.changes.iter().take(MOST_CHANGES) {
        let row = change.row.as_ref().map_or("", |row| row.get());
        let (operation, read_model) = (change.operation, &change.read_model);
        writeln!(text, "  {operation} {read_model} {}", pretty(row))?;
    }
    if report.changes.len() > MOST_CHANGES {
        let more = report.changes.len() - MOST_CHANGES;
        writeln!(text, "  and {more} more (--json shows all)")?;
    }
    for note in &report.notes {
        writeln!(text, "\nnote: {note}")?;
    }
    Ok(())
}

/// The author's own functions, with the place of each if the module tells.
fn backtrace(text: &mut String, frames: &[Frame]) -> std::fmt::Result {
    let shown: Vec<_> = frames
        .iter()
        .filter(|frame| frame.is_of_interest())
        .collect();
    if frames.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nbacktrace, innermost function first")?;
    for (number, frame) in shown.iter().enumerate() {
        writeln!(text, "{number:>4}  {}", frame.function)?;
        if let (Some(file), Some(line)) = (&frame.file, frame.line) {
            let column = frame.column.unwrap_or(0);
            writeln!(text, "        at {file}:{line}:{column}")?;
        }
    }
    let left_out = frames.len() - shown.len();
    if left_out > 0 {
        writeln!(
            text,
            "      ({left_out} of Rust's own left out; --json shows all)"
        )?;
    }
    if frames.iter().all(|frame| frame.file.is_none()) {
        writeln!(
            text,
            "      (for files and lines, set debug = \"line-tables-only\" in the profile and build again)"
        )?;
    }
    Ok(())
}

/// JSON on lines of its own, every number and string as it was.
fn pretty(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().filter({
        let (mut in_string, mut escaped) = (false, false);
        // Blanks between tokens go; those in strings stay.
        move |c| {
            let keep = in_string || !c.is_ascii_whitespace();
            match c {
                '"' if !escaped => in_string = !in_string,
                _ => {}
            }
            escaped = in_string && *c == '\\' && !escaped;
            keep
        }
    });
    let mut next = rest.next();
    while let Some(c) = next {
        next = rest.next();
        if in_string {
            text.push(c);
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
            continue;
        }
        let line = |text: &mut String, depth| {
            text.push('\n');
            text.extend(std::iter::repeat_n("  ", depth));
        };
        match c {
            '{' | '[' if !matches!(next, Some('}' | ']')) => {
                depth += 1;
                text.push(c);
                line(&mut text, depth);
            }
            '}' | ']' => {
                if !text.ends_with(['{', '[']) {
                    depth = depth.saturating_sub(1);
                    line(&mut text, depth);
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

fn indented(message: &str) -> String {
    message.replace('\n', "\n         ")
}

/// Nothing of an event or a plugin may steer the terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c != '\n' && (c.is_control() || turns) {
            true => plain.extend(c.escape_unicode()),
            false => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_its_values_stay_as_they_are() {
        for (json, expected) in [
            ("{}", "{}"),
            ("[ ]", "[]"),
            ("12345678901234567890.10", "12345678901234567890.10"),
            (
                r#"{"a":[1, 2],"b":{},"c":"x: {\"y\", \\"}"#,
                "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {},\n  \"c\": \"x: {\\\"y\\\", \\\\\"\n}",
            ),
            (
                r#"{ "a" : [ { "b" : [ ] } ] }"#,
                "{\n  \"a\": [\n    {\n      \"b\": []\n    }\n  ]\n}",
            ),
        ] {
            assert_eq!(pretty(json), expected, "{json}");
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\nb\\u{202e}");
    }
}
