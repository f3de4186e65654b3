//! Conditions: which operator fits which type, and whether a value fits its column.

use super::embed::{self, Embeds, Related};
use super::expression::{Expression, JSON, TEXT, expression, find};
use crate::query::parse::{Comparator, Filter, Keyword, Literal, Name, Quantifier, Search, Test};
use crate::query::value::{self, array};
use crate::query::{Limits, Place, Refusal, nearest};
use crate::read_model::{ColumnType, ReadModel, Scalar};

/// A condition on a row's values, with values to compare with in PostgreSQL's text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition<'m> {
    /// All of them hold.
    All(Vec<Condition<'m>>),
    /// One of them holds.
    Any(Vec<Condition<'m>>),
    /// It does not hold.
    Not(Box<Condition<'m>>),
    /// It compares so with the value, which has the same type.
    Compare(Expression<'m>, Comparator, String),
    /// It compares so with one or all elements, given as an array literal of the same type.
    Each(Expression<'m>, Comparator, Quantifier, String),
    /// It is one of the values.
    In(Expression<'m>, Vec<String>),
    /// It is this.
    Is(Expression<'m>, Keyword),
    /// There are rows of an embedded read model that belong to it.
    Related(Box<Related<'m>>),
    /// The reader may see it: what a rule says. It stands first, and what could fail is asked only where it holds.
    Seen(Box<Condition<'m>>),
    /// Its words match, read in the way of a text search configuration.
    Search(Expression<'m>, Search, Option<&'static str>, String),
}

impl Condition<'_> {
    /// Whether it can be asked of any row: it never fails, whatever is in the row, so it tells nothing of rows that it does
    /// not let through.
    pub(in crate::query) fn is_silent(&self) -> bool {
        use Comparator::{Eq, Gt, Gte, IsDistinct, Lt, Lte, Neq};
        match self {
            Condition::All(conditions) | Condition::Any(conditions) => {
                conditions.iter().all(Condition::is_silent)
            }
            Condition::Not(condition) | Condition::Seen(condition) => condition.is_silent(),
            Condition::Compare(left, comparator, _) => {
                left.column().is_some()
                    && matches!(comparator, Eq | Neq | Gt | Gte | Lt | Lte | IsDistinct)
            }
            Condition::In(left, _) | Condition::Is(left, _) => left.column().is_some(),
            Condition::Each(..) | Condition::Related(_) | Condition::Search(..) => false,
        }
    }
}

/// The text search configurations that PostgreSQL comes with (those of version 14 on).
pub(in crate::query) const CONFIGURATIONS: [&str; 29] = [
    "simple",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
];

/// What an operator needs to work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Equality,
    Text,
    Containment,
    Array,
    Words,
}

impl Needs {
    fn of(comparator: Comparator) -> Self {
        match comparator {
            Comparator::Eq
            | Comparator::Neq
            | Comparator::Gt
            | Comparator::Gte
            | Comparator::Lt
            | Comparator::Lte
            | Comparator::IsDistinct => Needs::Equality,
            Comparator::Like | Comparator::Ilike | Comparator::Match | Comparator::Imatch => {
                Needs::Text
            }
            Comparator::Cs | Comparator::Cd => Needs::Containment,
            Comparator::Ov => Needs::Array,
        }
    }

    fn are_met_by(self, kind: ColumnType) -> bool {
        let is_jsonb = kind == ColumnType::Scalar(Scalar::Jsonb);
        let is_array = matches!(kind, ColumnType::Array(_));
        match self {
            Needs::Equality => kind != JSON,
            Needs::Text => kind == TEXT,
            Needs::Containment => is_array || is_jsonb,
            Needs::Array => is_array,
            Needs::Words => kind == TEXT || kind == JSON || is_jsonb,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Needs::Equality => "every type but json",
            Needs::Text => "text",
            Needs::Containment => "arrays and jsonb",
            Needs::Array => "arrays",
            Needs::Words => "text, json and jsonb",
        }
    }
}

/// The operators that a type has, by their names in the grammar.
pub fn operators(kind: ColumnType) -> Vec<&'static str> {
    let groups: [(Needs, &[&str]); 5] = [
        (
            Needs::Equality,
            &["eq", "neq", "gt", "gte", "lt", "lte", "in", "isdistinct"],
        ),
        (Needs::Text, &["like", "ilike", "match", "imatch"]),
        (Needs::Words, &["fts", "plfts", "phfts", "wfts"]),
        (Needs::Containment, &["cs", "cd"]),
        (Needs::Array, &["ov"]),
    ];
    let fitting = groups.iter().filter(|group| group.0.are_met_by(kind));
    let names = fitting.flat_map(|group| group.1.iter().copied());
    ["is"].into_iter().chain(names).collect()
}

/// Checks conditions against a read model.
pub(super) fn conditions<'m>(
    model: &'m ReadModel,
    filters: &[Filter],
    embeds: &Embeds<'m>,
    limits: &Limits,
) -> Result<Vec<Condition<'m>>, Refusal> {
    let one = |filter| condition(model, filter, embeds, limits);
    filters.iter().map(one).collect()
}

fn condition<'m>(
    model: &'m ReadModel,
    filter: &Filter,
    embeds: &Embeds<'m>,
    limits: &Limits,
) -> Result<Condition<'m>, Refusal> {
    Ok(match filter {
        Filter::All(filters) => Condition::All(conditions(model, filters, embeds, limits)?),
        Filter::Any(filters) => Condition::Any(conditions(model, filters, embeds, limits)?),
        Filter::Not(filter) => Condition::Not(Box::new(condition(model, filter, embeds, limits)?)),
        Filter::Path(path, test) => {
            if path.steps.is_empty()
                && find(model, &path.name.text).is_none()
                && let Some(existence) = embed::existence(embeds, &path.name, test)
            {
                return existence;
            }
            let left = expression(model, path, limits)?;
            tested(left, &path.name.place, test, limits)?
        }
    })
}

fn tested<'m>(
    left: Expression<'m>,
    place: &Place,
    test: &Test,
    limits: &Limits,
) -> Result<Condition<'m>, Refusal> {
    Ok(match test {
        Test::Compare(comparator, literal) => {
            let needs = Needs::of(*comparator);
            meets(&left, needs, comparator.name(), &literal.place)?;
            let text = match needs {
                Needs::Text => pattern(*comparator, literal, limits)?,
                _ => fit(&left, literal, limits)?,
            };
            Condition::Compare(left, *comparator, text)
        }
        Test::Each(comparator, quantifier, literal) => {
            let needs = Needs::of(*comparator);
            meets(&left, needs, comparator.name(), &literal.place)?;
            let elements = each(&left, needs, *comparator, literal, limits)?;
            Condition::Each(left, *comparator, *quantifier, elements)
        }
        Test::In(literals) => {
            meets(&left, Needs::Equality, "in", place)?;
            let values: Result<_, _> = literals.iter().map(|l| fit(&left, l, limits)).collect();
            Condition::In(left, values?)
        }
        Test::Is(keyword, place) => {
            let keyword = is(&left, *keyword, place)?;
            Condition::Is(left, keyword)
        }
        Test::Search(search, name, literal) => {
            meets(&left, Needs::Words, search.name(), &literal.place)?;
            bounded(literal, limits)?;
            let configuration = name.as_ref().map(configuration).transpose()?;
            Condition::Search(left, *search, configuration, literal.text.clone())
        }
    })
}

