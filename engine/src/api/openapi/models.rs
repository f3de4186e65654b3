//! Read models: a path for their rows, and one for the row of a key.

use serde_json::{Map, Value, json};

use super::columns;
use crate::query::Limits;
use crate::read_model::ReadModel;

/// The schema of a row.
pub(super) fn row(model: &ReadModel) -> Value {
    let properties: Map<String, Value> = (model.columns.iter())
        .map(|column| (column.name.clone(), columns::schema(column)))
        .collect();
    let required: Vec<&str> = model.columns.iter().map(|column| &*column.name).collect();
    json!({
        "type": "object",
        "description": model.comment.as_deref().unwrap_or_default(),
        "properties": properties,
        "required": required,
    })
}

/// The paths of a read model.
pub(super) fn paths(model: &ReadModel, tag: &str) -> [(String, Value); 2] {
    let name = &model.name;
    let key: Vec<String> = (model.key_columns())
        .map(|column| format!("{{{}}}", column.name))
        .collect();
    [
        (format!("/read/{name}"), rows(model, tag)),
        (format!("/read/{name}/{}", key.join(",")), one(model, tag)),
    ]
}

const PAGE: [&str; 12] = [
    "Select",
    "Order",
    "Limit",
    "Offset",
    "Cursor",
    "And",
    "Or",
    "AsOf",
    "MinPosition",
    "Wait",
    "Prefer",
    "IfNoneMatch",
];
const SINGLE: [&str; 6] = [
    "Select",
    "AsOf",
    "MinPosition",
    "Wait",
    "Prefer",
    "IfNoneMatch",
];

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn response(name: &str) -> Value {
    json!({ "$ref": format!("#/components/responses/{name}") })
}

fn rows(model: &ReadModel, tag: &str) -> Value {
    let name = &model.name;
    let row = row_of(name);
    let mut parameters: Vec<Value> = PAGE.map(parameter).to_vec();
    parameters.extend(model.columns.iter().map(columns::filter));
    json!({ "get": {
        "operationId": format!("read_{name}"),
        "tags": [tag],
        "summary": summary(model, "Rows"),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The rows.",
                "headers": headers(&["ContentRange", "Link", "NextCursor"]),
                "content": {
                    "application/json": { "schema": { "type": "array", "items": row } },
                    "application/vnd.pgrst.object+json": { "schema": row },
                },
            },
            "304": not_modified(),
            "400": response("BadQuery"),
            "404": response("NoSuchPast"),
            "406": response("NotAcceptable"),
            "504": response("Slow"),
        },
    }})
}

fn one(model: &ReadModel, tag: &str) -> Value {
    let name = &model.name;
    let row = row_of(name);
    let mut parameters: Vec<Value> = (model.key_columns())
        .map(|column| {
            let mut schema = columns::schema(column);
            let about = schema["description"].take();
            json!({
                "name": column.name,
                "in": "path",
                "required": true,
                "description": about,
                "schema": { "type": "string", "minLength": 1 },
                "example": columns::example(column.kind),
            })
        })
        .collect();
    parameters.extend(SINGLE.map(parameter));
    json!({ "get": {
        "operationId": format!("read_{name}_by_key"),
        "tags": [tag],
        "summary": summary(model, "The row of a key"),
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The row.",
                "headers": headers(&[]),
                "content": {
                    "application/json": { "schema": row },
                    "application/vnd.pgrst.object+json": { "schema": row },
                },
            },
            "304": not_modified(),
            "400": response("BadQuery"),
            "404": response("NoRow"),
            "406": response("NotAcceptable"),
            "504": response("Slow"),
        },
    }})
}

fn summary(model: &ReadModel, what: &str) -> String {
    match model
        .comment
        .as_deref()
        .and_then(|text| text.lines().next())
    {
        None => format!("{what} of `{}`", model.name),
        Some(comment) => format!("{what} of `{}`: {comment}", model.name),
    }
}

/// A row as it is declared, or with what `select` asked for.
fn row_of(name: &str) -> Value {
    json!({ "anyOf": [
        { "$ref": format!("#/components/schemas/{name}") },
        { "$ref": "#/components/schemas/Selected" },
    ]})
}

fn not_modified() -> Value {
    json!({ "description": "The rows are those that you have.", "headers": headers(&[]) })
}

/// What every answer says of its freshness, and what this one says besides.
fn headers(more: &[&str]) -> Value {
    let all = [
        ("Position", "Gobo-Position"),
        ("HeadPosition", "Gobo-Head-Position"),
        ("Generation", "Gobo-Generation"),
        ("Revision", "Gobo-Revision"),
        ("LagSeconds", "Gobo-Lag-Seconds"),
        ("DeadLetters", "Gobo-Dead-Letters"),
        ("Stale", "Gobo-Stale"),
        ("ETag", "ETag"),
        ("ContentRange", "Content-Range"),
        ("Link", "Link"),
        ("NextCursor", "Gobo-Next-Cursor"),
    ];
    let wanted = (all.iter().enumerate())
        .filter(|(place, (name, _))| *place < 8 || more.contains(name))
        .map(|(_, (name, header))| {
            let reference = json!({ "$ref": format!("#/components/headers/{name}") });
            ((*header).to_owned(), reference)
        });
    Value::Object(wanted.collect())
}

/// Says what this engine's configuration allows.
pub(super) fn limits(parameters: &mut Map<String, Value>, limits: &Limits) {
    let about = format!(
        "At most so many rows; without it, and beyond it, {}.",
        limits.rows
    );
    for (name, about) in [
        ("Limit", about),
        (
            "Wait",
            format!(
                "How long to wait for `min_position`: `2s`, `200ms`; by default {} s, at most {} s.",
                limits.default_wait.as_secs_f64(),
                limits.wait.as_secs_f64()
            ),
        ),
    ] {
        if let Some(parameter) = parameters.get_mut(name) {
            parameter["description"] = json!(about);
        }
    }
}
