//! `select`.
//!
//! ```text
//! select   = [element *("," element)]
//! element  = "*" | [alias ":"] value | [alias ":"] embed | "..." embed
//! value    = path ["::" type] ["." function "()"] ["::" type] | "count()" ["::" type]
//! function = "count" | "sum" | "avg" | "min" | "max"
//! embed    = relation *("!" ("inner" | "left" | hint)) "(" select ")"
//! ```

use super::name::{self, Name, Path};
use super::{Form, Limits, Place, Refusal, Scanner};
use crate::query::nearest;

/// The whole of it.
pub(super) const FORM: Form = Form {
    code: "invalid_select",
    hint: "a select is written select=id,title:name,details->>lang,price::text,price.sum(),author(name); \
           a name with reserved characters stands in double quotes",
};

/// One element of `select`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// `*`: the read model's own columns.
    Own(Place),
    /// A value of the row, or of the group of rows.
    Item(Item),
    /// Rows of a related read model.
    Embed(Embed),
}

/// A value, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The name it was given.
    pub alias: Option<Name>,
    /// The value.
    pub shown: Shown,
    /// Where it stands.
    pub place: Place,
}

/// What an element shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A value of the row.
    Value(Value),
    /// A value of all rows, or of those that agree in the other elements.
    Aggregate(Aggregate),
}

/// A column or a place in its JSON, as a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What is shown.
    pub path: Path,
    /// The type's name.
    pub cast: Option<Name>,
}

/// A function over rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// The function.
    pub function: Function,
    /// What it is applied to; `None`: the rows themselves.
    pub argument: Option<Value>,
    /// The name of the type to give its result.
    pub cast: Option<Name>,
}

/// Functions over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are SQL's own words")]
pub enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

impl Function {
    /// Its name, in the grammar, in answers and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
        }
    }
}

const FUNCTIONS: [Function; 5] = [
    Function::Count,
    Function::Sum,
    Function::Avg,
    Function::Min,
    Function::Max,
];

/// Rows of a related read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embed {
    /// The name it was given.
    pub alias: Option<Name>,
    /// The relation.
    pub relation: Name,
    /// Which of several relations is meant.
    pub hint: Option<Name>,
    /// Whether rows without related ones are shown.
    pub join: Option<Join>,
    /// Whether its columns become the row's own.
    pub spread: bool,
    /// What each of its rows shows.
    pub select: Vec<Selected>,
}

/// Whether rows without related ones are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// They are not.
    Inner,
    /// They are.
    Left,
}

pub(super) fn read(scanner: &mut Scanner<'_>, limits: &Limits) -> Result<Vec<Selected>, Refusal> {
    let mut reader = Reader {
        scanner,
        limits,
        budget: limits.outputs,
    };
    let selected = reader.elements(0)?;
    match reader.scanner.is_done() {
        true => Ok(selected),
        false => Err(reader.scanner.refuse("expected \",\" or the end")),
    }
}

struct Reader<'r, 'a> {
    scanner: &'r mut Scanner<'a>,
    limits: &'r Limits,
    /// How many more elements there may be.
    budget: usize,
}

impl Reader<'_, '_> {
    fn elements(&mut self, depth: usize) -> Result<Vec<Selected>, Refusal> {
        if depth > self.limits.embed_depth {
            let limit = self.limits.embed_depth;
            let message = format!("relations are nested deeper than {limit}");
            return Err(Refusal::new(
                "query_too_large",
                message,
                "ask for the innermost rows in a query of their own",
            )
            .at(&self.scanner.place()));
        }
        self.scanner.skip_blanks();
        let mut selected = Vec::new();
        if matches!(self.scanner.peek(), None | Some(')')) {
            return Ok(selected);
        }
        loop {
            self.budget = self.budget.checked_sub(1).ok_or_else(|| {
                let limit = self.limits.outputs;
                Refusal::new(
                    "query_too_large",
                    format!("the query selects more than {limit} values"),
                    "leave select out for all columns, or ask for the others in another query",
                )
                .at(&self.scanner.place())
            })?;
            selected.push(self.element(depth)?);
            if !self.scanner.take_spaced(",") {
                return Ok(selected);
            }
        }
    }

