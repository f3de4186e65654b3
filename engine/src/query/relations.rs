//! How read models are related: by the references that plugins declare, in both directions, and through a read model whose
//! key consists of two of them.

use serde_json::{Value, json};

use super::catalog::{ByName, Readable};
use super::parse::Name;
use super::plan::Around;
use super::{Refusal, nearest};
use crate::read_model::{Column, ReadModel, Reference};

/// What leads from one read model to another one.
#[derive(Debug, Clone)]
pub struct Relation<'m> {
    /// The reference.
    pub reference: &'m Reference,
    /// Where it leads.
    pub target: &'m Readable,
    /// How many rows there are on each side.
    pub cardinality: Cardinality,
    /// Columns that are equal: those of the one, those of the other.
    pub columns: Vec<(&'m Column, &'m Column)>,
    is_self: bool,
}

/// How an embed is reached.
#[derive(Debug, Clone)]
pub struct Way<'m> {
    /// The last relation, or the only one.
    pub relation: Relation<'m>,
    /// The one before, to the read model through which the other two are related.
    pub through: Option<Relation<'m>>,
}

/// How many rows belong to how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are the usual words")]
pub enum Cardinality {
    ManyToOne,
    OneToMany,
    OneToOne,
    ManyToMany,
}

impl Cardinality {
    /// Whether there is at most one row on the other side.
    pub fn is_to_one(self) -> bool {
        !matches!(self, Cardinality::OneToMany | Cardinality::ManyToMany)
    }

    fn in_words(self) -> &'static str {
        match self {
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

/// Every relation from a read model to one of `models`, by the names of targets and references. What is not there, or does
/// not fit any more, is no relation; nor is what somebody may not read.
pub fn relations<'m>(
    models: &'m ByName,
    from: &'m ReadModel,
    may_read: &dyn Fn(&str) -> bool,
) -> Vec<Relation<'m>> {
    let mut relations = Vec::new();
    for reference in &from.references {
        if let Some(target) = models
            .get(&reference.target)
            .filter(|_| may_read(&reference.target))
        {
            relations.extend(forward(reference, from, target));
        }
    }
    for target in models
        .values()
        .filter(|target| may_read(&target.model.name))
    {
        let back = |reference: &&'m Reference| reference.target == from.name;
        for reference in target.model.references.iter().filter(back) {
            relations.extend(backward(reference, from, target));
        }
    }
    relations.sort_by_key(|found| (&found.target.model.name, &found.reference.name));
    relations
}

/// The ways from a read model to others through a third one that refers to both: its key has the columns of both references,
/// and neither alone is the key.
fn through<'m>(
    models: &'m ByName,
    from: &'m ReadModel,
    direct: &[Relation<'m>],
    may_read: &dyn Fn(&str) -> bool,
) -> Vec<Way<'m>> {
    let mut ways = Vec::new();
    let is_near =
        |near: &&Relation<'m>| !near.is_self && near.cardinality == Cardinality::OneToMany;
    for near in direct.iter().filter(is_near) {
        let between = &near.target.model;
        for far in &between.references {
            let Some(target) = models.get(&far.target).filter(|_| may_read(&far.target)) else {
                continue;
            };
            let mut columns = near.reference.columns.iter().chain(&far.columns);
            let is_between = columns.all(|column| between.key.contains(column));
            if is_between
                && ![&from.name, &between.name].contains(&&far.target)
                && let Some(relation) = forward(far, between, target)
                && relation.cardinality == Cardinality::ManyToOne
            {
                let through = Some(near.clone());
                ways.push(Way { relation, through });
            }
        }
    }
    ways
}

fn forward<'m>(
    reference: &'m Reference,
    from: &'m ReadModel,
    target: &'m Readable,
) -> Option<Relation<'m>> {
    let places = reference.resolve(from, &target.model).ok()?;
    let pairs = reference.columns.iter().zip(places);
    let is_one = from.key.iter().all(|key| reference.columns.contains(key));
    Some(Relation {
        reference,
        target,
        cardinality: match is_one {
            true => Cardinality::OneToOne,
            false => Cardinality::ManyToOne,
        },
        columns: pairs
            .map(|(&own, theirs)| (&from.columns[own], &target.model.columns[theirs]))
            .collect(),
        is_self: from.name == target.model.name,
    })
}

