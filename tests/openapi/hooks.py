"""What is asked in another way than schemathesis comes up with: some of what may be asked excludes most of the rest, and if
it were in every request, nothing but refusals would be seen.
"""

import itertools

import hypothesis
import schemathesis

# A machine that is busy is no mistake of the description.
hypothesis.settings.register_profile(
    "patient", suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

TURNS = itertools.count()
# What cannot be had of rows that are followed.
PAGES = ("limit", "offset", "cursor", "as_of", "min_position", "select")
# What no random text is right for.
OPAQUE = ("cursor", "as_of")


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query
    if not query or not case.path.startswith("/read/"):
        return
    turn = next(TURNS) % 8
    if turn != 1:
        # What is asked of embeds has no names of its own in the description, and random names are no embeds.
        described = {parameter.name for parameter in case.operation.query}
        for name in [name for name in query if name not in described or name in OPAQUE]:
            del query[name]
    if query.get("select") == "count()":
        # A group has none of the columns that the examples sort by.
        query.pop("order", None)
    if query.get("live") not in ("rows", "changes", "poll"):
        return
    if turn == 0:
        # A stream has no end, and what has none cannot be judged: check.py looks at how streams begin.
        query["live"] = "poll"
        for name in PAGES:
            query.pop(name, None)
        case.headers.pop("Range", None)
    else:
        query.pop("live")
        query.pop("last_event_id", None)