    fn element(&mut self, depth: usize) -> Result<Selected, Refusal> {
        let place = self.scanner.place();
        if self.scanner.take("*") {
            self.scanner.skip_blanks();
            return Ok(Selected::Own(place));
        }
        if self.scanner.take("...") {
            let relation = name::name(self.scanner)?;
            return self.embed(None, relation, true, depth);
        }
        let mut is_quoted = self.scanner.peek() == Some('"');
        let mut name = name::name(self.scanner)?;
        let mut alias = None;
        if self.is_alias() {
            self.scanner.take(":");
            alias = Some(name);
            self.scanner.skip_blanks();
            is_quoted = self.scanner.peek() == Some('"');
            name = name::name(self.scanner)?;
        }
        if name.text == "count" && !is_quoted && self.scanner.take("()") {
            let shown = Shown::Aggregate(Aggregate {
                function: Function::Count,
                argument: None,
                cast: self.cast()?,
            });
            return Ok(Selected::Item(Item {
                alias,
                shown,
                place,
            }));
        }
        if matches!(self.scanner.peek(), Some('(' | '!')) {
            return self.embed(alias, name, false, depth);
        }
        let value = Value {
            path: Path {
                name,
                steps: name::steps(self.scanner)?,
            },
            cast: self.cast()?,
        };
        let shown = match self.scanner.take(".") {
            false => Shown::Value(value),
            true => Shown::Aggregate(Aggregate {
                function: self.function()?,
                argument: Some(value),
                cast: self.cast()?,
            }),
        };
        Ok(Selected::Item(Item {
            alias,
            shown,
            place,
        }))
    }

    /// Whether the name before was an alias: one colon follows, not two.
    fn is_alias(&self) -> bool {
        let rest = self.scanner.rest();
        rest.starts_with(':') && !rest.starts_with("::")
    }

    fn cast(&mut self) -> Result<Option<Name>, Refusal> {
        if !self.scanner.take("::") {
            return Ok(None);
        }
        let place = self.scanner.place();
        let text = self.scanner.until(&['.', ',', '(', ')', ':', '"']).trim();
        match text {
            "" => Err(self.scanner.refuse("expected a type's name")),
            text => Ok(Some(Name {
                text: text.to_owned(),
                place,
            })),
        }
    }

    fn function(&mut self) -> Result<Function, Refusal> {
        let place = self.scanner.place();
        let word = self.scanner.until(&['.', ',', '(', ')', ':', '"']);
        let found = FUNCTIONS.into_iter().find(|f| f.name() == word);
        match found {
            Some(function) if self.scanner.take("()") => {
                self.scanner.skip_blanks();
                Ok(function)
            }
            Some(function) => {
                let name = function.name();
                let message = format!("a function has parentheses: {name}()");
                let hint = format!("write column.{name}()");
                Err(Refusal::new(FORM.code, message, hint).at(&place))
            }
            None => {
                let shown: String = word.chars().take(40).collect();
                let near = nearest(word, FUNCTIONS.map(Function::name));
                let hint = match near.filter(|_| word.len() > 1) {
                    Some(near) => format!("did you mean \"{near}()\"?"),
                    None => "the functions are count(), sum(), avg(), min() and max()".into(),
                };
                let message = format!("there is no function \"{shown}\" over rows");
                Err(Refusal::new("unknown_function", message, hint).at(&place))
            }
        }
    }

    fn embed(
        &mut self,
        alias: Option<Name>,
        relation: Name,
        spread: bool,
        depth: usize,
    ) -> Result<Selected, Refusal> {
        let (mut hint, mut join) = (None, None);
        while self.scanner.take("!") {
            let name = name::name(self.scanner)?;
            let known = match name.text.as_str() {
                "inner" => Some(Join::Inner),
                "left" => Some(Join::Left),
                _ => None,
            };
            let is_second = match known {
                Some(known) => join.replace(known).is_some(),
                None => hint.replace(name.clone()).is_some(),
            };
            if is_second {
                return Err(Refusal::new(
                    FORM.code,
                    "a relation has one hint and one join at most",
                    "write relation!hint!inner(columns), where the hint names a reference, its column, or the read model between",
                )
                .at(&name.place));
            }
        }
        self.scanner.expect("(")?;
        let select = self.elements(depth + 1)?;
        self.scanner.expect_spaced(")")?;
        Ok(Selected::Embed(Embed {
            alias,
            relation,
            hint,
            join,
            spread,
            select,
        }))
    }
}
