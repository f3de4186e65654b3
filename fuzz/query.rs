//! What must hold for any query string: reading, checking and writing the statement do not panic, every parameter of
//! the text is there, and the text is made of the engine's own words alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use gobo::query::board::Slot;
use gobo::query::catalog::{ByName, Head, Readable, Standing, Upstream};
use gobo::query::plan::Around;
use gobo::query::rules::{ADMIN, Rules, Viewer};
use gobo::query::sql::{Count, Lines, Shape, Statement, Target};
use gobo::query::{Limits, Place, Refusal, parse, plan, scan, sql};
use gobo::read_model::{Column, ReadModel, Reference};
use tokio::sync::watch;

/// A read model with columns of all types, others around it, and the words that its statements are made of.
pub(crate) struct Harness {
    readable: Arc<Readable>,
    models: ByName,
    rules: Rules,
    viewer: Viewer,
    limits: Limits,
    words: BTreeSet<String>,
}

const COLUMNS: [(&str, &str); 17] = [
    ("id", "int4"),
    ("flag", "bool"),
    ("i2", "int2"),
    ("i8", "int8"),
    ("f4", "float4"),
    ("f8", "float8"),
    ("num", "numeric"),
    ("txt", "text"),
    ("bin", "bytea"),
    ("uid", "uuid"),
    ("day", "date"),
    ("at", "timestamptz"),
    ("raw", "json"),
    ("doc", "jsonb"),
    ("tags", "text[]"),
    ("nums", "int8[]"),
    ("up", "int4"),
];

/// Another read model, which refers to it twice.
const NOTES: [(&str, &str); 4] = [
    ("note", "text"),
    ("thing", "int4"),
    ("other", "int4"),
    ("words", "text[]"),
];

/// A reader's own text in the queries below. No statement may contain it.
const MARK: &str = "zqzq";

/// Queries that between them use everything a statement can contain.
const BASELINE: [&str; 34] = [
    "",
    "select=*,_position,_revision,_updated_at",
    "select=zqzq:id,x:doc->zqzq,doc->>\"zqzq.\",doc->0->-1",
    "select=tags->0,nums->>1&order=tags->zqzq.desc.nullslast,flag.asc.nullsfirst",
    "select=count(),a:id.sum(),b:f8.avg(),c:txt.min(),d:at.max(),e:doc.count(),flag,txt&order=flag.desc,a",
    "select=zqzq:id::text,b:id::smallint,c:id::int,d:id::bigint,e:id::real,f:id::float8,g:id::numeric,h:flag::bool",
    "select=a:txt::bytea,b:txt::uuid,c:txt::date,d:txt::timestamptz,e:txt::json,f:txt::jsonb,g:tags::text[]",
    "select=a:txt::int2[],b:txt::int4[],c:txt::int8[],d:txt::float4[],e:txt::float8[],f:txt::numeric[],g:txt::bool[]",
    "select=a:txt::bytea[],b:txt::uuid[],c:txt::date[],d:txt::timestamptz[]",
    "txt=eq.zqzq&txt=neq.zqzq&txt=gt.zqzq&txt=gte.zqzq&txt=lt.zqzq&txt=lte.zqzq&txt=isdistinct.zqzq",
    "txt=like.*zqzq&txt=ilike.zqzq&txt=match.zqzq&txt=imatch.zqzq",
    "txt=like(any).{zqzq}&txt=eq(all).{\"zqzq\"}",
    "tags=cs.{zqzq}&tags=cd.{zqzq}&tags=ov.{zqzq}&tags=in.(\"{zqzq}\",{})",
    "txt=in.(zqzq,\"zqzq\")&txt=in.()&doc->>zqzq=in.(zqzq)",
    "flag=is.true&flag=is.false&flag=is.unknown&flag=is.null&flag=is.not_null&flag=not.is.true",
    "or=(txt.eq.zqzq,not.and(txt.eq.\"zqzq\",doc->zqzq.cs.\"[\\\"zqzq\\\"]\"))&not.or=(txt.eq.zqzq)",
    "txt=fts.zqzq&txt=plfts.zqzq&txt=phfts.zqzq&txt=wfts.zqzq",
    "order=id.desc&limit=5&offset=7",
    "order=txt.desc,id.asc,doc->>zqzq",
    "select=id,zqzq:txt::date&order=zqzq",
    // Cursors: of one direction, and of several with NULLs.
    "cursor=eyJ2IjoxLCJtIjoidGhpbmdzIiwibyI6ImlkLmFzYyIsImsiOlsiMSJdfQ",
    "order=txt.desc&cursor=eyJ2IjoxLCJtIjoidGhpbmdzIiwibyI6InR4dC5kZXNjLm51bGxzZmlyc3QsaWQuZGVzYyIsImsiOlsienF6cSIsIjEiXX0",
    "order=txt&cursor=eyJ2IjoxLCJtIjoidGhpbmdzIiwibyI6InR4dC5hc2MubnVsbHNsYXN0LGlkLmFzYyIsImsiOltudWxsLCIxIl19",
    "order=txt.nullsfirst&cursor=eyJ2IjoxLCJtIjoidGhpbmdzIiwibyI6InR4dC5hc2MubnVsbHNmaXJzdCxpZC5hc2MiLCJrIjpbbnVsbCwiMSJdfQ",
    // Embeds: to one row and to many, four deep, as tests, in orders, spread, counted.
    "select=id,zqzq:notes!thing(*),notes!others(note,words->0,x:thing::text)&zqzq.note=eq.zqzq&zqzq.order=note.desc&zqzq.limit=3&zqzq.offset=1",
    "select=*,zqzq:up(id,txt),things(id)&things.or=(txt.eq.zqzq,flag.is.true)&zqzq.not.and=(id.gt.1,id.lt.9)",
    "select=id,...up(zqzq:txt,x:doc->zqzq,notes!thing(count()))&order=up(txt).desc.nullslast,up(doc->>zqzq)",
    "select=id,up!inner(),things!inner(id)&up.doc->>zqzq=match.zqzq",
    "select=id,zqzq:up(),notes!thing()&zqzq=is.null&notes=not.is.null&or=(zqzq.is.null,not.and(notes.is.null,id.gt.1))",
    "select=id,notes!thing(other(things(up(id))))&notes.limit=2&notes.other.things.limit=2",
    "select=id,notes!thing!inner(other!inner(things!inner(up!inner(id))))&notes.limit=2&notes.other.things.limit=2",
    "select=notes!thing(thing,count(),max:note.max())&notes.order=count.desc&notes.limit=5",
    "select=id,up(up(up(up(id,txt))))&up.id=eq.1",
    "select=up(id,...up(zqzq:id,...up(txt::text)))&up.up.txt=eq.zqzq&limit=1",
];

