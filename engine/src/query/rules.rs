//! Who may read what: which read models, and which of their rows.
//!
//! A rule such as `user_id = claim.sub` is configuration. It becomes conditions of a plan, beside those that a reader
//! asks for, so whatever is made of the plan's rows (counts, aggregates, pages, what is sent live, what is kept in a cache)
//! is made of the rows that its reader may see.

mod lower;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::plan::Condition;
use super::{Place, Refusal};
use crate::read_model::ReadModel;
pub use parse::{Malformed, Rule};

/// The claims of somebody: a JSON object.
pub type Claims = Map<String, Value>;

/// The role that sees everything.
pub const ADMIN: &str = "admin";

/// Somebody who reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Viewer {
    /// What they are.
    pub roles: BTreeSet<String>,
    /// What is known of them.
    pub claims: Claims,
}

impl Viewer {
    /// Whether they see everything: no read model is closed to them, and no row is hidden.
    pub fn sees_everything(&self) -> bool {
        self.roles.contains(ADMIN)
    }

    fn is_one_of(&self, roles: &BTreeSet<String>) -> bool {
        !self.roles.is_disjoint(roles)
    }
}

/// What is configured for one read model.
#[derive(Debug, Clone, Default)]
pub struct Restriction {
    /// The roles that may read it; without any, those that may read what says nothing.
    pub readers: Option<BTreeSet<String>>,
    /// Which rows they see; without a rule, all.
    pub rows: Option<Rule>,
}

/// What is configured for all read models.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The roles that may read the read models without readers of their own.
    pub readers: BTreeSet<String>,
    /// Read models by name.
    pub restrictions: BTreeMap<String, Restriction>,
}

impl Rules {
    /// Whether somebody may read a read model. One that may not be read is to be spoken of as one that does not exist.
    pub fn may_read(&self, model: &str, viewer: &Viewer) -> bool {
        let own = self.restrictions.get(model);
        let readers = own.and_then(|own| own.readers.as_ref());
        viewer.sees_everything() || viewer.is_one_of(readers.unwrap_or(&self.readers))
    }

    /// Whether there can be anything at all that somebody may read.
    pub fn may_read_something(&self, viewer: &Viewer) -> bool {
        let own = self.restrictions.values();
        let mut readers = own.filter_map(|own| own.readers.as_ref());
        viewer.sees_everything()
            || viewer.is_one_of(&self.readers)
            || readers.any(|readers| viewer.is_one_of(readers))
    }

    /// What somebody sees of a read model that they may read.
    pub fn sight<'r>(&'r self, model: &str, viewer: &'r Viewer) -> Sight<'r> {
        let rule = self.restrictions.get(model).and_then(|r| r.rows.as_ref());
        match rule {
            Some(rule) if !viewer.sees_everything() => Sight::Rows(rule, &viewer.claims),
            _ => Sight::Everything,
        }
    }

    /// Checks the rule of a read model against its columns. Fails with the reason when it does not fit.
    pub fn check(&self, model: &ReadModel) -> Result<(), String> {
        let own = self.restrictions.get(&model.name);
        match own.and_then(|own| own.rows.as_ref()) {
            Some(rule) => rule.check(model),
            None => Ok(()),
        }
    }
}

/// What somebody sees of a read model.
#[derive(Debug, Clone, Copy)]
pub enum Sight<'r> {
    /// Every row.
    Everything,
    /// The rows for which a rule holds with these claims.
    Rows(&'r Rule, &'r Claims),
}

impl Sight<'_> {
    /// Whether rows may be hidden.
    pub fn is_restricted(&self) -> bool {
        matches!(self, Sight::Rows(..))
    }

    /// The conditions that hold for the rows that are seen. Refused when the rule does not fit the read model: nothing is
    /// shown then.
    pub fn conditions<'m>(&self, model: &'m ReadModel) -> Result<Vec<Condition<'m>>, Refusal> {
        let Sight::Rows(rule, claims) = self else {
            return Ok(Vec::new());
        };
        match rule.conditions(model, claims) {
            Ok(condition) => Ok(vec![Condition::Seen(Box::new(condition))]),
            Err(why) => {
                tracing::error!(
                    model = model.name,
                    why,
                    "a row rule does not fit its read model"
                );
                // What the rule says is nobody's business who is bound by it.
                Err(Refusal::new(
                    "broken_rule",
                    format!(
                        "the row rule of read model \"{}\" does not fit it, so nothing is shown",
                        model.name
                    ),
                    "the engine's log says why",
                )
                .at(&Place::Path))
            }
        }
    }
}
