//! The text of a rule -> its tree.
//!
//! ```text
//! rule       = all { "or" all }
//! all        = one { "and" one }
//! one        = "not" one | "(" rule ")" | operand comparison
//! comparison = ( "=" | "<>" | "!=" | "<" | "<=" | ">" | ">=" ) operand
//!            | [ "not" ] "in" ( claim | column | "(" literal { "," literal } ")" )
//!            | "is" [ "not" ] "null"
//! operand    = column | claim | literal
//! claim      = "claim" { "." name }
//! literal    = 'text' | number | true | false
//! ```
//! Names are words, or anything in double quotes.

use std::fmt;

/// Bytes of a rule.
const LONGEST: usize = 10_000;
/// How deep parentheses and `not` may be nested.
const DEEPEST: usize = 32;

/// A rule that can be read. Whether it fits a read model, [`Rule::check`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub(super) Tree);

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    /// All of them hold.
    All(Vec<Tree>),
    /// One of them holds.
    Any(Vec<Tree>),
    /// It does not hold.
    Not(Box<Tree>),
    /// Two values compare so.
    Compare(Operand, Comparison, Operand),
    /// A value is one of several.
    In(Operand, Several),
    /// A column has no value.
    IsNull(String),
}

/// Ways to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operand {
    Column(String),
    /// The path to a claim.
    Claim(Vec<String>),
    Literal(Literal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Number(String),
    Bool(bool),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Several {
    /// The path to a claim that is an array.
    Claim(Vec<String>),
    Literals(Vec<Literal>),
    /// A column that is an array.
    Column(String),
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (character {at})")]
pub struct Malformed {
    /// What is wrong.
    pub message: String,
    /// Where, counted from 1.
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Text(String),
    Number(String),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(text) | Token::Number(text) => write!(f, "{text}"),
            Token::Quoted(text) => write!(f, "\"{text}\""),
            Token::Text(text) => write!(f, "'{text}'"),
            Token::Sign(sign) => f.write_str(sign),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 11] = ["<=", ">=", "<>", "!=", "=", "<", ">", "(", ")", ",", "."];
const KEYWORDS: [&str; 9] = [
    "and", "or", "not", "in", "is", "null", "true", "false", "claim",
];

impl Rule {
    /// Reads a rule.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > LONGEST {
            return Err(Malformed {
                message: format!("a rule has at most {LONGEST} bytes"),
                at: LONGEST,
            });
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            next: 0,
            end: text.chars().count() + 1,
            depth: 0,
        };
        let tree = parser.rule()?;
        match parser.peek() {
            None => Ok(Rule(tree)),
            Some(token) => {
                let message = format!("\"and\" or \"or\" is expected, not {token}");
                Err(parser.refuse(message))
            }
        }
    }
}

impl Rule {
    /// The same for a rule that was checked before. One that cannot be read shows nothing.
    pub fn parse_or_nobody(text: &str) -> Self {
        Self::parse(text).unwrap_or(Rule(Tree::Any(Vec::new())))
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, Malformed> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while let Some(&first) = chars.get(i) {
        let at = i + 1;
        let word = |from: usize, fits: fn(char) -> bool| -> String {
            chars[from..].iter().take_while(|c| fits(**c)).collect()
        };
        let token = if first.is_whitespace() {
            i += 1;
            continue;
        } else if first == '\'' || first == '"' {
            let (content, after) = quoted(&chars, i)?;
            i = after;
            match first {
                '\'' => Token::Text(content),
                _ => Token::Quoted(content),
            }
        } else if first.is_ascii_digit() || first == '-' {
            let number = word(i, |c| c.is_ascii_alphanumeric() || "+-.".contains(c));
            i += number.len();
            Token::Number(number)
        } else if first.is_alphabetic() || first == '_' {
            let word = word(i, |c| c.is_alphanumeric() || c == '_');
            i += word.chars().count();
            Token::Word(word)
        } else {
            let starts = |sign: &&&str| {
                let mut rest = chars[i..].iter();
                sign.chars().all(|c| rest.next() == Some(&c))
            };
            let Some(sign) = SIGNS.iter().find(starts) else {
                let message = format!("{first} has no meaning here");
                return Err(Malformed { message, at });
            };
            i += sign.len();
            Token::Sign(sign)
        };
        tokens.push((token, at));
    }
    Ok(tokens)
}

/// What stands between quotes, which are doubled inside, and the place after it.
fn quoted(chars: &[char], start: usize) -> Result<(String, usize), Malformed> {
    let quote = chars[start];
    let mut content = String::new();
    let mut i = start + 1;
    while let Some(&c) = chars.get(i) {
        match (c == quote, chars.get(i + 1) == Some(&quote)) {
            (true, true) => i += 1,
            (true, false) => return Ok((content, i + 1)),
            (false, _) => {}
        }
        content.push(c);
        i += 1;
    }
    Err(Malformed {
        message: format!("the {quote} is not closed"),
        at: start + 1,
    })
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
    depth: usize,
}

impl Parser {
    fn rule(&mut self) -> Result<Tree, Malformed> {
        let mut ways = vec![self.all()?];
        while self.take_word("or") {
            ways.push(self.all()?);
        }
        Ok(one_or(ways, Tree::Any))
    }

    fn all(&mut self) -> Result<Tree, Malformed> {
        let mut parts = vec![self.one()?];
        while self.take_word("and") {
            parts.push(self.one()?);
        }
        Ok(one_or(parts, Tree::All))
    }

