//! What `describe` says about a projection (`wit/DESCRIPTOR.md`).

use serde::Serialize;

use crate::read_model::{ColumnInfo, Reference, Table, Visit};
use crate::{Events, Exported, OnChange, ReadModel, ReadModels};

#[derive(Serialize)]
struct Descriptor {
    descriptor: u32,
    name: &'static str,
    version: &'static str,
    sdk: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_types: Option<&'static [&'static str]>,
    on_change: &'static str,
    read_models: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'static str,
    per_stream: bool,
    columns: Vec<Column>,
    key: Vec<&'static str>,
    indexes: Vec<Index>,
    #[serde(skip_serializing_if = "<[Reference]>::is_empty")]
    references: &'static [Reference],
}

#[derive(Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    column: String,
    nullable: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'static str,
}

#[derive(Serialize)]
struct Index {
    columns: &'static [&'static str],
}

impl Column {
    fn new(info: &ColumnInfo) -> Self {
        Self {
            name: info.name,
            column: info.column.name().into_owned(),
            nullable: info.nullable,
            comment: info.comment,
        }
    }
}

impl Model {
    fn new(table: &Table) -> Self {
        Self {
            name: table.name,
            comment: table.comment,
            per_stream: table.per_stream,
            columns: table.columns.iter().map(Column::new).collect(),
            key: table
                .key
                .iter()
                .map(|place| table.columns[*place].name)
                .collect(),
            indexes: table
                .indexes
                .iter()
                .map(|columns| Index { columns })
                .collect(),
            references: table.references,
        }
    }
}

struct Models(Vec<Model>);

impl Visit for Models {
    fn read_model<R: ReadModel>(&mut self) {
        self.0.push(Model::new(&R::TABLE));
    }
}

/// The descriptor of a projection, as JSON.
#[must_use]
pub fn describe<P: Exported>() -> String {
    let mut models = Models(Vec::new());
    P::ReadModels::visit(&mut models);
    let descriptor = Descriptor {
        descriptor: 1,
        name: P::NAME,
        version: P::VERSION,
        sdk: concat!("gobo-sdk ", env!("CARGO_PKG_VERSION")),
        event_types: <P::Event<'static> as Events<'static>>::TYPES,
        on_change: match P::ON_CHANGE {
            OnChange::Rebuild => "rebuild",
            OnChange::Continue => "continue",
        },
        read_models: models.0,
    };
    // Strings, numbers and lists always have a JSON form; were it otherwise, the engine would refuse the empty text.
    serde_json::to_string_pretty(&descriptor).unwrap_or_default()
}
