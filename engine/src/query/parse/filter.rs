//! Conditions: a recursive descent over one parameter's value.
//!
//! ```text
//! group      = "(" condition *("," condition) ")"
//! condition  = ["not."] ("and" | "or") group | path "." ["not."] test
//! test       = operator ["(" ("any" | "all") ")"] "." value
//!            | "in.(" [value *("," value)] ")" | "is." keyword
//!            | ("fts" | "plfts" | "phfts" | "wfts") ["(" configuration ")"] "." value
//! keyword    = "null" | "not_null" | "true" | "false" | "unknown"
//! ```

use super::name::{self, Name, Path};
use super::{Form, LOGIC, Limits, Parameter, Place, Refusal, Scanner, scanner};

/// A condition, or a group of them.
pub(super) const FORM: Form = Form {
    code: "invalid_filter",
    hint: "a filter is written price=gt.100, id=in.(1,2) or name=is.null, and a group of them \
           or=(price.gt.100,not.and(id.gte.1,id.lte.9)); in parentheses, a value with , ( ) or \" stands in double quotes",
};

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All of them hold.
    All(Vec<Filter>),
    /// One of them holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A column, or a place in its JSON, passes a test.
    Path(Path, Test),
}

impl Filter {
    /// Where it stands: the first column that it names.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Filter::All(filters) | Filter::Any(filters) => filters.iter().find_map(Filter::place),
            Filter::Not(filter) => filter.place(),
            Filter::Path(path, _) => Some(&path.name.place),
        }
    }
}

/// What a value is tested for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It compares so with the other value.
    Compare(Comparator, Literal),
    /// It compares so with one or all elements of an array.
    Each(Comparator, Quantifier, Literal),
    /// It is one of the values.
    In(Vec<Literal>),
    /// It is this.
    Is(Keyword, Place),
    /// Its words match.
    Search(Search, Option<Name>, Literal),
}

/// A value, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// Ways to compare two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are PostgREST's own names")]
pub enum Comparator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
    Match,
    Imatch,
    IsDistinct,
    Cs,
    Cd,
    Ov,
}

/// Whether a comparison holds for one element of an array, or for every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are SQL's own words")]
pub enum Quantifier {
    Any,
    All,
}

/// What may follow `is`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are SQL's own words")]
pub enum Keyword {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// Ways to read what is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are PostgREST's own names")]
pub enum Search {
    Fts,
    Plfts,
    Phfts,
    Wfts,
}

const COMPARATORS: [(&str, Comparator); 14] = [
    ("eq", Comparator::Eq),
    ("neq", Comparator::Neq),
    ("gt", Comparator::Gt),
    ("gte", Comparator::Gte),
    ("lt", Comparator::Lt),
    ("lte", Comparator::Lte),
    ("like", Comparator::Like),
    ("ilike", Comparator::Ilike),
    ("match", Comparator::Match),
    ("imatch", Comparator::Imatch),
    ("isdistinct", Comparator::IsDistinct),
    ("cs", Comparator::Cs),
    ("cd", Comparator::Cd),
    ("ov", Comparator::Ov),
];

const SEARCHES: [(&str, Search); 4] = [
    ("fts", Search::Fts),
    ("plfts", Search::Plfts),
    ("phfts", Search::Phfts),
    ("wfts", Search::Wfts),
];

const KEYWORDS: [(&str, Keyword); 5] = [
    ("null", Keyword::Null),
    ("not_null", Keyword::NotNull),
    ("true", Keyword::True),
    ("false", Keyword::False),
    ("unknown", Keyword::Unknown),
];

/// Operators of ranges, a type that no column has.
const OF_RANGES: [&str; 5] = ["sl", "sr", "nxr", "nxl", "adj"];

impl Comparator {
    /// Its name in the grammar.
    pub fn name(self) -> &'static str {
        COMPARATORS[self as usize].0
    }

    /// Whether `any` and `all` may follow it (as in PostgREST, where `neq` does not take them).
    fn takes_quantifier(self) -> bool {
        !matches!(
            self,
            Comparator::Neq
                | Comparator::IsDistinct
                | Comparator::Cs
                | Comparator::Cd
                | Comparator::Ov
        )
    }
}

impl Search {
    /// Its name in the grammar.
    pub fn name(self) -> &'static str {
        SEARCHES[self as usize].0
    }
}

fn look_up<T: Copy>(entries: &[(&str, T)], word: &str) -> Option<T> {
    entries.iter().find(|entry| entry.0 == word).map(|e| e.1)
}

/// One parameter's conditions.
pub(super) struct Filters<'a> {
    scanner: Scanner<'a>,
    limits: &'a Limits,
    /// How many more comparisons this query may have.
    budget: &'a mut usize,
}

impl<'a> Filters<'a> {
    pub(super) fn new(
        parameter: &'a Parameter<'_>,
        limits: &'a Limits,
        budget: &'a mut usize,
    ) -> Self {
        Self {
            scanner: scanner(parameter, FORM),
            limits,
            budget,
        }
    }

