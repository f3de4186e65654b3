//! How the tables of two plugins differ: not at all, by additions that leave rows as they are, or otherwise.

use crate::read_model::schema::Addition;
use crate::read_model::{Column, ReadModel};

/// How the tables that a plugin wants differ from those that are there. Comments, references and the order of columns do not
/// matter, and neither does an index that is no longer wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences<'m> {
    /// What can be added in place: the read model's place in the descriptor, and what.
    pub(super) additions: Vec<(usize, Addition<'m>)>,
    /// The same, one sentence each.
    pub(super) added: Vec<String>,
    /// What needs other tables, one sentence each.
    pub(super) breaking: Vec<String>,
}

impl Differences<'_> {
    /// Whether the tables can stay as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.additions.is_empty() && self.breaking.is_empty()
    }

    /// All of them, one sentence each.
    pub(super) fn sentences(&self) -> Vec<String> {
        self.breaking.iter().chain(&self.added).cloned().collect()
    }
}

/// Compares the tables that are there with those of `new`.
pub(super) fn differences<'m>(old: &[ReadModel], new: &'m [ReadModel]) -> Differences<'m> {
    let mut found = Differences::default();
    for (place, model) in new.iter().enumerate() {
        match old.iter().find(|other| other.name == model.name) {
            None => {
                found.additions.push((place, Addition::Model));
                found.added.push(format!(
                    "read model \"{}\" is new; it begins with the next event",
                    model.name
                ));
            }
            Some(other) => compare(place, other, model, &mut found),
        }
    }
    for model in old {
        if !new.iter().any(|other| other.name == model.name) {
            let gone = format!("read model \"{}\" is gone", model.name);
            found.breaking.push(gone);
        }
    }
    found
}

fn compare<'m>(place: usize, old: &ReadModel, new: &'m ReadModel, found: &mut Differences<'m>) {
    let name = &new.name;
    for column in &new.columns {
        match old.column(&column.name) {
            None => {
                let sentence = format!(
                    "column \"{}\" of \"{name}\" is new ({})",
                    column.name,
                    shape(column)
                );
                match column.nullable {
                    true => {
                        found.additions.push((place, Addition::Column(column)));
                        found.added.push(sentence);
                    }
                    false => found.breaking.push(sentence),
                }
            }
            Some(other) if shape(other) != shape(column) => {
                let sentence = format!(
                    "column \"{}\" of \"{name}\" changes from {} to {}",
                    column.name,
                    shape(other),
                    shape(column)
                );
                match other.kind == column.kind && column.nullable {
                    true => {
                        found.additions.push((place, Addition::Null(column)));
                        found.added.push(sentence);
                    }
                    false => found.breaking.push(sentence),
                }
            }
            Some(_) => {}
        }
    }
    for column in &old.columns {
        if new.column(&column.name).is_none() {
            found
                .breaking
                .push(format!("column \"{}\" of \"{name}\" is gone", column.name));
        }
    }
    let (old_key, new_key) = (names(old, &old.key), names(new, &new.key));
    if old_key != new_key {
        found.breaking.push(format!(
            "the key of \"{name}\" changes from ({old_key}) to ({new_key})"
        ));
    }
    let old_indexes: Vec<String> = old.indexes.iter().map(|index| names(old, index)).collect();
    for (nth, index) in new.indexes.iter().enumerate() {
        let columns = names(new, index);
        if !old_indexes.contains(&columns) {
            let addition = Addition::Index(old_indexes.len() + nth, index);
            found.additions.push((place, addition));
            found
                .added
                .push(format!("the index ({columns}) of \"{name}\" is new"));
        }
    }
    if old.per_stream != new.per_stream {
        found.breaking.push(format!(
            "\"{name}\" is {} declared per_stream",
            if new.per_stream { "now" } else { "no longer" }
        ));
    }
}

fn shape(column: &Column) -> String {
    let null = if column.nullable { " nullable" } else { "" };
    format!("{}{null}", column.kind)
}

fn names(model: &ReadModel, places: &[usize]) -> String {
    let names: Vec<&str> = places
        .iter()
        .map(|&place| model.columns[place].name.as_str())
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_model::Reference;

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
            references: Vec::new(),
        }
    }

    #[test]
    fn tables_that_differ_only_in_comments_references_and_order_are_the_same() {
        let old = model(
            &[("id", "text", false), ("side", "text", true)],
            &[0],
            &[&[1]],
        );
        let mut new = old.clone();
        new.comment = Some("One row per order.".into());
        new.columns[0].comment = Some("The order.".into());
        new.columns.reverse();
        new.indexes.clear();
        new.key = vec![1];
        new.references.push(Reference {
            name: "orders_side_fkey".into(),
            columns: vec![0],
            target: "sides".into(),
            target_columns: None,
        });
        assert!(differences(&[old], &[new]).is_empty());
    }

    #[test]
    fn what_leaves_rows_as_they_are_can_be_added_in_place() {
        let old = model(
            &[("id", "text", false), ("side", "text", false)],
            &[0],
            &[&[1]],
        );
        let mut new = model(
            &[
                ("id", "text", false),
                ("side", "text", true),
                ("note", "text", true),
            ],
            &[0],
            &[&[2]],
        );
        let mut other = old.clone();
        other.name = "trades".into();
        new.indexes.push(vec![1]);
        let models = [new, other];
        let found = differences(&[old], &models);
        assert_eq!(found.breaking, Vec::<String>::new());
        assert_eq!(
            found.added,
            [
                "column \"side\" of \"orders\" changes from text to text nullable",
                "column \"note\" of \"orders\" is new (text nullable)",
                "the index (note) of \"orders\" is new",
                "read model \"trades\" is new; it begins with the next event",
            ]
        );
        assert_eq!(found.additions[2], (0, Addition::Index(1, &[2])));
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
            differences(&[old, other], &[new]).sentences(),
            [
                "column \"price\" of \"orders\" changes from int4 to numeric nullable",
                "column \"user\" of \"orders\" is new (text)",
                "column \"side\" of \"orders\" is gone",
                "the key of \"orders\" changes from (id) to (id, user)",
                "\"orders\" is now declared per_stream",
                "read model \"trades\" is gone",
            ]
        );
    }
}
