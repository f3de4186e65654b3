"""Every documented call of postgrest-py for reading tables, against the library of ../library.json.

GOBO_URL says where it is served. Not here: writes, RPC, explain(), and the range operators, for which a read model has no
columns.
"""

import asyncio
import os
import sys
import traceback

from postgrest import APIError, AsyncPostgrestClient, CountMethod, SyncPostgrestClient

URL = os.environ["GOBO_URL"] + "/read"
# The client names the schema "public" unless it is told otherwise.
client = SyncPostgrestClient(URL, schema="read")
failures = []
checks = 0


def check(name):
    """Runs a check; all of them run, whichever fail."""

    def run(function):
        global checks
        checks += 1
        try:
            function()
        except Exception:
            failures.append(name)
            print(f"--- {name}\n{traceback.format_exc(limit=-2)}", file=sys.stderr)

    return run


def same(found, expected):
    if found != expected:
        raise AssertionError(f"found    {found!r}\nexpected {expected!r}")


def books(*columns, **options):
    return client.from_("books").select(*columns, **options)


def ids(query):
    return [row["id"] for row in query.execute().data]


def finds(name, narrow, expected):
    check(name)(lambda: same(ids(narrow(books("id")).order("id")), expected))


def refused(query):
    try:
        query.execute()
    except APIError as error:
        return error
    raise AssertionError("it was not refused")


# --- select


@check("select() shows all columns")
def _():
    (row,) = books().eq("id", 2).execute().data
    same(
        row,
        {
            "id": 2,
            "title": "Solaris",
            "blurb": "A psychologist visits a station above an ocean that thinks",
            "author_id": 2,
            "pages": 204,
            "price": 7.5,
            "in_print": False,
            "tags": ["sf"],
            "editions": [1961],
            "details": {"lang": "pl", "formats": ["paper"]},
            "published": "1961-06-01",
            "added_at": "2026-01-02T10:00:00+00:00",
        },
    )


@check("select(columns), with aliases, casts and JSON paths")
def _():
    rows = books("title", "length: pages::text", "hugo:details->awards->hugo", "details->>lang")
    same(
        rows.eq("id", 1).execute().data,
        [{"title": "The Dispossessed", "length": "387", "hugo": 1975, "lang": "en"}],
    )


for method in CountMethod:

    @check(f"select with count={method}")
    def _():
        answer = books("id", count=method).order("id").limit(2).execute()
        same(answer.data, [{"id": 1}, {"id": 2}])
        if method == CountMethod.planned:
            assert answer.count >= 2, answer.count
        else:
            same(answer.count, 6)


@check("select with head")
def _():
    answer = books("*", count=CountMethod.exact, head=True).is_("in_print", True).execute()
    same((answer.data, answer.count), ([], 3))


@check("aggregates")
def _():
    rows = books("author_id", "count()", "pages.sum()", "most:pages.max()").order("author_id")
    same(
        rows.execute().data,
        [
            {"author_id": 1, "count": 2, "sum": 571, "most": 387},
            {"author_id": 2, "count": 2, "sum": 526, "most": 322},
            {"author_id": 3, "count": 1, "sum": 90, "most": 90},
            {"author_id": None, "count": 1, "sum": 12, "most": 12},
        ],
    )
    same(books("pages.avg()::int4", "pages.min()").execute().data, [{"avg": 200, "min": 12}])


# --- filters