    /// The whole value as the group that `word` combines.
    pub(super) fn group_of(mut self, word: &str) -> Result<Filter, Refusal> {
        let filter = self.combined(word, 1)?;
        self.end(filter)
    }

    /// The whole value as a test of the column or path that the parameter names.
    pub(super) fn test_of(mut self, mut path: Path) -> Result<Filter, Refusal> {
        path.name.place = self.scanner.place();
        let filter = self.test(path, Nesting::Top)?;
        self.end(filter)
    }

    fn end(&self, filter: Filter) -> Result<Filter, Refusal> {
        match self.scanner.is_done() {
            true => Ok(filter),
            false => Err(self.scanner.refuse("expected the end here")),
        }
    }

    /// The group that follows `and`, `or`, or one of them with `not.` before it.
    fn combined(&mut self, word: &str, depth: usize) -> Result<Filter, Refusal> {
        let group = self.group(depth)?;
        let filter = match word.ends_with("and") {
            true => Filter::All(group),
            false => Filter::Any(group),
        };
        Ok(match word.starts_with("not.") {
            true => Filter::Not(Box::new(filter)),
            false => filter,
        })
    }

    fn group(&mut self, depth: usize) -> Result<Vec<Filter>, Refusal> {
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            return Err(self
                .scanner
                .refuse(format!("conditions are nested deeper than {limit}"))
                .hint("groups of one kind need no nesting: and(a,and(b,c)) is and(a,b,c)"));
        }
        self.scanner.expect_spaced("(")?;
        let mut filters = vec![self.condition(depth)?];
        while self.scanner.take_spaced(",") {
            filters.push(self.condition(depth)?);
        }
        self.scanner.expect_spaced(")")?;
        Ok(filters)
    }

    fn condition(&mut self, depth: usize) -> Result<Filter, Refusal> {
        for word in LOGIC {
            let rest = self.scanner.rest().strip_prefix(word);
            if rest.is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('(')) {
                self.scanner.take(word);
                return self.combined(word, depth + 1);
            }
        }
        let path = name::path(&mut self.scanner)?;
        self.scanner.expect(".")?;
        self.test(path, Nesting::Inside)
    }

    fn test(&mut self, path: Path, nesting: Nesting) -> Result<Filter, Refusal> {
        *self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            let limit = self.limits.filters;
            Refusal::new(
                "query_too_large",
                format!("the query has more than {limit} conditions"),
                "ask for several values of a column by one condition, id=in.(1,2,3), or in several queries",
            )
            .at(&self.scanner.place())
        })?;
        let negated = self.scanner.take("not.");
        let place = self.scanner.place();
        let word = self.scanner.until(&['.', ',', '(', ')']);
        let test = if let Some(comparator) = look_up(&COMPARATORS, word) {
            self.comparison(comparator, nesting)?
        } else if let Some(search) = look_up(&SEARCHES, word) {
            let configuration = self.configuration()?;
            self.scanner.expect(".")?;
            Test::Search(search, configuration, self.value(nesting)?)
        } else if word == "in" {
            self.scanner.expect(".")?;
            Test::In(self.list()?)
        } else if word == "is" {
            self.scanner.expect(".")?;
            let place = self.scanner.place();
            Test::Is(self.keyword()?, place)
        } else {
            return Err(unknown_operator(word, &path.name.text, &place));
        };
        let filter = Filter::Path(path, test);
        Ok(match negated {
            true => Filter::Not(Box::new(filter)),
            false => filter,
        })
    }

    fn comparison(&mut self, comparator: Comparator, nesting: Nesting) -> Result<Test, Refusal> {
        let place = self.scanner.place();
        let quantifier = match self.scanner.take("(") {
            false => None,
            true => {
                let quantifier = match self.scanner.until(&['.', ',', '(', ')']) {
                    "any" => Quantifier::Any,
                    "all" => Quantifier::All,
                    _ => {
                        return Err(self
                            .scanner
                            .refuse("only any and all may stand in parentheses")
                            .hint(format!("for example {}(any).{{a,b}}", comparator.name()))
                            .at(&place));
                    }
                };
                self.scanner.expect(")")?;
                Some(quantifier)
            }
        };
        if quantifier.is_some() && !comparator.takes_quantifier() {
            let taking = COMPARATORS
                .iter()
                .filter(|entry| entry.1.takes_quantifier());
            let taking: Vec<&str> = taking.map(|entry| entry.0).collect();
            let name = comparator.name();
            return Err(self
                .scanner
                .refuse(format!("{name} takes neither any nor all"))
                .hint(format!("these take them: {}", taking.join(", ")))
                .at(&place));
        }
        self.scanner.expect(".")?;
        let value = self.value(nesting)?;
        Ok(match quantifier {
            None => Test::Compare(comparator, value),
            Some(quantifier) => Test::Each(comparator, quantifier, value),
        })
    }

    fn configuration(&mut self) -> Result<Option<Name>, Refusal> {
        if !self.scanner.take("(") {
            return Ok(None);
        }
        let place = self.scanner.place();
        let text = self.scanner.until(&['.', ',', '(', ')']).to_owned();
        self.scanner.expect(")")?;
        Ok(Some(Name { text, place }))
    }

    fn value(&mut self, nesting: Nesting) -> Result<Literal, Refusal> {
        let place = self.scanner.place();
        let text = match nesting {
            Nesting::Top => self.scanner.all().to_owned(),
            Nesting::Inside => match self.quoted()? {
                Some(text) => text,
                None => match braced(self.scanner.rest()) {
                    Some(bytes) => self.scanner.bytes(bytes).to_owned(),
                    None => self.scanner.until(&[',', ')']).to_owned(),
                },
            },
        };
        Ok(Literal { text, place })
    }

    /// A value in double quotes. Quotes that more follows than the value's end are the value's own.
    fn quoted(&mut self) -> Result<Option<String>, Refusal> {
        let mark = self.scanner.mark();
        self.scanner.skip_blanks();
        let text = self.scanner.quoted()?;
        self.scanner.skip_blanks();
        let has_ended = matches!(self.scanner.peek(), None | Some(',' | ')'));
        if text.is_none() || !has_ended {
            self.scanner.reset(mark);
        }
        Ok(text.filter(|_| has_ended))
    }

    fn list(&mut self) -> Result<Vec<Literal>, Refusal> {
        self.scanner.expect_spaced("(")?;
        let mut values = Vec::new();
        if self.scanner.take_spaced(")") {
            return Ok(values);
        }
        loop {
            if values.len() == self.limits.list {
                return Err(Refusal::new(
                    "query_too_large",
                    format!("a list has more than {} values", self.limits.list),
                    "ask for the rest in another query; or for a range: id=gte.1&id=lte.5000",
                )
                .at(&self.scanner.place()));
            }
            let place = self.scanner.place();
            let text = match self.quoted()? {
                Some(text) => text,
                None => self.scanner.until(&[',', ')']).to_owned(),
            };
            values.push(Literal { text, place });
            if !self.scanner.take(",") {
                break;
            }
        }
        self.scanner.expect_spaced(")")?;
        Ok(values)
    }

    fn keyword(&mut self) -> Result<Keyword, Refusal> {
        let place = self.scanner.place();
        let word = self
            .scanner
            .until(&[',', ')'])
            .trim_end_matches([' ', '\t']);
        KEYWORDS
            .iter()
            .find(|entry| entry.0.eq_ignore_ascii_case(word))
            .map(|entry| entry.1)
            .ok_or_else(|| {
                let shown: String = word.chars().take(40).collect();
                Refusal::new(
                    "invalid_filter",
                    format!("a column cannot be tested with is.{shown}"),
                    "is takes null, not_null, true, false or unknown",
                )
                .at(&place)
            })
    }
}

