use super::*;
use crate::query::scan::parameters;

fn read(query: &str) -> Result<Request, Refusal> {
    let limits = Limits {
        filters: 5,
        list: 3,
        depth: 2,
        ..Limits::default()
    };
    parse(&parameters(query, &limits)?, &limits)
}

/// A short form of conditions: columns and texts without their places.
fn show(filter: &Filter) -> String {
    let list = |filters: &[Filter]| filters.iter().map(show).collect::<Vec<_>>().join(" ");
    match filter {
        Filter::All(filters) => format!("(and {})", list(filters)),
        Filter::Any(filters) => format!("(or {})", list(filters)),
        Filter::Not(filter) => format!("(not {})", show(filter)),
        Filter::Path(path, test) => {
            let of = shown(path);
            match test {
                Test::Compare(comparator, value) => {
                    format!("({comparator:?} {of} [{}])", value.text)
                }
                Test::Each(comparator, quantifier, value) => {
                    format!("({comparator:?} {quantifier:?} {of} [{}])", value.text)
                }
                Test::In(values) => {
                    let values: Vec<_> = values.iter().map(|v| format!("[{}]", v.text)).collect();
                    format!("(In {of} {})", values.join(""))
                }
                Test::Is(keyword, _) => format!("({keyword:?} {of})"),
                Test::Search(search, configuration, value) => {
                    let configuration = configuration.as_ref().map_or("", |name| &name.text);
                    format!("({search:?} {configuration} {of} [{}])", value.text)
                }
            }
        }
    }
}

fn shown(path: &Path) -> String {
    let steps: Vec<String> = path.steps.iter().map(Step::to_string).collect();
    format!("{}{}", path.name.text, steps.join(""))
}

#[test]
fn conditions_are_read_as_postgrest_reads_them() {
    let check = |query: &str, expected: &str| {
        let request = read(query).unwrap_or_else(|refusal| panic!("{query}: {refusal}"));
        let shown: Vec<_> = request.filters.iter().map(show).collect();
        assert_eq!(shown.join(" "), expected, "{query}");
    };
    check("", "");
    check("a=eq.1", "(Eq a [1])");
    check("a=eq.", "(Eq a [])");
    check("a=eq.1&a=neq.2", "(Eq a [1]) (Neq a [2])");
    check("a=eq.x.y,z(1)%26%22", "(Eq a [x.y,z(1)&\"])");
    check("a=not.gte.1", "(not (Gte a [1]))");
    check("a=in.(1,2)", "(In a [1][2])");
    check("a=in.()", "(In a )");
    check("a=in.(\"x,)\",\"q\\\"\\\\\",z)", "(In a [x,)][q\"\\][z])");
    check("a=not.in.(1)", "(not (In a [1]))");
    check("a=is.null&b=is.NOT_NULL", "(Null a) (NotNull b)");
    check("a=is.true&b=not.is.unknown", "(True a) (not (Unknown b))");
    check("or=(a.eq.1,b.lt.2)", "(or (Eq a [1]) (Lt b [2]))");
    check(
        "and=(a.eq.1,not.or(b.lt.2,c.not.is.null))",
        "(and (Eq a [1]) (not (or (Lt b [2]) (not (Null c)))))",
    );
    check("not.and=(a.eq.1)", "(not (and (Eq a [1])))");
    check(
        "or=(\"a.b\".eq.\"x)\",order.in.(1,2))",
        "(or (Eq a.b [x)]) (In order [1][2]))",
    );
    check("a=like(any).{b*,c}", "(Like Any a [{b*,c}])");
    check("a=not.eq(all).{1}", "(not (Eq All a [{1}]))");
    check(
        "a=isdistinct.1&a=imatch.^b",
        "(IsDistinct a [1]) (Imatch a [^b])",
    );
    check(
        "a=fts.x y&a=not.wfts(german).z",
        "(Fts  a [x y]) (not (Wfts german a [z]))",
    );
    check(
        "or=(a.cs.{1,2},a.ov.{3})",
        "(or (Cs a [{1,2}]) (Ov a [{3}]))",
    );
    check(
        "or=(a.eq.{\"b\":{\"c\":1},\"d\":\"}\"},e.eq.1)",
        "(or (Eq a [{\"b\":{\"c\":1},\"d\":\"}\"}]) (Eq e [1]))",
    );
    check("or=(a.eq.{x,b.eq.y)", "(or (Eq a [{x]) (Eq b [y]))");
    check(
        "or=(a.eq.5\",b.eq.\"c\"d)",
        "(or (Eq a [5\"]) (Eq b [\"c\"d]))",
    );
    check("a=in.(\"b\"c, \"d\" ,e )", "(In a [\"b\"c][d][e ])");
    check(
        "and=( or ( a.in.( 1, 2 ) , b.is.null ) , c.eq.3 )",
        "(and (or (In a [1][ 2 ]) (Null b)) (Eq c [3 ]))",
    );
    check("a->b->>c=eq.1", "(Eq a->b->>c [1])");
    check("a->0->>-1=eq.1", "(Eq a->0->>-1 [1])");
    check("a->0x->>\"b.c\"=eq.1", "(Eq a->\"0x\"->>\"b.c\" [1])");
    check(
        "or=(a->b-c->>d.eq.1,a b.eq.2)",
        "(or (Eq a->\"b-c\"->>d [1]) (Eq a b [2]))",
    );
    check("\"a.b\"=eq.1", "(Eq a.b [1])");
    check("größe=eq.ä", "(Eq größe [ä])");
}