fn meets(
    left: &Expression<'_>,
    needs: Needs,
    operator: &str,
    place: &Place,
) -> Result<(), Refusal> {
    let kind = left.kind();
    if needs.are_met_by(kind) {
        return Ok(());
    }
    let what = described(left);
    let mut hint = format!("{operator} works on {}", needs.in_words());
    hint.push_str(&format!(
        "; with {kind} these work: {}",
        operators(kind).join(", ")
    ));
    if kind == JSON {
        hint.push_str(
            " (declare the column as jsonb to compare its values, or take a text with ->>)",
        );
    }
    Err(Refusal::new(
        "unfit_operator",
        format!("{what} has type {kind}, on which {operator} does not work"),
        hint,
    )
    .at(place))
}

/// A value of a row as messages call it.
fn described(left: &Expression<'_>) -> String {
    let text = left.to_string();
    let shown: String = text.chars().take(120).collect();
    match left.column() {
        Some(_) => format!("column \"{shown}\""),
        None => format!("the value of {shown}"),
    }
}

fn bounded(literal: &Literal, limits: &Limits) -> Result<(), Refusal> {
    match literal.text.chars().count() <= limits.pattern {
        true => Ok(()),
        false => Err(Refusal::new(
            "query_too_large",
            format!("a pattern has more than {} characters", limits.pattern),
            "ask for a part of it that few rows have; a long text as a whole is compared with eq",
        )
        .at(&literal.place)),
    }
}

/// A pattern as PostgreSQL has it. `*` stands for `%`, which is hard to write in a URL.
fn pattern(comparator: Comparator, literal: &Literal, limits: &Limits) -> Result<String, Refusal> {
    bounded(literal, limits)?;
    complete(comparator, &literal.text, literal)?;
    Ok(with_stars(comparator, &literal.text))
}