/// Whether a value ends with its parameter, or before the next comma or parenthesis.
#[derive(Debug, Clone, Copy)]
enum Nesting {
    Top,
    Inside,
}

/// How many bytes an array or object in braces has at the start of `text`, if it ends with its value: within braces a
/// comma separates nothing.
fn braced(text: &str) -> Option<usize> {
    let ends = |at: &usize| {
        let rest = text[*at..].trim_start_matches([' ', '\t']);
        rest.is_empty() || rest.starts_with([',', ')'])
    };
    let inner = text.strip_prefix('{')?;
    // Without braces inside it is one whatever the quotes; this is all that PostgREST knows.
    let plain = inner
        .find(['{', '}'])
        .filter(|&at| inner[at..].starts_with('}'))
        .map(|at| at + 2);
    if let Some(bytes) = plain.filter(ends) {
        return Some(bytes);
    }
    let (mut depth, mut in_quotes) = (0_usize, false);
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1).filter(ends);
                }
            }
            _ => {}
        }
    }
    None
}

fn unknown_operator(word: &str, column: &str, place: &Place) -> Refusal {
    let known = COMPARATORS
        .iter()
        .map(|entry| entry.0)
        .chain(SEARCHES.iter().map(|entry| entry.0))
        .chain(["in", "is"]);
    if OF_RANGES.contains(&word) {
        return Refusal::new(
            "unknown_operator",
            format!("{word} compares ranges, and no column of a read model is one"),
            "compare two columns, the ends of the range, with gte, lt and their like",
        )
        .at(place);
    }
    let names: Vec<&str> = known.collect();
    let hint = match crate::query::nearest(word, names.iter().copied()) {
        Some(near) if word.len() > 1 => format!("did you mean \"{near}\"?"),
        _ => {
            let column: String = column.chars().take(80).collect();
            format!(
                "write a filter as {column}=eq.value; the operators are {}, each also with not. before it",
                names.join(", ")
            )
        }
    };
    let shown: String = word.chars().take(40).collect();
    let message = format!("there is no operator \"{shown}\"");
    Refusal::new("unknown_operator", message, hint).at(place)
}