    fn one(&mut self) -> Result<Tree, Malformed> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.refuse(format!("the rule is nested deeper than {DEEPEST}")));
        }
        let tree = if self.take_word("not") {
            Tree::Not(Box::new(self.one()?))
        } else if self.take_sign("(") {
            let tree = self.rule()?;
            self.expect(")")?;
            tree
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(tree)
    }

    fn comparison(&mut self) -> Result<Tree, Malformed> {
        let place = self.next;
        let left = self.operand()?;
        if self.take_word("is") {
            let is_not = self.take_word("not");
            if !self.take_word("null") {
                return Err(self.expected("null"));
            }
            let Operand::Column(column) = left else {
                self.next = place;
                return Err(self.refuse("only a column can be tested for null".into()));
            };
            return Ok(negated_if(is_not, Tree::IsNull(column)));
        }
        let is_not = self.take_word("not");
        if self.take_word("in") {
            let several = self.several()?;
            let columns = matches!((&left, &several), (Operand::Column(_), Several::Column(_)));
            if columns {
                self.next = place;
                return Err(self.refuse("two columns cannot be compared with each other".into()));
            }
            return Ok(negated_if(is_not, Tree::In(left, several)));
        }
        if is_not {
            return Err(self.expected("in"));
        }
        let comparator = self.comparator()?;
        let right = self.operand()?;
        let columns = [&left, &right].map(|side| matches!(side, Operand::Column(_)));
        let is_equality = matches!(comparator, Comparison::Eq | Comparison::Neq);
        let why = match columns {
            [true, true] => "two columns cannot be compared with each other",
            [false, false] if !is_equality => {
                "without a column, only = and <> and in can be asked for"
            }
            _ => return Ok(Tree::Compare(left, comparator, right)),
        };
        self.next = place;
        Err(self.refuse(why.to_owned()))
    }

    fn comparator(&mut self) -> Result<Comparison, Malformed> {
        for (sign, comparator) in [
            ("=", Comparison::Eq),
            ("<>", Comparison::Neq),
            ("!=", Comparison::Neq),
            ("<=", Comparison::Lte),
            (">=", Comparison::Gte),
            ("<", Comparison::Lt),
            (">", Comparison::Gt),
        ] {
            if self.take_sign(sign) {
                return Ok(comparator);
            }
        }
        Err(self.expected("a comparison (= <> < <= > >= in is)"))
    }

    fn several(&mut self) -> Result<Several, Malformed> {
        if self.take_word("claim") {
            return Ok(Several::Claim(self.path()?));
        }
        if !self.take_sign("(") {
            return match self.operand()? {
                Operand::Column(name) => Ok(Several::Column(name)),
                _ => {
                    self.next -= 1;
                    Err(self.expected("a claim, a column or a list such as ('a', 'b')"))
                }
            };
        }
        let mut literals = Vec::new();
        loop {
            match self.operand()? {
                Operand::Literal(literal) => literals.push(literal),
                _ => {
                    self.next -= 1;
                    return Err(self.expected("a text in single quotes, a number, true or false"));
                }
            }
            if !self.take_sign(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(Several::Literals(literals))
    }

    fn operand(&mut self) -> Result<Operand, Malformed> {
        if self.take_word("claim") {
            return Ok(Operand::Claim(self.path()?));
        }
        let literal = |literal| Ok(Operand::Literal(literal));
        match self.take() {
            Some(Token::Text(text)) => literal(Literal::Text(text)),
            Some(Token::Number(number)) => literal(Literal::Number(number)),
            Some(Token::Quoted(name)) => Ok(Operand::Column(name)),
            Some(Token::Word(word)) => match word.to_ascii_lowercase().as_str() {
                "true" => literal(Literal::Bool(true)),
                "false" => literal(Literal::Bool(false)),
                other if KEYWORDS.contains(&other) => {
                    self.next -= 1;
                    Err(self.expected("a column, a claim or a value"))
                }
                _ => Ok(Operand::Column(word)),
            },
            taken => {
                self.next -= usize::from(taken.is_some());
                Err(self.expected("a column, a claim or a value"))
            }
        }
    }

    /// What follows the word `claim`.
    fn path(&mut self) -> Result<Vec<String>, Malformed> {
        let mut path = Vec::new();
        while path.is_empty() || self.peek() == Some(&Token::Sign(".")) {
            self.expect(".")?;
            match self.take() {
                Some(Token::Word(name) | Token::Quoted(name)) => path.push(name),
                taken => {
                    self.next -= usize::from(taken.is_some());
                    return Err(self.expected("the name of a claim"));
                }
            }
        }
        Ok(path)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned()?;
        self.next += 1;
        Some(token)
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let is_it =
            matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(is_it);
        is_it
    }

    fn take_sign(&mut self, wanted: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Sign(sign)) if *sign == wanted);
        self.next += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, sign: &str) -> Result<(), Malformed> {
        match self.take_sign(sign) {
            true => Ok(()),
            false => Err(self.expected(sign)),
        }
    }

    fn expected(&self, what: &str) -> Malformed {
        self.refuse(match self.peek() {
            Some(token) => format!("{what} is expected, not {token}"),
            None => format!("{what} is expected at the end"),
        })
    }

    fn refuse(&self, message: String) -> Malformed {
        let at = self.tokens.get(self.next).map_or(self.end, |(_, at)| *at);
        Malformed { message, at }
    }
}

fn one_or(mut trees: Vec<Tree>, several: fn(Vec<Tree>) -> Tree) -> Tree {
    match (trees.len(), trees.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            trees.extend(last);
            several(trees)
        }
    }
}

fn negated_if(is_not: bool, tree: Tree) -> Tree {
    match is_not {
        true => Tree::Not(Box::new(tree)),
        false => tree,
    }
}
