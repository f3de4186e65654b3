//! What goes wrong with a read, told as PostgREST tells it, whose clients look at `code`, `details` and the status.
//!
//! The rest of the engine calls a problem by a word of its own. [`as_postgrest`] says it again for readers: `code` and
//! status are PostgREST's (or the SQLSTATE), the word goes into `reason`, what is for programs into `context`, and
//! `details` is a text.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use deadpool_postgres::PoolError;
use serde_json::{Value, json};

use super::Problem;
use crate::api::problem::{Retold, Told};
use crate::db::Cause;
use crate::query::{Failure, Limits, Place, Refusal, nearest};

/// Our word, PostgREST's code, PostgREST's status. What PostgREST does not know keeps its word and its status.
const TABLE: [(&str, &str, u16); 51] = [
    // The query string.
    ("invalid_select", "PGRST100", 400),
    ("invalid_filter", "PGRST100", 400),
    ("unknown_operator", "PGRST100", 400),
    ("invalid_order", "PGRST100", 400),
    ("invalid_limit", "PGRST100", 400),
    ("invalid_offset", "PGRST100", 400),
    ("invalid_cursor", "PGRST100", 400),
    ("invalid_key", "PGRST100", 400),
    ("invalid_encoding", "PGRST100", 400),
    ("invalid_min_position", "PGRST100", 400),
    ("invalid_max_lag", "PGRST100", 400),
    ("invalid_wait", "PGRST100", 400),
    ("invalid_as_of", "PGRST100", 400),
    ("duplicate_parameter", "PGRST100", 400),
    ("unsupported_parameter", "PGRST100", 400),
    ("query_too_large", "PGRST100", 400),
    ("unknown_function", "PGRST100", 400),
    // Headers.
    ("range_not_satisfiable", "PGRST103", 416),
    ("unknown_schema", "PGRST106", 406),
    ("not_acceptable", "PGRST107", 406),
    ("invalid_preferences", "PGRST122", 400),
    // What there is.
    ("unknown_read_model", "PGRST205", 404),
    ("unknown_column", "42703", 400),
    ("row_not_found", "PGRST116", 404),
    ("not_one_row", "PGRST116", 406),
    // Embedding and aggregates.
    ("not_embedded", "PGRST108", 400),
    ("related_order", "PGRST118", 400),
    ("invalid_embed_filter", "PGRST120", 400),
    ("not_supported", "PGRST127", 400),
    ("not_related", "PGRST200", 400),
    ("ambiguous_relation", "PGRST201", 300),
    // Types. PostgREST answers 42883 with 404, as if there were no such resource.
    ("unfit_operator", "42883", 400),
    ("unfit_function", "42883", 400),
    ("invalid_path", "42883", 400),
    ("invalid_cast", "42846", 400),
    ("unknown_type", "42704", 400),
    ("unknown_configuration", "42704", 400),
    // Who asks.
    ("credentials_missing", "PGRST302", 401),
    ("credentials_malformed", "PGRST301", 401),
    ("token_unknown", "PGRST301", 401),
    ("jwt_invalid", "PGRST301", 401),
    ("jwt_expired", "PGRST303", 401),
    ("jwt_not_yet_valid", "PGRST303", 401),
    ("jwt_claims", "PGRST303", 401),
    ("role_missing", "42501", 403),
    ("broken_rule", "XX000", 500),
    // Values and the database.
    ("invalid_value", "22P02", 400),
    ("statement_timeout", "57014", 500),
    ("no_free_connection", "PGRST003", 504),
    ("unavailable", "PGRST000", 503),
    ("internal", "XX000", 500),
];

/// Says the problem that an answer tells as PostgREST would.
pub(in crate::api) async fn as_postgrest(mut response: Response) -> Response {
    let Some(Told(problem)) = response.extensions_mut().remove::<Told>() else {
        return response;
    };
    let word = problem.code();
    let row = TABLE.iter().find(|row| row.0 == word);
    let status = row
        .and_then(|row| StatusCode::from_u16(row.2).ok())
        .unwrap_or(problem.status());
    let code = problem.sqlstate().unwrap_or(row.map_or(word, |row| row.1));
    let (details, context) = match (problem.details(), problem.place()) {
        (Some(members), _) | (None, Some(members)) if members.is_object() => {
            (text(members), Some(members))
        }
        (details, place) => (details.cloned(), place),
    };
    let body = problem.retold(&Retold {
        status,
        code,
        details: details.as_ref(),
        context,
    });
    *response.status_mut() = status;
    // Of the body that was.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = body.into();
    response
}

/// A place in a query, or a set of numbers, for people.
fn text(members: &Value) -> Option<Value> {
    let members = members.as_object().into_iter().flatten();
    let parts: Vec<String> = members
        .map(|(name, value)| match value {
            Value::String(value) => format!("{name} {value}"),
            value => format!("{name} {value}"),
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", ").into())
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let problem = Problem::bad_request(refusal.code, refusal.to_string())
            .with_hint(refusal.hint)
            .with_place(told(&refusal.place));
        match refusal.details {
            Some(details) => problem.with_details(*details),
            None => problem,
        }
    }
}

