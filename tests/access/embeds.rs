//! Embeds and row rules: whatever is asked, the answer is the one of a world in which the hidden rows have never been.

use gobo_tests::{Answer, Database, Gobo, wait_until};
use serde_json::{Value, json};

use super::{Guarded, SECRET, bearer, get, jwt_for, token};
use crate::fresh::count;
use crate::scene::{Event, append};

/// Rules on both ends of a reference.
const RULES: &str = "[read_models.authors]\nrows = \"country = claim.country or country is null\"\n\
    [read_models.books]\nrows = \"pages <= claim.most and (in_print is null or in_print = true)\"\n\
    [read_models.shelvings]\nrows = \"place <= claim.most\"";

fn author(id: i64, name: &str, country: Option<&str>) -> Event {
    let data = json!({"id": id, "name": name, "country": country});
    (format!("author-{id}"), "AuthorAdded", data)
}

/// The blurb of a visible book is a number, and that of a hidden one is none: what casts it fails for hidden ones alone.
fn book(id: i64, title: &str, author: Option<i64>, pages: i32, in_print: Option<bool>) -> Event {
    let is_hidden = pages > 500 || in_print == Some(false);
    let data = json!({
        "id": id, "title": title, "author_id": author, "pages": pages, "in_print": in_print,
        "blurb": if is_hidden { format!("secret of {title}") } else { (id * 100).to_string() },
        "price": format!("{id}.50"), "tags": [title], "editions": [1, 2],
        "details": {"place": {"city": title}}, "published": "1961-01-01", "added_at": "2024-01-01T00:00:00Z",
    });
    (format!("book-{id}"), "BookAdded", data)
}

fn shelf(id: i64, name: &str) -> Event {
    let data = json!({"id": id, "name": name});
    (format!("shelf-{id}"), "ShelfAdded", data)
}

/// A book stands on a shelf; beyond place 500 that is hidden.
fn shelved(shelf: i64, book: i64, place: i32) -> Event {
    let data = json!({"shelf_id": shelf, "book_id": book, "place": place});
    (format!("shelf-{shelf}"), "BookShelved", data)
}

/// What the reader sees.
fn visible() -> Vec<Event> {
    vec![
        author(1, "Lem", Some("PL")),
        author(3, "Anonymous", None),
        author(5, "Unread", Some("PL")),
        book(10, "Solaris", Some(1), 200, Some(true)),
        book(11, "Eden", Some(1), 300, None),
        // Its author is hidden.
        book(12, "The Dispossessed", Some(2), 400, Some(true)),
        book(15, "Beowulf", None, 100, None),
        book(16, "Nibelungenlied", Some(3), 499, Some(true)),
        shelf(1, "Poland"),
        shelf(2, "Old"),
        shelf(3, "New"),
        shelved(1, 10, 1),
        shelved(1, 11, 2),
        shelved(2, 15, 1),
        shelved(2, 11, 2),
    ]
}

/// What is hidden from them: authors, books of visible authors, the only book of one, and all of a hidden one's.
fn hidden() -> Vec<Event> {
    vec![
        author(2, "Le Guin", Some("US")),
        author(4, "Nobody's", Some("XX")),
        book(20, "Fiasco", Some(1), 900, Some(true)),
        book(21, "Aaa", Some(1), 10, Some(false)),
        book(22, "Zzz", Some(5), 600, None),
        book(23, "Rocannon", Some(2), 501, Some(true)),
        book(24, "Lost", None, 700, None),
        // Of visible books on visible shelves, and of hidden books.
        shelved(3, 10, 501),
        shelved(2, 16, 900),
        shelved(1, 20, 3),
        shelved(3, 21, 1),
    ]
}

/// An engine with these books, and a token of its administrator.
async fn library(rules: &str, events: &[Event]) -> Guarded {
    let access = format!("[access.jwt]\nsecret = {SECRET:?}\naudience = \"gobo\"\n{rules}");
    let guarded = Guarded::new("", &access).await;
    guarded.deploy("library");
    let positions = append(&guarded.database, events).await;
    let last = positions[positions.len() - 1];
    let path = format!("/read/books?min_position={last}&wait=30s");
    guarded.get(&path, &guarded.admin).expect(200);
    guarded
}

