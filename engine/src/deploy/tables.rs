//! Whether the tables of two plugins are the same, and if not, what differs.

use crate::read_model::{Column, ReadModel};

/// What keeps the tables of `new` from being those of `old`, one sentence each. Comments do not matter.
pub(super) fn differences(old: &[ReadModel], new: &[ReadModel]) -> Vec<String> {
    let mut found = Vec::new();
    for model in new {
        match old.iter().find(|other| other.name == model.name) {
            None => found.push(format!("read model \"{}\" is new", model.name)),
            Some(other) => {
                let before = found.len();
                compare(other, model, &mut found);
                if found.len() == before && !other.same_table(model) {
                    found.push(format!(
                        "the table of read model \"{}\" differs",
                        model.name
                    ));
                }
            }
        }
    }
    for model in old {
        if !new.iter().any(|other| other.name == model.name) {
            found.push(format!("read model \"{}\" is gone", model.name));
        }
    }
    found
}

fn compare(old: &ReadModel, new: &ReadModel, found: &mut Vec<String>) {
    let name = &new.name;
    let before = found.len();
    for column in &new.columns {
        match old.column(&column.name) {
            None => found.push(format!(
                "column \"{}\" of \"{name}\" is new ({})",
                column.name,
                shape(column)
            )),
            Some(other) if shape(other) != shape(column) => found.push(format!(
                "column \"{}\" of \"{name}\" changes from {} to {}",
                column.name,
                shape(other),
                shape(column)
            )),
            Some(_) => {}
        }
    }
    for column in &old.columns {
        if new.column(&column.name).is_none() {
            found.push(format!("column \"{}\" of \"{name}\" is gone", column.name));
        }
    }
    if found.len() == before && names(old, None) != names(new, None) {
        found.push(format!(
            "the columns of \"{name}\" change their order from ({}) to ({})",
            names(old, None),
            names(new, None)
        ));
    }
    let (old_key, new_key) = (names(old, Some(&old.key)), names(new, Some(&new.key)));
    if old_key != new_key {
        found.push(format!(
            "the key of \"{name}\" changes from ({old_key}) to ({new_key})"
        ));
    }
    let (old_indexes, new_indexes) = (indexes(old), indexes(new));
    if old_indexes != new_indexes {
        found.push(format!(
            "the indexes of \"{name}\" change from [{old_indexes}] to [{new_indexes}]"
        ));
    }
    if old.per_stream != new.per_stream {
        found.push(format!(
            "\"{name}\" is {} declared per_stream",
            if new.per_stream { "now" } else { "no longer" }
        ));
    }
}

fn shape(column: &Column) -> String {
    let null = if column.nullable { " nullable" } else { "" };
    format!("{}{null}", column.kind)
}

fn names(model: &ReadModel, places: Option<&[usize]>) -> String {
    let names: Vec<&str> = match places {
        None => model.columns.iter().map(|c| c.name.as_str()).collect(),
        Some(places) => places
            .iter()
            .map(|&place| model.columns[place].name.as_str())
            .collect(),
    };
    names.join(", ")
}

fn indexes(model: &ReadModel) -> String {
    let indexes: Vec<String> = model
        .indexes
        .iter()
        .map(|index| format!("({})", names(model, Some(index))))
        .collect();
    indexes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(columns: &[(&str, &str, bool)], key: &[usize], indexes: &[&[usize]]) -> ReadModel {
        ReadModel {
            name: "orders".into(),
            comment: None,
            per_stream: false,
            columns: columns
                .iter()
                .map(|(name, kind, nullable)| Column {
                    name: (*name).into(),
                    kind: kind.parse().unwrap(),
                    nullable: *nullable,
                    comment: None,
                })
                .collect(),
            key: key.to_vec(),
            indexes: indexes.iter().map(|index| index.to_vec()).collect(),
        }
    }

    #[test]
    fn tables_that_differ_only_in_comments_are_the_same() {
        let old = model(&[("id", "text", false)], &[0], &[]);
        let mut new = old.clone();
        new.comment = Some("One row per order.".into());
        new.columns[0].comment = Some("The order.".into());
        assert_eq!(differences(&[old], &[new]), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let old = model(
            &[
                ("id", "text", false),
                ("price", "int4", false),
                ("side", "text", false),
            ],
            &[0],
            &[&[2]],
        );
        let mut new = model(
            &[
                ("id", "text", false),
                ("price", "numeric", true),
                ("user", "text", false),
            ],
            &[0, 2],
            &[],
        );
        new.per_stream = true;
        let mut other = old.clone();
        other.name = "trades".into();
        assert_eq!(
            differences(&[old, other], &[new]),
            [
                "column \"price\" of \"orders\" changes from int4 to numeric nullable",
                "column \"user\" of \"orders\" is new (text)",
                "column \"side\" of \"orders\" is gone",
                "the key of \"orders\" changes from (id) to (id, user)",
                "the indexes of \"orders\" change from [(side)] to []",
                "\"orders\" is now declared per_stream",
                "read model \"trades\" is gone",
            ]
        );
    }
}
