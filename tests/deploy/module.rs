//! Modules made on the spot, byte by byte: what is wrong with them is meant to be.

use serde_json::{Value, json};
use wit_component::StringEncoding;
use wit_parser::Resolve;

/// The contract as it is.
const CONTRACT: &str = include_str!("../../sdk/wit/projection.wit");

/// What a module is made of. It accepts every event and changes nothing.
pub(crate) struct Module {
    /// What `describe` returns.
    pub(crate) descriptor: Value,
    /// The contract that it says it implements.
    pub(crate) contract: String,
    /// Imports, as text.
    pub(crate) imports: String,
    /// What its entry points are called.
    pub(crate) begin: &'static str,
    /// Whether it refuses every event.
    pub(crate) fails: bool,
    /// Tells builds apart that are otherwise the same.
    pub(crate) build: u32,
}

impl Module {
    /// A sound module: projection `name` with one read model of the same name.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            descriptor: json!({
                "descriptor": 1,
                "name": name,
                "version": "1.0.0",
                "read_models": [model(name)],
            }),
            contract: CONTRACT.to_owned(),
            imports: String::new(),
            begin: "begin",
            fails: false,
            build: 0,
        }
    }

    /// The same with another build number, so with other bytes.
    pub(crate) fn build(mut self, build: u32) -> Self {
        self.build = build;
        self
    }

    /// The same that refuses every event.
    pub(crate) fn failing(mut self) -> Self {
        self.fails = true;
        self
    }

    /// The same after a change of its descriptor.
    pub(crate) fn describing(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.descriptor);
        self
    }

    /// The module's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut wasm = self.core();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("projection.wit", &self.contract).unwrap();
        let world = resolve
            .select_world(&[package], Some("projection"))
            .unwrap();
        wit_component::embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8)
            .unwrap();
        wasm
    }

    /// The bytes without the section that says which contract is implemented.
    pub(crate) fn core(&self) -> Vec<u8> {
        let descriptor = self.descriptor.to_string();
        let escaped: String = descriptor
            .bytes()
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        let Self {
            imports,
            begin,
            build,
            ..
        } = self;
        // ok(done(nothing)), or the failure of event 0 with the text at 64.
        let step = match self.fails {
            false => r"\00\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00",
            true => r"\01\00\00\00\00\00\00\00\40\00\00\00\0d\00\00\00",
        };
        // At 16: where the descriptor is and how long. At 32: the step.
        wat::parse_str(format!(
            r#"(module
                {imports}
                (memory (export "memory") 4)
                (global i32 (i32.const {build}))
                (data (i32.const 16) "\00\10\00\00{length}")
                (data (i32.const 32) "{step}")
                (data (i32.const 64) "no such price")
                (data (i32.const 4096) "{escaped}")
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 131072))
                (func (export "describe") (result i32) (i32.const 16))
                (func (export "{begin}") (param i32 i32) (result i32) (i32.const 32))
                (func (export "resume") (param i32 i32) (result i32) (i32.const 32)))"#,
            length = (descriptor.len() as u32)
                .to_le_bytes()
                .map(|byte| format!("\\{byte:02x}"))
                .concat(),
        ))
        .unwrap()
    }
}

/// A read model with one of each.
pub(crate) fn model(name: &str) -> Value {
    json!({
        "name": name,
        "comment": "One row per thing; it's \"quoted\".",
        "per_stream": true,
        "columns": [
            { "name": "id", "type": "text" },
            { "name": "number", "type": "int8", "comment": "How many." },
            { "name": "tags", "type": "text[]", "nullable": true },
            { "name": "price", "type": "numeric", "nullable": true },
        ],
        "key": ["id"],
        "indexes": [{ "columns": ["number", "id"] }, { "columns": ["price"] }],
    })
}