const CONFIGURATIONS: &str = "simple arabic armenian basque catalan danish dutch english finnish french german greek hindi hungarian \
    indonesian irish italian lithuanian nepali norwegian portuguese romanian russian serbian spanish swedish tamil turkish yiddish";

impl Harness {
    /// Learns the words from queries that use everything.
    pub(crate) fn new() -> Self {
        let things = readable("things", &COLUMNS, &[("things_up_fkey", 16)]);
        let notes = readable("notes", &NOTES, &[("notes_thing_fkey", 1), ("others", 2)]);
        let models = [things, notes].map(|one| (one.model.name.clone(), Arc::new(one)));
        let models = ByName::from(models);
        let mut harness = Self {
            readable: models["things"].clone(),
            models,
            rules: Rules::default(),
            viewer: Viewer {
                roles: [ADMIN.to_owned()].into(),
                ..Viewer::default()
            },
            limits: Limits::default(),
            words: BTreeSet::new(),
        };
        for (name, _) in COLUMNS.into_iter().chain(NOTES) {
            harness.words.insert(format!("\"{name}\""));
        }
        let configured = CONFIGURATIONS
            .split_whitespace()
            .map(|name| format!("txt=wfts({name}).zqzq"));
        let queries = BASELINE.map(str::to_owned).into_iter().chain(configured);
        for query in queries {
            let statements = harness
                .statements(&query)
                .unwrap_or_else(|refusal| panic!("{query}: {refusal}"));
            for statement in statements {
                assert!(
                    !statement.text.contains(MARK),
                    "{query}: {}",
                    statement.text
                );
                harness.words.extend(words(&statement.text));
            }
        }
        harness
    }

    /// Whether the query was accepted, having checked what must hold.
    pub(crate) fn check(&self, query: &str) -> bool {
        match self.statements(query) {
            Ok(statements) => {
                statements
                    .iter()
                    .for_each(|one| self.check_statement(query, one));
                true
            }
            Err(refusal) => {
                assert!(!refusal.code.is_empty() && !refusal.message.is_empty());
                assert!(!refusal.hint.is_empty(), "{query}: {refusal}");
                self.check_place(query, &refusal);
                // A refusal repeats a little of what it is about, and no more.
                let told = refusal.to_string().len() + refusal.hint.len();
                assert!(told < 4_000, "{query}: {refusal} {}", refusal.hint);
                false
            }
        }
    }