fn backward<'m>(
    reference: &'m Reference,
    from: &'m ReadModel,
    target: &'m Readable,
) -> Option<Relation<'m>> {
    let places = reference.resolve(&target.model, from).ok()?;
    let pairs = reference.columns.iter().zip(places);
    let key = &target.model.key;
    Some(Relation {
        reference,
        target,
        cardinality: match key.iter().all(|key| reference.columns.contains(key)) {
            true => Cardinality::OneToOne,
            false => Cardinality::OneToMany,
        },
        columns: pairs
            .map(|(&theirs, own)| (&from.columns[own], &target.model.columns[theirs]))
            .collect(),
        is_self: from.name == target.model.name,
    })
}

impl Relation<'_> {
    /// Whether the reference has this name, or this single column on the one side.
    fn is_called(&self, name: &str) -> bool {
        self.reference.name == name || self.own_column() == Some(name)
    }

    fn own_column(&self) -> Option<&str> {
        match self.columns.as_slice() {
            [(own, _)] => Some(&own.name),
            _ => None,
        }
    }

    fn other_column(&self) -> Option<&str> {
        match self.columns.as_slice() {
            [(_, theirs)] => Some(&theirs.name),
            _ => None,
        }
    }

    /// Whether it is meant, by PostgREST's rules.
    fn is_meant(&self, relation: &str, hint: Option<&str>) -> bool {
        let is_target = self.target.model.name == relation;
        // A read model that refers to itself has two relations of one name: the rows that refer to this one are called
        // like the read model, the one that this row refers to like the column.
        let is_to_many = self.cardinality == Cardinality::OneToMany;
        match (self.is_self, hint) {
            (true, None) => {
                is_target && is_to_many || !is_target && !is_to_many && self.is_called(relation)
            }
            (true, Some(hint)) => {
                is_target
                    && is_to_many
                    && (self.reference.name == hint || self.other_column() == Some(hint))
            }
            (false, None) => is_target || self.is_called(relation),
            (false, Some(hint)) => {
                is_target && (self.is_called(hint) || self.other_column() == Some(hint))
            }
        }
    }

    /// The columns on both sides.
    fn sides(&self) -> [String; 2] {
        let list = |columns: Vec<&str>| columns.join(", ");
        let own = list(self.columns.iter().map(|pair| &*pair.0.name).collect());
        let theirs = list(self.columns.iter().map(|pair| &*pair.1.name).collect());
        [own, theirs]
    }
}

impl Way<'_> {
    /// How many rows there are on each side.
    pub fn cardinality(&self) -> Cardinality {
        match self.through {
            None => self.relation.cardinality,
            Some(_) => Cardinality::ManyToMany,
        }
    }

    fn target(&self) -> &str {
        &self.relation.target.model.name
    }

    /// What it is told apart by.
    fn hint(&self) -> &str {
        match &self.through {
            None => &self.relation.reference.name,
            Some(near) => &near.target.model.name,
        }
    }

    /// What PostgREST says of one of several.
    fn described(&self, from: &ReadModel) -> Value {
        let (from, to) = (&from.name, self.target());
        let (reference, [own, theirs]) = (&self.relation.reference.name, self.relation.sides());
        let relationship = match &self.through {
            None => format!("{reference} using {from}({own}) and {to}({theirs})"),
            Some(near) => {
                let [_, back] = near.sides();
                let (between, nears) = (&near.target.model.name, &near.reference.name);
                format!("{between} using {nears}({back}) and {reference}({own})")
            }
        };
        json!({
            "cardinality": self.cardinality().in_words(),
            "embedding": format!("{from} with {to}"),
            "relationship": relationship,
        })
    }
}