#[test]
fn what_is_shown_is_read_as_postgrest_reads_it() {
    fn show(selected: &[Selected]) -> String {
        let alias = |alias: &Option<Name>| match alias {
            Some(name) => format!("{}=", name.text),
            None => String::new(),
        };
        let cast = |cast: &Option<Name>| match cast {
            Some(name) => format!(":{}", name.text),
            None => String::new(),
        };
        let value = |value: &Value| format!("{}{}", shown(&value.path), cast(&value.cast));
        let one = |element: &Selected| match element {
            Selected::Own(_) => "*".to_owned(),
            Selected::Item(item) => {
                let what = match &item.shown {
                    Shown::Value(shown) => value(shown),
                    Shown::Aggregate(shown) => {
                        let of = shown.argument.as_ref().map_or("*".to_owned(), value);
                        format!("{}({of}){}", shown.function.name(), cast(&shown.cast))
                    }
                };
                format!("{}{what}", alias(&item.alias))
            }
            Selected::Embed(embed) => format!(
                "{}{}{}{}{}[{}]",
                if embed.spread { "..." } else { "" },
                alias(&embed.alias),
                embed.relation.text,
                embed
                    .hint
                    .as_ref()
                    .map_or(String::new(), |hint| format!("!{}", hint.text)),
                embed
                    .join
                    .map_or(String::new(), |join| format!("!{join:?}")),
                show(&embed.select),
            ),
        };
        selected.iter().map(one).collect::<Vec<_>>().join(" ")
    }
    let check = |select: &str, expected: &str| {
        let request = read(&format!("select={select}"));
        let request = request.unwrap_or_else(|refusal| panic!("{select}: {refusal}"));
        assert_eq!(show(&request.select.unwrap()), expected, "{select}");
    };
    check("", "");
    check("*", "*");
    check("\"x y\":count(),z: count()", "x y=count(*) z=count(*)");
    check("a, b ,*", "a b *");
    check("x:a,\"y z\":\"b,c\"", "x=a y z=b,c");
    check(
        "a::text,x:a::double precision",
        "a:text x=a:double precision",
    );
    check("a->b->>c::int,n:a->>0", "a->b->>c:int n=a->>0");
    check(
        "count(),n:count()::text,count",
        "count(*) n=count(*):text count",
    );
    check(
        "a.sum(),s:a->>b::int.sum()::text",
        "sum(a) s=sum(a->>b:int):text",
    );
    check("a(b,c(*))", "a[b c[*]]");
    check(
        "x:a!inner!h(),...b!left(c),d()",
        "x=a!h!Inner[] ...b!Left[c] d[]",
    );
}

#[test]
fn what_is_asked_of_relations_is_kept_apart() {
    let request =
        read("a.b=eq.1&a.c.not.or=(d.eq.1)&a.order=e.desc&a.limit=3&a.c.offset=4&order=f(g).asc,h")
            .unwrap();
    let relations: Vec<String> = request
        .nested
        .iter()
        .map(|nested| {
            let names: Vec<_> = nested.relations.iter().map(|r| r.text.as_str()).collect();
            let part = match &nested.part {
                Part::Filter(filter) => show(filter),
                Part::Order(terms) => shown(&terms[0].path),
                Part::Limit(limit) => limit.to_string(),
                Part::Offset(offset) => offset.to_string(),
            };
            format!("{} {part}", names.join("."))
        })
        .collect();
    assert_eq!(
        relations,
        [
            "a (Eq b [1])",
            "a.c (not (or (Eq d [1])))",
            "a e",
            "a 3",
            "a.c 4"
        ]
    );
    let relation = request.order[0].relation.as_ref().unwrap();
    assert_eq!(
        (
            relation.text.as_str(),
            request.order[1].path.name.text.as_str()
        ),
        ("f", "h")
    );
}