    /// A place is in a parameter of the query, unless it is a name that cannot be read, or the query as a whole.
    fn check_place(&self, query: &str, refusal: &Refusal) {
        let Place::Parameter { name, at } = &refusal.place else {
            let whole = ["query_too_large", "invalid_encoding", "invalid_filter"];
            assert!(whole.contains(&refusal.code), "{query}: {refusal:?}");
            return;
        };
        let parameters = scan::parameters(query, &self.limits).unwrap_or_default();
        let there = |parameter: &scan::Parameter<'_>| {
            let longest = parameter.name.len().max(parameter.value.len());
            parameter.name.starts_with(name.as_str()) && (1..=longest + 1).contains(at)
        };
        assert!(
            parameters.is_empty() || parameters.iter().any(there),
            "{query}: {refusal:?}"
        );
    }

    fn check_statement(&self, query: &str, statement: &Statement) {
        for word in words(&statement.text) {
            let is_number = word.bytes().all(|b| b.is_ascii_digit());
            let is_parameter = word.strip_prefix('$').is_some_and(|number| {
                let number = number.parse::<usize>();
                number.is_ok_and(|n| (1..=statement.parameters.len()).contains(&n))
            });
            let is_column = word
                .strip_prefix('c')
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            assert!(
                is_number || is_parameter || is_column || self.words.contains(&word),
                "{query:?} writes {word:?}: {}",
                statement.text
            );
        }
    }

    /// The statements of a query, in all forms of an answer.
    fn statements(&self, query: &str) -> Result<Vec<Statement>, Refusal> {
        let parameters = scan::parameters(query, &self.limits)?;
        let model = &self.readable.model;
        let around = Around {
            models: &self.models,
            from: &self.readable,
            rules: &self.rules,
            viewer: &self.viewer,
        };
        plan::check_names(&parameters, model, &self.limits)?;
        let request = parse::parse(&parameters, &self.limits)?;
        let plan = plan::rows(model, &around, &request, &self.limits)?;
        let target = Target {
            generation: 1,
            standing: Standing::Live,
            schema: "gobo_g1",
            answer_bytes: self.limits.answer_bytes,
        };
        let shapes = [
            (Lines::Json, None),
            (Lines::Stripped, Some(Count::Estimated { above: 10 })),
            (Lines::Csv, Some(Count::Exact)),
        ];
        Ok(shapes
            .map(|(lines, count)| sql::rows(&plan, target, Shape { lines, count }))
            .into())
    }
}

/// A read model with the first column as its key, and which columns refer to `things`.
fn readable(name: &str, columns: &[(&str, &str)], references: &[(&str, usize)]) -> Readable {
    let column = |(at, (name, kind)): (usize, &(&str, &str))| Column {
        name: (*name).to_owned(),
        kind: kind.parse().expect("a type of the contract"),
        nullable: at > 0,
        comment: None,
    };
    let reference = |(name, column): &(&str, usize)| Reference {
        name: (*name).to_owned(),
        columns: vec![*column],
        target: "things".to_owned(),
        target_columns: None,
    };
    Readable {
        model: ReadModel {
            name: name.to_owned(),
            comment: None,
            per_stream: false,
            key: vec![0],
            columns: columns.iter().enumerate().map(column).collect(),
            indexes: Vec::new(),
            references: references.iter().map(reference).collect(),
        },
        projection: name.to_owned(),
        generation: 1,
        standing: Standing::Live,
        schema: "gobo_g1".to_owned(),
        source: "gobo".to_owned(),
        upstream: Upstream {
            head: watch::channel(Head::default()).1,
            age_after: Arc::new(|_| Box::pin(async { Ok(None) })),
            position_at: Arc::new(|_| Box::pin(async { Ok(0) })),
            poke: Arc::new(|| {}),
        },
        slot: Slot::default(),
    }
}

/// The words of SQL: names and literals with their quotes, numbers, parameters, and every other character for itself.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |at| at + 2),
            c if c.is_alphanumeric() || c == '_' || c == '$' => rest[c.len_utf8()..]
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(rest.len(), |at| at + c.len_utf8()),
            c => c.len_utf8(),
        };
        words.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    words
}