/// The way that is called so; refused when there is none, or more than one. What is related by a reference of its own is meant
/// before what is related through a third read model: one that is deployed later must not make a query ambiguous.
pub(super) fn find<'m>(
    around: &Around<'m>,
    from: &'m ReadModel,
    relation: &Name,
    hint: Option<&Name>,
) -> Result<Way<'m>, Refusal> {
    let may_read = |name: &str| around.may_read(name);
    let direct = relations(around.models, from, &may_read);
    let wanted = hint.map(|hint| hint.text.as_str());
    let mut found: Vec<Way<'m>> = (direct.iter())
        .filter(|one| one.is_meant(&relation.text, wanted))
        .map(|one| Way {
            relation: one.clone(),
            through: None,
        })
        .collect();
    let mut others = Vec::new();
    if found.is_empty() {
        others = through(around.models, from, &direct, &may_read);
        let is_meant = |way: &&Way<'_>| {
            way.target() == relation.text && wanted.is_none_or(|hint| way.hint() == hint)
        };
        found = others.iter().filter(is_meant).cloned().collect();
    }
    if found.len() > 1 {
        return Err(ambiguous(from, relation, &found));
    }
    found.pop().ok_or_else(|| {
        let direct = direct.into_iter().map(|relation| Way {
            relation,
            through: None,
        });
        let all: Vec<Way<'_>> = direct.chain(others).collect();
        unrelated(from, relation, hint, &all)
    })
}

fn ambiguous(from: &ReadModel, relation: &Name, found: &[Way<'_>]) -> Refusal {
    let shown = shown(&relation.text);
    let mut ways: Vec<String> = found
        .iter()
        .map(|one| format!("'{}!{}'", one.target(), one.hint()))
        .collect();
    ways.dedup();
    // The read model between refers to the other one more than once: no hint tells which reference is meant.
    if let ([way], [one, ..]) = (&mut ways[..], found) {
        *way = format!(
            "'{}({shown}!{}(*))'",
            one.hint(),
            one.relation.reference.name
        );
    }
    let refusal = Refusal::new(
        "ambiguous_relation",
        format!(
            "Could not embed because more than one relationship was found for '{}' and '{shown}'",
            from.name
        ),
        format!(
            "Try changing '{shown}' to one of the following: {}. Find the desired relationship in the 'details' key.",
            ways.join(", ")
        ),
    );
    let all: Value = found.iter().map(|one| one.described(from)).collect();
    Refusal {
        details: Some(Box::new(all)),
        ..refusal.at(&relation.place)
    }
}

fn unrelated(from: &ReadModel, relation: &Name, hint: Option<&Name>, all: &[Way<'_>]) -> Refusal {
    let shown_name = shown(&relation.text);
    let with = hint.map(|hint| format!(" by \"{}\"", shown(&hint.text)));
    let message = format!(
        "read model \"{}\" is not related to \"{shown_name}\"{}",
        from.name,
        with.unwrap_or_default()
    );
    let names: Vec<&str> = all.iter().map(Way::target).collect();
    let (place, hint) = match hint {
        Some(hint) if names.contains(&relation.text.as_str()) => {
            let ways = (all.iter()).filter(|one| one.target() == relation.text);
            let ways: Vec<&str> = ways.map(Way::hint).collect();
            (
                &hint.place,
                format!("what leads there: {}", ways.join(", ")),
            )
        }
        _ => (&relation.place, instead(from, relation, &names)),
    };
    Refusal::new("not_related", message, hint).at(place)
}

/// What could be meant by a relation that there is not.
fn instead(from: &ReadModel, relation: &Name, names: &[&str]) -> String {
    if from.column(&relation.text).is_some() {
        return "a column is selected without parentheses behind its name".to_owned();
    }
    match nearest(&relation.text, names.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() => {
            "read models are related by references, which their plugins declare; this one has none"
                .to_owned()
        }
        None => format!("it is related to: {}", names.join(", ")),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
