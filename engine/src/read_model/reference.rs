//! References: which rows of another read model belong to a row. Nothing enforces them, they tell readers what can be
//! embedded.

use super::ReadModel;

/// A reference to the one row of a read model whose key has the values of these columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What readers call it where its target alone would be ambiguous; unique within the read model.
    pub name: String,
    /// The columns that refer: indexes into the read model's columns.
    pub columns: Vec<usize>,
    /// The read model that is referred to. It may be another projection's, and not deployed yet.
    pub target: String,
    /// The columns of the target's key that they stand for; `None` for the key in its own order.
    pub target_columns: Option<Vec<String>>,
}

impl Reference {
    /// The name of a reference that its author has not named: what PostgreSQL would call the foreign key.
    pub fn default_name(model: &str, columns: &[String]) -> String {
        format!("{model}_{}_fkey", columns.join("_"))
    }

    /// The places of the target's columns, in the order of [`Reference::columns`]; or why it cannot be followed.
    pub fn resolve(&self, model: &ReadModel, target: &ReadModel) -> Result<Vec<usize>, String> {
        let key = || {
            let names: Vec<&str> = target.key_columns().map(|c| c.name.as_str()).collect();
            format!("\"{}\" has the key ({})", target.name, names.join(", "))
        };
        let places = match &self.target_columns {
            None => target.key.clone(),
            Some(names) => {
                let mut places = Vec::new();
                for name in names {
                    let place = (target.columns.iter()).position(|column| column.name == *name);
                    match place.filter(|place| target.key.contains(place)) {
                        Some(place) => places.push(place),
                        None => {
                            return Err(format!(
                                "\"{name}\" is no column of its target's key: {}",
                                key()
                            ));
                        }
                    }
                }
                places
            }
        };
        if places.len() != target.key.len() || places.len() != self.columns.len() {
            return Err(format!(
                "it has {} column(s), which do not name one row: {}",
                self.columns.len(),
                key()
            ));
        }
        for (&from, &to) in self.columns.iter().zip(&places) {
            let (from, to) = (&model.columns[from], &target.columns[to]);
            if from.kind != to.kind {
                return Err(format!(
                    "column \"{}\" has type {}, but column \"{}\" of \"{}\" has type {}",
                    from.name, from.kind, to.name, target.name, to.kind
                ));
            }
        }
        Ok(places)
    }
}