/// A place, for programs.
pub(super) fn told(place: &Place) -> Value {
    match place {
        Place::Parameter { name, at } => json!({"parameter": name, "at": at}),
        Place::Query => json!({"in": "query string"}),
        Place::Path => json!({"in": "path"}),
        Place::Header(name) => json!({"header": name}),
    }
}

pub(super) fn unknown_read_model<'m>(name: &str, known: impl Iterator<Item = &'m str>) -> Problem {
    let shown: String = name.chars().take(80).collect();
    let problem = Problem::not_found(
        "unknown_read_model",
        format!("there is no read model \"{shown}\""),
    );
    match nearest(name, known) {
        Some(near) => problem.with_hint(format!("did you mean \"{near}\"?")),
        None => problem.with_hint("GET /admin/projections lists what is deployed"),
    }
}

pub(super) fn no_row(model: &str, key: &str) -> Problem {
    let shown: String = key.chars().take(80).collect();
    Problem::not_found(
        "row_not_found",
        format!("read model \"{model}\" has no row with key {shown}"),
    )
    .with_details("The result contains 0 rows".into())
}

/// The details are PostgREST's to the letter: its clients look for them.
pub(super) fn not_one_row(count: u64) -> Problem {
    Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_one_row",
        "Cannot coerce the result to a single JSON object",
    )
    .with_details(format!("The result contains {count} rows").into())
    .with_hint("ask for application/json, or filter by the key")
}

/// What a failed query comes to.
pub(super) fn failed(failure: Failure, limits: &Limits) -> Problem {
    match failure {
        Failure::Gone => Problem::unavailable("the read model is being replaced just now"),
        Failure::Value {
            column,
            message,
            sqlstate,
        } => {
            let (message, place) = match column {
                Some(column) => (
                    format!("a value for column \"{column}\" is refused: {message}"),
                    json!({"column": column}),
                ),
                None => (message, told(&Place::Query)),
            };
            Problem::bad_request("invalid_value", message)
                .with_sqlstate(&sqlstate)
                .with_hint(written(&sqlstate))
                .with_place(place)
        }
        Failure::Timeout => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "statement_timeout",
            "the query took longer than is allowed",
        )
        .with_hint(
            "filter or sort by the key or an indexed column, ask for fewer rows, or page with a cursor",
        ),
        Failure::TooCostly { cost, most } => Problem::bad_request(
            "query_too_costly",
            match cost {
                Some(cost) => {
                    format!("the database expects this query to cost {cost}; {most} is allowed")
                }
                None => format!("the database expects this query to cost more than {most}"),
            },
        )
        .with_details(match cost {
            Some(cost) => json!({"cost": cost, "max_cost": most}),
            None => json!({"max_cost": most}),
        })
        .with_hint("filter or sort by the key or an indexed column, or ask for fewer rows"),
        Failure::TooLarge { bytes } => Problem::bad_request(
            "answer_too_large",
            format!(
                "the rows have {bytes} bytes; an answer may have {}",
                limits.answer_bytes
            ),
        )
        .with_hint("ask for fewer rows with limit, or fewer columns with select"),
        Failure::Database(error) => database(error),
        Failure::Pool(PoolError::Backend(error)) => database(error),
        Failure::Pool(error) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "no_free_connection",
            format!("no database connection is free: {error}"),
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
    }
}

/// How a value is written that PostgreSQL refuses with this code.
fn written(sqlstate: &str) -> &'static str {
    match sqlstate {
        "2201B" => {
            "match and imatch take a regular expression of PostgreSQL's; a backslash before ( [ { * + ? . makes it an \
             ordinary character"
        }
        "42601" => {
            "fts takes words with & | ! or <-> between them, as in fts.cat&!dog; plfts takes words alone, wfts what \
             people type into a search box"
        }
        "22007" | "22008" => "write a date that there is: 2026-01-31, or 2026-01-31T12:30:00Z",
        "22003" => "write a number that the column's type has room for",
        code if code.starts_with("54") => "ask for a shorter or a simpler value",
        _ => "write values as PostgreSQL writes them for the type of the column, or of the cast",
    }
}

fn database(error: tokio_postgres::Error) -> Problem {
    let (cause, code) = (crate::db::cause(&error), error.code().cloned());
    let problem = Problem::from(error);
    let problem = match cause {
        Cause::Infrastructure => return problem,
        Cause::Value => problem,
        // Names of schemas and tables are no reader's business.
        Cause::Statement => Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the database refuses the query; the engine's log says why",
        ),
    };
    match code {
        Some(code) => problem.with_sqlstate(code.code()),
        None => problem,
    }
}