#[test]
fn malformed_queries_are_refused_with_their_place() {
    let check = |query: &str, code: &str, at: usize| {
        let refusal = read(query).expect_err(query);
        assert_eq!(refusal.code, code, "{query}: {refusal}");
        let found = match refusal.place {
            Place::Parameter { at, .. } => at,
            _ => 0,
        };
        assert_eq!(found, at, "{query}: {refusal}");
        assert!(!refusal.hint.is_empty(), "{query}: {refusal}");
    };
    check("a=1", "unknown_operator", 1);
    check("a=equals.1", "unknown_operator", 1);
    check("a=not.1", "unknown_operator", 5);
    check("a=likes.x", "unknown_operator", 1);
    check("a=sl.[1,2]", "unknown_operator", 1);
    check("a=neq(any).{1}", "invalid_filter", 4);
    check("a=eq(some).{1}", "invalid_filter", 3);
    check("a=eq().1", "invalid_filter", 3);
    check("a=in(any).(1)", "invalid_filter", 3);
    check("a=fts(english.x", "invalid_filter", 12);
    check("a->=eq.1", "invalid_filter", 4);
    check("a->--1=eq.1", "invalid_filter", 4);
    check("a->99999999999=eq.1", "invalid_filter", 4);
    check("=eq.1", "invalid_filter", 0);
    check("a:b=eq.1", "invalid_filter", 2);
    check("a=eq", "invalid_filter", 3);
    check("a=in.1", "invalid_filter", 4);
    check("a=in.(1", "invalid_filter", 6);
    check("a=in.(1))", "invalid_filter", 7);
    check("a=in.(\"1)", "invalid_filter", 5);
    check("a=is.nil", "invalid_filter", 4);
    check("a=in.(1,2,3,4)", "query_too_large", 11);
    check("or=(a.eq.1", "invalid_filter", 8);
    check("or=(a.eq.1)x", "invalid_filter", 9);
    check("or=()", "invalid_filter", 2);
    check("or=(é.eq.(1))", "invalid_filter", 10);
    check("and=(or(and(a.eq.1)))", "invalid_filter", 8);
    check(
        "or=(a.is.null,a.is.null,a.is.null,a.is.null,a.is.null,a.is.null)",
        "query_too_large",
        54,
    );
    check("select=a,,b", "invalid_select", 3);
    check("select=a::", "invalid_select", 4);
    check("select=a.sum", "invalid_select", 3);
    check("select=a.median()", "unknown_function", 3);
    check("select=a b(", "invalid_select", 5);
    check("select=a(b", "invalid_select", 4);
    check("select=a!b!c(d)", "invalid_select", 5);
    check("select=a(b(c(d(e(f)))))", "query_too_large", 11);
    check("select=a)", "invalid_select", 2);
    check("select=\"a", "invalid_select", 1);
    check("select=a->(b", "invalid_select", 4);
    check("order=a.down", "invalid_order", 3);
    check("order=a.asc.desc", "invalid_order", 7);
    check("order=a.nullslast.asc", "invalid_order", 13);
    check("order=a,", "invalid_order", 3);
    check("limit=-1", "range_not_satisfiable", 1);
    check("limit=-x", "invalid_limit", 1);
    check("limit=ten", "invalid_limit", 1);
    check("limit=99999999999999999999", "invalid_limit", 1);
    check("offset=9223372036854775808", "invalid_offset", 1);
    check("limit=1&limit=2", "duplicate_parameter", 1);
    check("order=a&order=b", "duplicate_parameter", 1);
    check("min_position=x", "invalid_min_position", 1);
    check("wait=5", "invalid_wait", 1);
    check("wait=61s", "invalid_wait", 1);
    check("wait=99999999999999999999s", "invalid_wait", 1);
    check("live=sse", "unsupported_parameter", 1);
}

#[test]
fn order_pages_and_waiting_are_read() {
    let request =
        read("order=a.desc.nullslast,b,c.nullsfirst&limit=10&offset=20&min_position=7&wait=250ms")
            .unwrap();
    let terms: Vec<_> = request
        .order
        .iter()
        .map(|term| (term.path.name.text.as_str(), term.direction, term.nulls))
        .collect();
    assert_eq!(
        terms,
        [
            ("a", Direction::Descending, Some(Nulls::Last)),
            ("b", Direction::Ascending, None),
            ("c", Direction::Ascending, Some(Nulls::First)),
        ]
    );
    assert_eq!((request.limit, request.offset), (Some(10), 20));
    assert_eq!(request.min_position, Some(7));
    assert_eq!(request.wait, Some(Duration::from_millis(250)));
}

#[test]
fn no_text_makes_the_parser_panic() {
    // A fixed xorshift: the same texts in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let pieces = [
        "a",
        "eq",
        ".",
        ",",
        "(",
        ")",
        "\"",
        "\\",
        "not.",
        "and",
        "or",
        "in.",
        "is.",
        "null",
        "=",
        "&",
        "order=",
        "select=",
        "*",
        "desc",
        "%22",
        "%",
        "%c3%a9",
        "é",
        "+",
        "limit=",
        "wait=",
        "9",
        "s",
        "cursor=",
        "::",
        "->",
        "'",
        ";--",
        "\u{1F600}",
    ];
    for _ in 0..50_000 {
        let count = next(20);
        let text: String = (0..count).map(|_| pieces[next(pieces.len())]).collect();
        // Refused or read, never a panic; a place is within the text.
        if let Err(Refusal {
            place: Place::Parameter { at, .. },
            ..
        }) = read(&text)
        {
            assert!(at <= text.chars().count() + 1, "{text}: {at}");
        }
    }
}