fn reader() -> String {
    jwt_for(json!({"role": "read", "sub": "reader", "country": "PL", "most": 500}))
}

/// What an answer says of rows.
fn told(answer: &Answer) -> (u16, String, [Option<String>; 4]) {
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let headers = ["content-range", "gobo-next-cursor", "link", "content-type"].map(header);
    (answer.status, answer.text(), headers)
}

const QUERIES: &[&str] = &[
    "authors?select=name,books(title)",
    "authors?select=name,books(*)",
    "authors?select=name,books!inner(title)",
    "authors?select=name,books!inner(title)&books.pages=gt.450",
    "authors?select=name,books!inner()&books.title=eq.Fiasco",
    "authors?select=name,books(title)&books.title=in.(Fiasco,Aaa,Solaris)",
    "authors?select=name,books(title)&books.or=(title.eq.Fiasco,pages.lt.250)",
    "authors?select=name,books(title)&books.not.and=(title.eq.Eden,pages.gt.1)",
    "authors?select=name,books(title)&books.order=pages.desc&books.limit=1",
    "authors?select=name,books(title)&books.order=title&books.offset=1",
    "authors?select=name,books(count())",
    "authors?select=name,books(pages.sum(),price.max(),title.min())",
    "authors?select=name,books(in_print,count())",
    "authors?select=name,books(n:blurb::int4)",
    "authors?select=name,books(title)&books.order=blurb.desc",
    "authors?select=name,books(title)&books.blurb=like.secret*",
    "authors?select=name,books(title)&books.blurb=match.^secret",
    "authors?select=name,books(title)&books.blurb=fts(english).secret",
    "authors?select=name,books(title)&books.details->place->>city=eq.Fiasco",
    "authors?select=name,books(title)&books.tags=cs.{Fiasco}",
    "authors?select=name,books()&books=is.null",
    "authors?select=name,books()&books=not.is.null",
    "authors?select=name,books()&or=(books.is.null,name.eq.Lem)",
    "authors?select=name,books()&and=(books.not.is.null,or(name.eq.Lem,name.eq.Anonymous))",
    "authors?select=name,few:books()&few.pages=lt.150&few=is.null",
    "authors?select=name,few:books()&few.pages=gt.500&few=not.is.null",
    "authors?select=name,books()&not.or=(books.is.null,name.eq.Lem)",
    "authors?select=count(),name&order=name",
    "authors?select=name,a:books(title),b:books(pages)&a.pages=gt.250&b.pages=gt.250",
    "authors?select=name,books!inner(authors!inner(name,books(title)))",
    "authors?select=name,books(title,authors(country,books(title,blurb)))&order=name.desc",
    "authors/1?select=name,books(title,n:blurb::int4)",
    "authors/2?select=name,books(title)",
    "authors/5?select=name,books(title)",
    "books?select=title,authors(name)",
    "books?select=title,authors!inner(name)",
    "books?select=title,authors!inner()&authors.country=eq.US",
    "books?select=title,authors()&authors=is.null",
    "books?select=title,authors()&authors=not.is.null",
    "books?select=title,authors()&or=(authors.is.null,pages.lt.250)",
    "books?select=title,...authors(author:name)",
    "books?select=title,...authors(author:name,country)&authors.country=neq.PL",
    "books?select=title,authors(name)&order=authors(name).desc.nullsfirst,title",
    "books?select=title,authors(name)&order=authors(name)&limit=2",
    "books?select=title,authors(name)&order=authors(name)&limit=2&offset=2",
    "books?select=title,authors(name)&order=title&limit=2",
    "books?select=author_id,count()&order=author_id",
    "books?select=title,authors(name,books(count()))",
    "books/12?select=title,authors(name)",
    "books/23?select=title,authors(name)",
    "shelves?select=name,books(title)",
    "shelves?select=name,books!shelvings(*)",
    "shelves?select=name,books(count())",
    "shelves?select=name,books(pages.sum(),title.max())",
    "shelves?select=name,books()&books=is.null",
    "shelves?select=name,books()&books=not.is.null",
    "shelves?select=name,books!inner(title)&books.pages=gt.250",
    "shelves?select=name,books!inner()&books.title=in.(Fiasco,Aaa)",
    "shelves?select=name,books(n:blurb::int4)",
    "shelves?select=name,books(title)&books.blurb=like.secret*",
    "shelves?select=name,books(title,authors(name))&books.order=title.desc&books.limit=1",
    "books?select=title,shelves(name)",
    "books?select=title,shelves(id,books(title))",
    "books?select=title,shelves()&shelves=is.null",
    "books?select=title,shelves!inner(name)&shelves.id=lt.3",
    "authors?select=name,books(shelves(name))",
    "authors?select=name,...books(title,pages)",
    "authors?select=name,...books(n:blurb::int4)&books.order=title.desc&books.limit=2",
    "shelves?select=name,...books(title)",
    "books?select=n:count(),...authors(name)",
    "books?select=pages.sum(),...authors(country)&order=country",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_embed_answers_as_if_hidden_rows_had_never_been() {
    let (mut all, seen) = (hidden(), visible());
    all.extend(seen.clone());
    let (world, other) = (library(RULES, &all).await, library(RULES, &seen).await);
    let jwt = reader();
    let ask = |guarded: &Guarded, method: &str, path: &str, headers: &[(&str, &str)]| {
        let bearer = bearer(&jwt);
        let headers = [headers, &[("authorization", bearer.as_str())]].concat();
        guarded.gobo.request(method, path, &headers, b"")
    };
    let mut answered = 0;
    for query in QUERIES {
        let encoded = [(">", "%3E"), ("{", "%7B"), ("}", "%7D")];
        let encoded = encoded
            .iter()
            .fold((*query).to_owned(), |text, (from, to)| {
                text.replace(from, to)
            });
        let path = format!("/read/{encoded}");
        for headers in [
            &[][..],
            &[("prefer", "count=exact")],
            &[("prefer", "count=planned")],
            &[("prefer", "count=estimated"), ("range", "1-2")],
            &[("range", "0-0"), ("range-unit", "items")],
            &[("accept", "text/csv")],
            &[("accept", "application/vnd.pgrst.object+json")],
        ] {
            for method in ["GET", "HEAD"] {
                let here = ask(&world, method, &path, headers);
                let there = ask(&other, method, &path, headers);
                assert_eq!(told(&here), told(&there), "{method} {query} {headers:?}");
                answered += usize::from(here.status == 200 || here.status == 206);
                for secret in ["Guin", "Fiasco", "Aaa", "Rocannon", "secret of"] {
                    assert!(
                        query.contains(secret) || !here.text().contains(secret),
                        "{query}"
                    );
                }
            }
        }
    }
    assert!(answered > QUERIES.len() * 7, "{answered}");
    let everything = get(
        &world.gobo,
        "/read/authors?select=name,books(title)",
        &world.admin,
    );
    assert!(everything.expect(200).text().contains("Fiasco"));
    pages_are_the_same(&world, &other, &jwt);
}

/// Pages along the cursor, whose end must not tell of rows behind it either.
fn pages_are_the_same(world: &Guarded, other: &Guarded, jwt: &str) {
    for query in [
        "authors?select=name,books(title)&order=name&limit=1",
        "books?select=title,authors!inner(name)&limit=1",
    ] {
        let (mut here, mut there) = (String::new(), String::new());
        for page in 0.. {
            let of = |gobo: &Gobo, cursor: &str| get(gobo, &format!("/read/{query}{cursor}"), jwt);
            let (one, two) = (of(&world.gobo, &here), of(&other.gobo, &there));
            assert_eq!(told(&one), told(&two), "{query}, page {page}");
            match (
                one.header("gobo-next-cursor"),
                two.header("gobo-next-cursor"),
            ) {
                (Some(one), Some(two)) => {
                    (here, there) = (format!("&cursor={one}"), format!("&cursor={two}"));
                }
                _ => break,
            }
        }
        assert!(!here.is_empty(), "{query} has one page only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_hides_embedded_rows_as_well() {
    let mut all = hidden();
    all.extend(visible());
    let library = library(RULES, &all).await;
    let made = library.gobo.command(&[
        "snapshot",
        "library",
        "--as",
        "before",
        "--token",
        &library.admin,
    ]);
    assert!(made.status.success(), "{made:?}");
    let path = "/read/authors?select=name,books(title)&as_of=before";
    let seen = wait_until("the past", || match get(&library.gobo, path, &reader()) {
        answer if answer.status == 200 => Ok(answer),
        answer => Err(answer),
    });
    let now = get(&library.gobo, &path.replace("&as_of=before", ""), &reader()).expect(200);
    assert_eq!(seen.json(), now.json());
    assert!(!seen.text().contains("Fiasco"), "{}", seen.text());
    let path = "/read/shelves?select=name,books(title)&as_of=before";
    let seen = get(&library.gobo, path, &reader()).expect(200);
    let now = get(&library.gobo, &path.replace("&as_of=before", ""), &reader()).expect(200);
    assert_eq!(seen.json(), now.json());
    assert_eq!(seen.json()[2], json!({"name": "New", "books": []}));
}

/// Only what is between is hidden, not the rows on either side.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_over_rows_between_hides_what_they_relate() {
    let rules = "[read_models.shelvings]\nrows = \"place <= claim.most\"";
    let mut all = visible();
    all.extend([shelved(3, 10, 501), shelved(3, 11, 900)]);
    let library = library(rules, &all).await;
    let read = |query: &str, prefer: &str| {
        let headers = [("authorization", &*bearer(&reader())), ("prefer", prefer)];
        let path = format!("/read/{query}");
        library.gobo.request("GET", &path, &headers, b"")
    };
    let related = "shelves?select=name,books!inner()&order=name";
    for prefer in ["count=exact", "count=planned", "count=estimated"] {
        let found = read(related, prefer);
        assert_eq!(found.json(), json!([{"name": "Old"}, {"name": "Poland"}]));
        // Not what the planner expects, which knows of hidden rows.
        assert_eq!(found.header("content-range"), Some("0-1/2"), "{prefer}");
    }
    for (query, expected) in [
        (
            "shelves?select=books(count())&id=eq.3",
            json!([{"books": [{"count": 0}]}]),
        ),
        (
            "shelves?select=name,books()&books=is.null",
            json!([{"name": "New"}]),
        ),
        (
            "shelves?select=...books(title)&id=eq.3",
            json!([{"title": []}]),
        ),
        (
            "books?select=shelves(name)&id=eq.10",
            json!([{"shelves": [{"name": "Poland"}]}]),
        ),
    ] {
        assert_eq!(read(query, "handling=lenient").json(), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embed_of_what_one_may_not_read_is_an_embed_of_nothing_known() {
    let library = library("[read_models.books]\nreaders = [\"staff\"]", &visible()).await;
    let reader = jwt_for(json!({"role": "read"}));
    for path in [
        "/read/authors?select=name,books(title)",
        "/read/authors?select=name,books!inner(title)",
        "/read/authors?select=name,books!books_author_id_fkey(title)",
        "/read/authors?select=name,books_author_id_fkey(title)",
        "/read/authors?select=name,book(title)",
        "/read/authors?select=name,...books(title)",
    ] {
        let refused = get(&library.gobo, path, &reader).expect(400);
        let absent = get(&library.gobo, &path.replace("book", "zzzz"), &reader).expect(400);
        assert_eq!(
            refused.text().replace("book", "zzzz"),
            absent.text(),
            "{path}"
        );
    }
    let staff = jwt_for(json!({"roles": ["read", "staff"]}));
    get(
        &library.gobo,
        "/read/authors?select=name,books(title)",
        &staff,
    )
    .expect(200);
}

/// Both caches, asked by two people on two engines in every order: the one's rows are never the other's.
#[tokio::test(flavor = "multi_thread")]
async fn caches_are_shared_by_those_who_see_the_same_and_by_nobody_else() {
    let redis = gobo_tests::Redis::create();
    let database = Database::create().await;
    let admin = token(&database, "admin", &["--role", "admin"]);
    let tables = format!(
        "[access]\ntokens = true\n[access.jwt]\nsecret = {SECRET:?}\naudience = \"gobo\"\n[cache]\nmax_age_ms = 0\n{RULES}\n{}timeout_ms = 10000\n",
        redis.section()
    );
    let nodes = [(); 2].map(|()| Gobo::start(database.url(), &tables));
    for node in &nodes {
        wait_until("Redis to be used", || {
            let metrics = get(node, "/metrics", &admin).expect(200).text();
            match count(&metrics, "gobo_redis_up") {
                1 => Ok(()),
                other => Err(other),
            }
        });
    }
    let module = gobo_tests::wasm_bytes("library");
    let headers = [
        ("content-type", "application/wasm"),
        ("authorization", &*bearer(&admin)),
    ];
    nodes[0]
        .request("POST", "/admin/projections", &headers, &module)
        .expect(201);
    let mut all = hidden();
    all.extend(visible());
    let last = *append(&database, &all).await.last().unwrap();
    let paths = [
        "/read/books?select=title&order=id",
        "/read/books?select=title,authors(name)&order=id",
        "/read/authors?select=name,books(title)&order=id",
        "/read/books/20?select=title",
        "/read/books/10?select=title,authors(name)",
    ];
    for node in &nodes {
        wait_until("the rows", || {
            match get(
                node,
                &format!("/read/books?min_position={last}&wait=10s"),
                &admin,
            ) {
                answer if answer.status == 200 => Ok(()),
                answer => Err(answer),
            }
        });
    }
    let person = |sub: &str, claims: Value| {
        let mut all = json!({"role": "read", "sub": sub});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        jwt_for(all)
    };
    let reader = person("reader", json!({"country": "PL", "most": 500}));
    let twin = person("twin", json!({"country": "PL", "most": 500}));
    let american = person("american", json!({"country": "US", "most": 1_000}));
    let nobody = person("nobody", json!({}));
    let answers = |node: &Gobo, jwt: &str| -> Vec<(u16, String)> {
        let ask = |path: &&str| get(node, path, jwt);
        paths
            .iter()
            .map(ask)
            .map(|a| (a.status, a.text()))
            .collect()
    };
    // In this order, what the one has asked for is in a cache when the next asks.
    let first: Vec<_> = [&reader, &american, &nobody, &admin]
        .map(|who| answers(&nodes[0], who))
        .into();
    for (one, other) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        assert_ne!(first[one][0], first[other][0], "{one} and {other}");
    }
    assert!(
        !format!("{:?}", first[0]).contains("Fiasco"),
        "{:?}",
        first[0]
    );
    for _ in 0..2 {
        for node in nodes.iter().rev() {
            for (who, expected) in [&admin, &nobody, &american, &reader]
                .into_iter()
                .zip(first.iter().rev())
            {
                assert_eq!(&answers(node, who), expected);
            }
            assert_eq!(answers(node, &twin), first[0]);
        }
    }
    let metrics = get(&nodes[1], "/metrics", &admin).expect(200).text();
    for kind in ["gobo_cache_answers_total", "gobo_cache_redis_total"] {
        let hits = metrics
            .lines()
            .filter(|line| line.starts_with(kind) && line.contains("hit"));
        assert!(
            hits.into_iter().any(|line| !line.ends_with(" 0")),
            "{kind}: {metrics}"
        );
    }
}