/// A pattern that ends with an escape of nothing is an error only of the rows that match up to there: whether there is one would
/// tell what is in rows that the reader may not see.
fn complete(comparator: Comparator, text: &str, literal: &Literal) -> Result<(), Refusal> {
    let escapes = text.len() - text.trim_end_matches('\\').len();
    match comparator {
        Comparator::Like | Comparator::Ilike if escapes % 2 == 1 => Err(Refusal::new(
            "invalid_value",
            "the pattern ends with a backslash that escapes nothing",
            "write a backslash itself as two",
        )
        .at(&literal.place)),
        _ => Ok(()),
    }
}

fn with_stars(comparator: Comparator, text: &str) -> String {
    match comparator {
        Comparator::Like | Comparator::Ilike => text.replace('*', "%"),
        _ => text.to_owned(),
    }
}

fn each(
    left: &Expression<'_>,
    needs: Needs,
    comparator: Comparator,
    literal: &Literal,
    limits: &Limits,
) -> Result<String, Refusal> {
    let ColumnType::Scalar(scalar) = left.kind() else {
        let (what, kind) = (described(left), left.kind());
        return Err(Refusal::new(
            "unfit_operator",
            format!("{what} has type {kind}: it cannot be compared with the elements of an array"),
            "leave any or all out, or use cs, cd or ov",
        )
        .at(&literal.place));
    };
    if needs == Needs::Text {
        bounded(literal, limits)?;
    }
    let elements = value::elements(scalar, &literal.text).map_err(|misfit| {
        misfits(
            left,
            literal,
            &format!("{scalar}[]", scalar = scalar.name()),
            misfit,
        )
    })?;
    few(elements.len(), literal, limits)?;
    for text in elements.iter().flatten() {
        complete(comparator, text, literal)?;
    }
    let elements = elements
        .into_iter()
        .map(|element| element.map(|text| with_stars(comparator, &text)));
    Ok(array::write(elements))
}

fn few(count: usize, literal: &Literal, limits: &Limits) -> Result<(), Refusal> {
    match count <= limits.list {
        true => Ok(()),
        false => Err(Refusal::new(
            "query_too_large",
            format!("an array has more than {} elements", limits.list),
            "ask for the other elements in another query",
        )
        .at(&literal.place)),
    }
}

/// The text to bind for a value of the left side's type.
pub(super) fn fit(
    left: &Expression<'_>,
    literal: &Literal,
    limits: &Limits,
) -> Result<String, Refusal> {
    let kind = left.kind();
    if let ColumnType::Array(scalar) = kind
        && let Ok(elements) = value::elements(scalar, &literal.text)
    {
        few(elements.len(), literal, limits)?;
    }
    value::check(kind, &literal.text)
        .map_err(|misfit| misfits(left, literal, &kind.to_string(), misfit))
}

fn misfits(left: &Expression<'_>, literal: &Literal, kind: &str, misfit: value::Misfit) -> Refusal {
    let shown: String = literal.text.chars().take(80).collect();
    let what = described(left);
    let mut message = match left.kind().to_string() == kind {
        true => format!("\"{shown}\" is no value of {what}, which has type {kind}"),
        false => format!("\"{shown}\" is no {kind} to compare {what} with"),
    };
    if shown.eq_ignore_ascii_case("null") {
        message.push_str("; NULL is tested with is.null");
    }
    Refusal::new("invalid_value", message, misfit.0).at(&literal.place)
}

fn is(left: &Expression<'_>, keyword: Keyword, place: &Place) -> Result<Keyword, Refusal> {
    let is_bool = left.kind() == ColumnType::Scalar(Scalar::Bool);
    if !is_bool && !matches!(keyword, Keyword::Null | Keyword::NotNull) {
        return Err(Refusal::new(
            "unfit_operator",
            format!("{} has type {}, not bool", described(left), left.kind()),
            "only null and not_null can be tested for",
        )
        .at(place));
    }
    Ok(keyword)
}

fn configuration(name: &Name) -> Result<&'static str, Refusal> {
    let found = CONFIGURATIONS.into_iter().find(|known| *known == name.text);
    found.ok_or_else(|| {
        let shown: String = name.text.chars().take(40).collect();
        let message = format!("there is no text search configuration \"{shown}\"");
        let hint = match nearest(&name.text, CONFIGURATIONS) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("the configurations are {}", CONFIGURATIONS.join(", ")),
        };
        Refusal::new("unknown_configuration", message, hint).at(&name.place)
    })
}
