//! `order`.
//!
//! ```text
//! order = term *("," term)
//! term  = (path | relation "(" path ")") ["." ("asc" | "desc")] ["." ("nullsfirst" | "nullslast")]
//! ```

use super::name::{self, Name, Path};
use super::{Form, Limits, Refusal, Scanner};

/// The whole of it.
pub(super) const FORM: Form = Form {
    code: "invalid_order",
    hint: "an order is written order=name,price.desc,rating.desc.nullslast,details->>lang,author(name).asc",
};

/// One element of `order`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The embedded relation whose column it is, if it is not the read model's own.
    pub relation: Option<Name>,
    /// What to sort by.
    pub path: Path,
    /// The direction.
    pub direction: Direction,
    /// Where NULLs go, if it was said.
    pub nulls: Option<Nulls>,
}

/// A direction to sort in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Smallest first.
    #[default]
    Ascending,
    /// Greatest first.
    Descending,
}

/// Where NULLs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Before all values.
    First,
    /// After all values.
    Last,
}

pub(super) fn read(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<Vec<Term>, Refusal> {
    let mut terms = Vec::new();
    loop {
        if terms.len() == limits.outputs {
            let limit = limits.outputs;
            return Err(Refusal::new(
                "query_too_large",
                format!("more than {limit} columns to sort by"),
                "name each column once; rows that are equal in those are sorted by the key",
            )
            .at(&scanner.place()));
        }
        terms.push(term(scanner)?);
        if scanner.is_done() {
            return Ok(terms);
        }
        scanner.expect(",")?;
    }
}

fn term(scanner: &mut Scanner<'_>) -> Result<Term, Refusal> {
    let mut relation = None;
    let mut path = name::path(scanner)?;
    if path.steps.is_empty() && scanner.take("(") {
        relation = Some(path.name);
        path = name::path(scanner)?;
        scanner.expect(")")?;
    }
    let mut term = Term {
        relation,
        path,
        direction: Direction::Ascending,
        nulls: None,
    };
    let mut directed = false;
    while scanner.take(".") {
        let place = scanner.place();
        match scanner.until(&['.', ',']).trim_end_matches([' ', '\t']) {
            "asc" if !directed && term.nulls.is_none() => directed = true,
            "desc" if !directed && term.nulls.is_none() => {
                directed = true;
                term.direction = Direction::Descending;
            }
            "nullsfirst" if term.nulls.is_none() => term.nulls = Some(Nulls::First),
            "nullslast" if term.nulls.is_none() => term.nulls = Some(Nulls::Last),
            _ => {
                return Err(Refusal::new(
                    FORM.code,
                    "this is no way to sort",
                    "write column.asc or column.desc, and then .nullsfirst or .nullslast",
                )
                .at(&place));
            }
        }
    }
    Ok(term)
}
