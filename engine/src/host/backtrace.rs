//! Where a plugin was when a call of it failed: the names are in the module, files and lines when it has line tables
//! (`debug = "line-tables-only"` in the profile that it is built with).

use serde::{Deserialize, Serialize};
use wasmtime::WasmBacktrace;

/// A function on the stack of a plugin, the innermost first. What the compiler inlined has frames of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function's name, as the author wrote it; its number when the module has no names.
    pub function: String,
    /// The source file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The instruction's place in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

/// Rust's own crates, which tell an author nothing.
const RUST: [&str; 6] = ["core::", "std::", "alloc::", "rust_", "__rust", "_rust"];

impl Frame {
    /// Whether the author, or a library that the author chose, wrote it.
    pub fn is_of_interest(&self) -> bool {
        match &self.file {
            // Where the standard library was built.
            Some(file) => !file.starts_with("/rustc/"),
            None => {
                let name = self.function.trim_start_matches(['<', '&']);
                !RUST.iter().any(|own| name.starts_with(own))
            }
        }
    }

    /// Name and line, without what a module or a type is called in full.
    fn in_short(&self) -> String {
        let name = match self.function.find('<') {
            Some(generics) if generics > 0 => &self.function[..generics],
            _ => &self.function,
        };
        let (Some(file), Some(line)) = (&self.file, self.line) else {
            return name.to_owned();
        };
        // The crate's folder and what is below it.
        let start = (file.rfind("/src/")).and_then(|src| file[..src].rfind('/'));
        let file = start.map_or(file.as_str(), |start| &file[start + 1..]);
        format!("{name} ({file}:{line})")
    }
}

/// The stack that comes with a failed call; empty when the call failed without running the plugin.
pub(super) fn frames(error: &wasmtime::Error) -> Vec<Frame> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let mut frames = Vec::new();
    for found in trace.frames() {
        let number = format!("<function {}>", found.func_index());
        let whole = found.func_name().map_or(number, demangled);
        let offset = found.module_offset();
        let symbols = found.symbols();
        let inlined = symbols.iter().enumerate().map(|(number, symbol)| Frame {
            // Line tables have the last part of a name only. What others were inlined into is the last symbol.
            function: match symbol.name() {
                Some(name) if number + 1 < symbols.len() => demangled(name),
                _ => whole.clone(),
            },
            file: symbol.file().map(str::to_owned),
            line: symbol.line(),
            column: symbol.column(),
            offset,
        });
        let before = frames.len();
        frames.extend(inlined);
        if frames.len() == before {
            frames.push(Frame {
                function: whole,
                file: None,
                line: None,
                column: None,
                offset,
            });
        }
    }
    frames
}

/// The innermost functions that are the author's business, for a message.
pub(super) fn in_short(frames: &[Frame]) -> String {
    const MOST: usize = 4;
    let mut text = String::new();
    let author = frames.iter().filter(|frame| frame.is_of_interest());
    for (number, frame) in author.take(MOST).enumerate() {
        text.push_str(if number == 0 { "; in " } else { ", called by " });
        text.push_str(&frame.in_short());
    }
    text
}

fn demangled(name: &str) -> String {
    // The alternate form leaves the compiler's hash out.
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_author_s_functions() {
        let frame = |function: &str, file: Option<&str>| Frame {
            function: function.into(),
            file: file.map(str::to_owned),
            line: file.map(|_| 7),
            column: None,
            offset: None,
        };
        let frames = [
            frame("core::panicking::panic", None),
            frame("abort", Some("/rustc/abc/library/std/src/process.rs")),
            frame(
                "fill<a::B>",
                Some("/home/me/shop/plugins/orders/src/fill.rs"),
            ),
            frame(
                "<orders::Orders as gobo_sdk::Projection>::handle",
                Some("lib.rs"),
            ),
            frame("<function 12>", None),
        ];
        assert_eq!(
            in_short(&frames),
            "; in fill (orders/src/fill.rs:7), called by <orders::Orders as gobo_sdk::Projection>::handle (lib.rs:7), \
             called by <function 12>"
        );
    }
}