finds("eq", lambda q: q.eq("title", 'Fiasco, or "The End"'), [4])
finds("eq with reserved characters", lambda q: q.eq("title", "100% (untitled)"), [5])
finds("eq with letters beyond ASCII", lambda q: q.eq("title", "Éclairs & quarks"), [6])
finds("eq with a bool", lambda q: q.eq("in_print", True), [1, 3, 6])
finds("eq on a JSON path", lambda q: q.eq("details->>lang", "en"), [1, 3])
finds("neq", lambda q: q.neq("author_id", 1), [2, 4, 6])
finds("gt", lambda q: q.gt("pages", 204), [1, 4])
finds("gte", lambda q: q.gte("pages", 204), [1, 2, 4])
finds("lt", lambda q: q.lt("price", 7.5), [5, 6])
finds("lte", lambda q: q.lte("added_at", "2026-01-02T10:00:00+00:00"), [1, 2])
finds("is_ null", lambda q: q.is_("in_print", None), [4, 5])
finds("is_ 'null'", lambda q: q.is_("in_print", "null"), [4, 5])
finds("is_ false", lambda q: q.is_("in_print", False), [2])
finds("like", lambda q: q.like("title", "The %"), [1, 3])
finds("like_all_of", lambda q: q.like_all_of("title", "The%,%Heaven"), [3])
finds("like_any_of", lambda q: q.like_any_of("title", "Sol%,%Heaven"), [2, 3])
finds("ilike", lambda q: q.ilike("title", "the d%"), [1])
finds("ilike_all_of", lambda q: q.ilike_all_of("title", "THE%,%heaven"), [3])
finds("ilike_any_of", lambda q: q.ilike_any_of("title", "SOL%,%heaven"), [2, 3])
finds("in_", lambda q: q.in_("id", [1, 3, 99]), [1, 3])
finds("in_ with reserved characters", lambda q: q.in_("title", ["100% (untitled)", 'Fiasco, or "The End"']), [4, 5])
finds("contains, an array", lambda q: q.contains("tags", ["sf", "dreams"]), [3])
finds("contains, an element with a comma", lambda q: q.contains("tags", ["a,b"]), [5])
finds("contains, JSON", lambda q: q.contains("details", {"lang": "en", "awards": {"hugo": 1975}}), [1])
finds("contains, text", lambda q: q.contains("editions", "{1986}"), [4])
finds("contained_by, an array", lambda q: q.contained_by("tags", ["sf", "dreams", "food"]), [2, 3, 4, 6])
finds("contained_by, JSON", lambda q: q.contained_by("details", {"lang": "en", "more": 1}), [3])
finds("cs", lambda q: q.cs("tags", ["sf"]), [1, 2, 3])
finds("cd", lambda q: q.cd("tags", ["sf"]), [2, 4])
finds("ov", lambda q: q.ov("tags", ["dreams", "utopia"]), [1, 3])
finds("overlaps", lambda q: q.overlaps("tags", ["dreams", "none"]), [3])
finds("fts", lambda q: q.fts("blurb", "world & dreams"), [3])
finds("plfts", lambda q: q.plfts("blurb", "visits worlds"), [4])
finds("phfts", lambda q: q.phfts("blurb", "two worlds"), [1])
finds("wfts", lambda q: q.wfts("blurb", "ocean -ship"), [2])
finds(
    "text_search",
    lambda q: q.text_search("blurb", "'world' & 'dream'", options={"config": "english"}),
    [3],
)
for kind, words, expected in [("plain", "visits worlds", [4]), ("phrase", "two worlds", [1]), ("web_search", "world -dreams -ship", [1])]:
    options = {"type": kind, "config": "english"}
    finds(f"text_search, {kind}", lambda q: q.text_search("blurb", words, options=options), expected)
finds("match", lambda q: q.match({"author_id": 2, "in_print": False}), [2])
finds("not_", lambda q: q.not_.gte("pages", 100), [5, 6])
finds("not_.is_", lambda q: q.not_.is_("in_print", None), [1, 2, 3, 6])
finds("not_.in_", lambda q: q.not_.in_("id", [1, 2, 3]), [4, 5, 6])
finds("not_.contains", lambda q: q.not_.contains("tags", ["sf"]), [4, 5, 6])
finds("or_", lambda q: q.or_('id.eq.1,title.eq."Fiasco, or \\"The End\\""'), [1, 4])
finds("or_ with and", lambda q: q.or_("and(author_id.eq.1,pages.lt.200),in_print.not.is.null").gt("id", 2), [3, 6])
finds("not_.or_", lambda q: q.not_.or_("id.lt.5,pages.gt.50"), [5])
finds("filter", lambda q: q.filter("tags", "cs", "{sf}").filter("id", "not.in", "(1,2)"), [3])
finds("several filters", lambda q: q.gt("id", 1).lt("id", 5).is_("in_print", True), [3])


# --- order and pages


@check("order")
def _():
    same(ids(books("id").order("pages")), [5, 6, 3, 2, 4, 1])
    same(ids(books("id").order("pages", desc=True)), [1, 4, 2, 3, 6, 5])
    some = lambda: books("id").in_("id", [1, 2, 5])
    same(ids(some().order("author_id", nullsfirst=True).order("id")), [5, 1, 2])
    same(ids(some().order("author_id", desc=True, nullsfirst=False).order("id")), [2, 1, 5])
    by_path = books("id").order("details->>lang", nullsfirst=False).order("id", desc=True)
    same(ids(by_path), [3, 1, 6, 2, 5, 4])


@check("limit and offset")
def _():
    same(ids(books("id").order("id").limit(2)), [1, 2])
    same(ids(books("id").order("id").offset(4)), [5, 6])
    same(ids(books("id").order("id").limit(2).offset(1)), [2, 3])
    same(ids(books("id").limit(0)), [])


