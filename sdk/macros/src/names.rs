//! Names: what the engine accepts, and how Rust's become the table's.

use proc_macro2::Span;
use syn::{Error, Result};

/// The parameters of the query grammar (`sdk/wit/DESCRIPTOR.md`): a column of such a name could not be filtered by.
const RESERVED: [&str; 16] = [
    "select",
    "order",
    "limit",
    "offset",
    "and",
    "or",
    "not",
    "cursor",
    "min_position",
    "max_lag",
    "wait",
    "as_of",
    "live",
    "last_event_id",
    "on_conflict",
    "columns",
];

/// Refuses a name of a table or column that the engine would refuse.
pub(crate) fn check_identifier(name: &str, what: &str, span: Span) -> Result<()> {
    let refuse = |why: &str| Err(Error::new(span, format!("the {what} name `{name}` {why}")));
    if name.starts_with('_') {
        return refuse("begins with `_`, which is reserved for the engine's own columns");
    }
    let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let plain = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '_');
    if !begins_well || !name.chars().all(plain) {
        return refuse(
            "must begin with a small letter and consist of small letters, digits and `_`",
        );
    }
    if name.len() > 63 {
        return refuse("is longer than 63 characters");
    }
    Ok(())
}

/// Refuses a column's name that the query grammar uses.
pub(crate) fn check_column(name: &str, span: Span) -> Result<()> {
    check_identifier(name, "column", span)?;
    if RESERVED.contains(&name) {
        let message = format!(
            "the column name `{name}` is a parameter of the query grammar; \
             rename the field, or the column with #[column(name = \"...\")]"
        );
        return Err(Error::new(span, message));
    }
    Ok(())
}

/// A rule for writing names.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    AsIs,
    Lower,
    Upper,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
}

impl Case {
    pub(crate) fn parse(rule: &str, span: Span) -> Result<Self> {
        Ok(match rule {
            "lowercase" => Self::Lower,
            "UPPERCASE" => Self::Upper,
            "camelCase" => Self::Camel,
            "snake_case" => Self::Snake,
            "SCREAMING_SNAKE_CASE" => Self::ScreamingSnake,
            "kebab-case" => Self::Kebab,
            _ => {
                let rules =
                    "lowercase, UPPERCASE, camelCase, snake_case, SCREAMING_SNAKE_CASE, kebab-case";
                return Err(Error::new(
                    span,
                    format!("unknown rule `{rule}`; the rules are {rules}"),
                ));
            }
        })
    }

    /// Writes a name in `PascalCase` by this rule.
    pub(crate) fn apply(self, name: &str) -> String {
        match self {
            Self::AsIs => name.to_owned(),
            Self::Lower => name.to_lowercase(),
            Self::Upper => name.to_uppercase(),
            Self::Camel => name[..1].to_lowercase() + &name[1..],
            Self::Snake => snake(name),
            Self::ScreamingSnake => snake(name).to_uppercase(),
            Self::Kebab => snake(name).replace('_', "-"),
        }
    }
}

/// `PascalCase` in `snake_case`.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (place, character) in name.char_indices() {
        if character.is_uppercase() && place > 0 {
            snake.push('_');
        }
        snake.extend(character.to_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::RESERVED;
    use crate::read_model::derive;

    #[test]
    fn a_reserved_column_name_does_not_compile() {
        for name in RESERVED {
            let field = syn::Ident::new_raw(name, proc_macro2::Span::call_site());
            let by_field = syn::parse_quote! { struct Row { #[key] id: i64, #field: String } };
            let by_attribute = syn::parse_quote! {
                struct Row { #[key] id: i64, #[column(name = #name)] other: String }
            };
            for input in [by_field, by_attribute] {
                let refused = derive(&input).unwrap_err().to_string();
                let expected = format!("`{name}` is a parameter of the query grammar");
                assert!(refused.contains(&expected), "{name}: {refused}");
            }
        }
    }
}
