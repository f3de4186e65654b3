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
        Filter::Column(name, Test::Compare(comparator, value)) => {
            format!("({comparator:?} {} [{}])", name.text, value.text)
        }
        Filter::Column(name, Test::In(values)) => {
            let values: Vec<_> = values.iter().map(|v| format!("[{}]", v.text)).collect();
            format!("(In {} {})", name.text, values.join(""))
        }
        Filter::Column(name, Test::Is(keyword, _)) => format!("({keyword:?} {})", name.text),
    }
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
}

#[test]
fn malformed_queries_are_refused_with_their_place() {
    let check = |query: &str, code: &str, at: usize| {
        let refusal = read(query).expect_err(query);
        assert_eq!(refusal.code, code, "{query}: {refusal}");
        let place = refusal.place.as_ref().map_or(0, |place| place.at);
        assert_eq!(place, at, "{query}: {refusal}");
    };
    check("a=1", "unknown_operator", 1);
    check("a=equals.1", "unknown_operator", 1);
    check("a=not.1", "unknown_operator", 5);
    check("a=like.x", "unknown_operator", 1);
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
    check("or=(é.eq.(1))", "invalid_filter", 7);
    check("and=(or(and(a.eq.1)))", "invalid_filter", 8);
    check(
        "or=(a.is.null,a.is.null,a.is.null,a.is.null,a.is.null,a.is.null)",
        "query_too_large",
        54,
    );
    check("select=", "invalid_select", 1);
    check("select=a,,b", "invalid_select", 3);
    check("select=a::int", "invalid_select", 2);
    check("order=a.down", "invalid_order", 3);
    check("order=a.asc.desc", "invalid_order", 7);
    check("order=a.nullslast.asc", "invalid_order", 13);
    check("order=a,", "invalid_order", 3);
    check("limit=-1", "invalid_limit", 1);
    check("limit=ten", "invalid_limit", 1);
    check("limit=99999999999999999999", "invalid_limit", 1);
    check("offset=9223372036854775808", "invalid_offset", 1);
    check("limit=1&limit=2", "duplicate_parameter", 0);
    check("order=a&order=b", "duplicate_parameter", 0);
    check("min_position=x", "invalid_min_position", 1);
    check("wait=5", "invalid_wait", 1);
    check("wait=61s", "invalid_wait", 1);
    check("wait=99999999999999999999s", "invalid_wait", 1);
    check("live=sse", "unsupported_parameter", 0);
}

#[test]
fn order_pages_and_waiting_are_read() {
    let request =
        read("order=a.desc.nullslast,b,c.nullsfirst&limit=10&offset=20&min_position=7&wait=250ms")
            .unwrap();
    let terms: Vec<_> = request
        .order
        .iter()
        .map(|term| (term.column.text.as_str(), term.direction, term.nulls))
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
            place: Some(place), ..
        }) = read(&text)
        {
            assert!(place.at <= text.chars().count() + 1, "{text}: {place:?}");
        }
    }
}
