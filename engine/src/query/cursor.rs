//! Keyset cursors: where a page ended, as an opaque text that fits only the order that it was made for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::plan::Sort;
use super::{Place, Refusal, value};

/// Grows when a cursor's content changes its meaning.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    v: u32,
    /// The read model.
    m: String,
    /// The whole order, in the grammar of `order`: columns, directions, places of NULLs.
    o: String,
    /// The last row's values of these columns, as PostgreSQL writes them.
    k: Vec<Option<String>>,
}

/// Where it stands in a query.
pub(super) fn place() -> Place {
    Place::of("cursor", 1)
}

/// The cursor that continues after a row with these values.
pub(super) fn encode(model: &str, sort: &[Sort<'_>], values: Vec<Option<String>>) -> String {
    let content = Content {
        v: VERSION,
        m: model.to_owned(),
        o: describe(sort),
        k: values,
    };
    // Writing texts and a number cannot fail.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&content).unwrap_or_default())
}

/// The values after which to continue, checked against the columns' types: a cursor is a reader's input like any other.
pub(super) fn decode(
    text: &str,
    model: &str,
    sort: &[Sort<'_>],
) -> Result<Vec<Option<String>>, Refusal> {
    let refuse =
        |message: String, hint: &str| Refusal::new("invalid_cursor", message, hint).at(&place());
    let content: Content = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| {
            refuse(
                "the cursor cannot be read".into(),
                "send the cursor exactly as Gobo-Next-Cursor gave it, or none for the first page",
            )
        })?;
    if content.v != VERSION {
        let message = format!("the cursor has format version {}", content.v);
        return Err(refuse(message, "start again without a cursor"));
    }
    if content.m != model {
        return Err(refuse(
            "the cursor is of another read model".into(),
            "send it with the query that it came from",
        ));
    }
    let order = describe(sort);
    if content.o != order {
        let before: String = content.o.chars().take(200).collect();
        return Err(refuse(
            "the cursor is of a query with another order".into(),
            &format!("send the same order as before: order={before}; this query sorts by {order}"),
        ));
    }
    let unfit = || {
        refuse(
            "the cursor's values do not fit the columns".into(),
            "start again without a cursor",
        )
    };
    if content.k.len() != sort.len() {
        return Err(unfit());
    }
    sort.iter()
        .zip(content.k)
        .map(|(sort, value)| match value {
            None if sort.nullable() => Ok(None),
            None => Err(unfit()),
            Some(text) if text.contains('\0') => Err(unfit()),
            Some(text) => {
                let kind = sort.value().ok_or_else(unfit)?.kind();
                value::check(kind, &text).map(Some).map_err(|_| unfit())
            }
        })
        .collect()
}

fn describe(sort: &[Sort<'_>]) -> String {
    let terms: Vec<String> = sort.iter().map(Sort::to_string).collect();
    terms.join(",")
}
