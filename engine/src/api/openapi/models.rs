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

const PAGE: [&str; 21] = [
    "Select",
    "Order",
    "Limit",
    "Offset",
    "Cursor",
    "And",
    "Or",
    "Embedded",
    "Live",
    "LastEventId",
    "LastEventIdHeader",
    "AsOf",
    "MinPosition",
    "MinPositionHeader",
    "MaxLag",
    "Wait",
    "Prefer",
    "Range",
    "RangeUnit",
    "AcceptProfile",
    "IfNoneMatch",
];
const SINGLE: [&str; 13] = [
    "SelectOfRow",
    "Embedded",
    "Live",
    "LastEventId",
    "LastEventIdHeader",
    "AsOf",
    "MinPosition",
    "MinPositionHeader",
    "MaxLag",
    "Wait",
    "Prefer",
    "AcceptProfile",
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
    let mut parameters: Vec<Value> = PAGE.map(parameter).to_vec();
    parameters.extend(model.columns.iter().map(columns::filter));
    let responses = json!({
        "200": found(name, "The rows.", Many::All),
        "206": found(name, "Some of the rows, where all were counted.", Many::All),
        "300": response("Ambiguous"),
        "304": not_modified(),
        "400": response("BadQuery"),
        "404": response("NoSuchPast"),
        "406": response("NotAcceptable"),
        "416": response("NoSuchRange"),
        "500": response("Slow"),
        "504": response("Busy"),
    });
    methods(
        parameters,
        json!({
            "operationId": format!("read_{name}"),
            "tags": [tag],
            "summary": summary(model, "Rows"),
            "responses": responses,
        }),
    )
}

fn one(model: &ReadModel, tag: &str) -> Value {
    let name = &model.name;
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
    let responses = json!({
        "200": found(name, "The row.", Many::One),
        "300": response("Ambiguous"),
        "304": not_modified(),
        "400": response("BadQuery"),
        "404": response("NoRow"),
        "406": response("NotAcceptable"),
        "500": response("Slow"),
        "504": response("Busy"),
    });
    methods(
        parameters,
        json!({
            "operationId": format!("read_{name}_by_key"),
            "tags": [tag],
            "summary": summary(model, "The row of a key"),
            "responses": responses,
        }),
    )
}

/// The methods of a path: HEAD answers as GET does, without the rows.
fn methods(parameters: Vec<Value>, get: Value) -> Value {
    let mut head = get.clone();
    let id = get["operationId"].as_str().unwrap_or_default();
    head["operationId"] = json!(format!("{id}_headers"));
    let options = json!({
        "operationId": format!("{id}_methods"),
        "tags": get["tags"],
        "summary": "Which methods there are",
        "responses": { "200": response("Methods"), "400": response("BadQuery") },
    });
    json!({ "parameters": parameters, "get": get, "head": head, "options": options })
}

#[derive(Clone, Copy)]
enum Many {
    All,
    One,
}

/// Rows, in every form that there is.
fn found(name: &str, about: &str, many: Many) -> Value {
    let row = row_of(name);
    let rows = match many {
        Many::All => json!({ "type": "array", "items": row }),
        Many::One => row.clone(),
    };
    let component = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let content = json!({
        "application/json": { "schema": { "anyOf": [rows, component("WithMetadata"), component("Polled")] } },
        "application/vnd.pgrst.object+json": { "schema": row },
        "application/vnd.pgrst.array+json": { "schema": rows },
        "text/csv": { "schema": { "type": "string" } },
        "text/event-stream": { "schema": component("Followed") },
    });
    let more: &[&str] = match many {
        Many::All => &["ContentRange", "Link", "NextCursor"],
        Many::One => &[],
    };
    json!({
        "description": about,
        "headers": headers(more),
        "content": content,
    })
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
        ("PreferenceApplied", "Preference-Applied"),
        ("ContentProfile", "Content-Profile"),
        ("Vary", "Vary"),
        ("ContentRange", "Content-Range"),
        ("Link", "Link"),
        ("NextCursor", "Gobo-Next-Cursor"),
    ];
    let wanted = (all.iter().enumerate())
        .filter(|(place, (name, _))| *place < 11 || more.contains(name))
        .map(|(_, (name, header))| {
            let reference = json!({ "$ref": format!("#/components/headers/{name}") });
            ((*header).to_owned(), reference)
        });
    Value::Object(wanted.collect())
}

/// Says which schema there is, also by the name that some clients use without being told.
pub(super) fn schema(parameters: &mut Map<String, Value>, name: &str) {
    if let Some(parameter) = parameters.get_mut("AcceptProfile") {
        parameter["schema"] = json!({ "enum": [name, "public"] });
    }
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
                "How long to wait for `min_position` or `max_lag`: `2s`, `200ms`; by default {} s, at most {} s. With `live=poll`: for something to happen, by default 25 s.",
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