@check("range")
def _():
    answer = books("id", count=CountMethod.exact).order("id").range(2, 3).execute()
    same((answer.data, answer.count), ([{"id": 3}, {"id": 4}], 6))
    error = refused(books("id", count=CountMethod.exact).range(10, 19))
    same(error.code, "PGRST103")
    same(error.details, "An offset of 10 was requested, but there are only 6 rows.")


# --- one row, CSV, NULLs


@check("single")
def _():
    same(books("id", "title").eq("id", 2).single().execute().data, {"id": 2, "title": "Solaris"})
    for least, count in [(99, 0), (1, 6)]:
        error = refused(books("id").gte("id", least).single())
        same((error.code, error.details), ("PGRST116", f"The result contains {count} rows"))


@check("maybe_single")
def _():
    same(books("id").eq("id", 2).maybe_single().execute().data, {"id": 2})
    same(books("id").eq("id", 99).maybe_single().execute(), None)
    same(refused(books("id").maybe_single()).code, "406")


@check("csv")
def _():
    rows = books("id", "name:title", "in_print", "tags").in_("id", [1, 4, 6]).order("id")
    same(
        rows.csv().execute().data,
        'id,name,in_print,tags\n1,The Dispossessed,t,"{utopia,sf}"\n4,"Fiasco, or ""The End""",,{}\n6,Éclairs & quarks,t,{food}',
    )


@check("strip_nulls")
def _():
    rows = books("id", "author_id").in_("id", [4, 5]).order("id").strip_nulls()
    same(rows.execute().data, [{"id": 4, "author_id": 2}, {"id": 5}])
    same(books("id", "author_id").eq("id", 5).strip_nulls().single().execute().data, {"id": 5})


# --- schema, errors


@check("schema")
def _():
    same(client.schema("read").from_("books").select("id").eq("id", 1).execute().data, [{"id": 1}])
    same(refused(client.schema("private").table("books").select("id")).code, "PGRST106")


@check("errors")
def _():
    for query, code in [
        (books("titel"), "42703"),
        (books().eq("id", "x"), "22P02"),
        (client.table("boks").select(), "PGRST205"),
        (books().filter("id", "equals", "1"), "PGRST100"),
        (books().order("id.up"), "PGRST100"),
    ]:
        error = refused(query)
        same(error.code, code)
        assert isinstance(error.message, str)
        for member in (error.details, error.hint):
            assert member is None or isinstance(member, str), member


@check("the asynchronous client")
def _():
    async def read():
        async with AsyncPostgrestClient(URL, schema="read") as client:
            answers = await asyncio.gather(
                *(client.from_("books").select("id").eq("id", n).single().execute() for n in range(1, 7))
            )
            return [answer.data["id"] for answer in answers]

    same(asyncio.run(read()), [1, 2, 3, 4, 5, 6])


# --- embedding

@check("a referenced row")
def _():
    rows = books("id", "author:authors(name)").in_("id", [1, 5]).order("id").execute().data
    same(rows, [{"id": 1, "author": {"name": "Ursula K. Le Guin"}}, {"id": 5, "author": None}])

@check("referencing rows, ordered and limited")
def _():
    rows = client.from_("authors").select("id", "books(id)").order("id")
    rows = rows.order("pages", desc=True, foreign_table="books").limit(1, foreign_table="books")
    same(
        rows.execute().data,
        [
            {"id": 1, "books": [{"id": 1}]},
            {"id": 2, "books": [{"id": 4}]},
            {"id": 3, "books": [{"id": 6}]},
        ],
    )

@check("inner joins and filters on what is embedded")
def _():
    query = books("id", "authors!inner(name)").eq("authors.country", "US").order("id")
    same(ids(query), [1, 3])

@check("or_ on what is embedded")
def _():
    rows = client.from_("authors").select("id", "books(id)").eq("id", 1)
    rows = rows.or_("pages.gt.300,id.eq.99", reference_table="books")
    same(rows.execute().data, [{"id": 1, "books": [{"id": 1}]}])

@check("rows that a join table relates")
def _():
    same(
        client.from_("shelves").select("name", "books(id)").order("id").execute().data,
        [
            {"name": "Science fiction", "books": [{"id": 1}, {"id": 2}]},
            {"name": "Staff's choice", "books": [{"id": 2}]},
            {"name": "Empty", "books": []},
        ],
    )

@check("what is not related")
def _():
    same(refused(books("id", "nobody(id)")).code, "PGRST200")


client.aclose()
print(f"{checks - len(failures)} of {checks} checks of postgrest-py hold")
if failures:
    sys.exit(f"not these: {'; '.join(failures)}")
