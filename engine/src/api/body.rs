//! JSON in a request: read whatever its content type says, refused with the place of what is wrong.

use serde::Deserialize;
use serde_json::json;

use super::problem::Problem;

/// Reads the object that a body holds. curl's default content type must not be an obstacle, so none is asked for.
pub(super) fn object<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    // The parser would take an array as well, its elements as the members in turn.
    if body.trim_ascii_start().first() == Some(&b'[') {
        let detail = "the body is an array, not an object";
        return Err(Problem::bad_request("bad_json", detail));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader);
    let read = read.map_err(|error| {
        let path = error.path().to_string();
        refused(error.inner(), Some(path).filter(|path| path != "."))
    })?;
    reader.end().map_err(|error| refused(&error, None))?;
    Ok(read)
}

fn refused(error: &serde_json::Error, path: Option<String>) -> Problem {
    let place = match &path {
        Some(path) => format!(" at \"{path}\""),
        None => String::new(),
    };
    let detail = format!("the body cannot be read{place}: {error}");
    Problem::bad_request("bad_json", detail)
        .with_details(json!({ "path": path, "line": error.line(), "column": error.column() }))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order<'b> {
        items: Vec<Item>,
        #[serde(borrow)]
        note: &'b RawValue,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        count: u8,
    }

    async fn refusal(body: &str) -> (String, Value) {
        let problem = object::<Order<'_>>(body.as_bytes()).unwrap_err();
        let answer = axum::body::to_bytes(problem.into_response().into_body(), 10_000).await;
        let problem: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
        assert_eq!(problem["code"], "bad_json");
        let detail = problem["detail"].as_str().unwrap().to_owned();
        (detail, problem["details"].clone())
    }

    #[tokio::test]
    async fn a_refusal_names_the_place_of_what_is_wrong() {
        for (body, path, part) in [
            (
                r#"{"items": [{"count": 1}, {"count": -1}], "note": 1}"#,
                json!("items[1].count"),
                "invalid value",
            ),
            (
                r#"{"items": [{"cuont": 1}], "note": 1}"#,
                json!("items[0].cuont"),
                "unknown field `cuont`",
            ),
            (
                r#"{"items": [{}], "note": 1}"#,
                json!("items[0]"),
                "missing field `count`",
            ),
            (
                r#"{"items": 7, "note": 1}"#,
                json!("items"),
                "expected a sequence",
            ),
            (r#"{"items": []}"#, Value::Null, "missing field `note`"),
            (
                r#"{"items": [], "note": 1} more"#,
                Value::Null,
                "trailing characters",
            ),
            (r#""text""#, Value::Null, "invalid type: string"),
            ("", Value::Null, "EOF"),
        ] {
            let (detail, details) = refusal(body).await;
            assert!(detail.contains(part), "{body}: {detail}");
            assert_eq!(details["path"], path, "{body}: {detail}");
            if let Some(path) = path.as_str() {
                assert!(detail.contains(path), "{body}: {detail}");
            }
            assert!(details["line"].is_number(), "{details}");
        }
        let (detail, _) = refusal("[[], 1]").await;
        assert!(detail.contains("is an array"), "{detail}");
    }

    #[test]
    fn what_is_handed_on_as_it_is_keeps_its_spelling() {
        let order: Order<'_> =
            object(br#"{"note": {"a" :1.50}, "items": [{"count": 3}]}"#).unwrap();
        assert_eq!(order.note.get(), r#"{"a" :1.50}"#);
        assert_eq!(order.items[0].count, 3);
    }
}
