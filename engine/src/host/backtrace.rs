//! Where a plugin was when a call of it failed: the names are in the module, files and lines when it has line tables
//! (`debug = "line-tables-only"` in the profile that it is built with).

use std::fmt;

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

/// What Rust puts around a panic and an allocation, which tells an author nothing.
const MACHINERY: [&str; 8] = [
    "core::panicking::",
    "core::option::",
    "core::result::",
    "std::panicking::",
    "std::sys::",
    "alloc::",
    "rust_",
    "__rust",
];

impl Frame {
    /// Whether the author, or a library that the author chose, wrote it.
    pub fn is_of_interest(&self) -> bool {
        let name = self.function.trim_start_matches('<');
        !MACHINERY.iter().any(|machinery| {
            name.starts_with(machinery) || name.starts_with(&format!("_{machinery}"))
        })
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            _ => Ok(()),
        }
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
        let inlined = found.symbols().iter().map(|symbol| Frame {
            function: symbol.name().map_or_else(|| whole.clone(), demangled),
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
    const MOST: usize = 6;
    let mut text = String::new();
    let author = frames.iter().filter(|frame| frame.is_of_interest());
    for (number, frame) in author.take(MOST).enumerate() {
        text.push_str(if number == 0 { "; in " } else { ", called by " });
        text.push_str(&frame.to_string());
    }
    text
}

fn demangled(name: &str) -> String {
    // The alternate form leaves the compiler's hash out.
    format!("{:#}", rustc_demangle::demangle(name))
}
