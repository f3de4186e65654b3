"""Checks an engine's /openapi.json with a validator, and its rows against the schemas that it has for them: as they are
asked for, polled, and followed.

Usage: check.py URL
"""

import json
import sys
import urllib.request

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def first_event(url):
    """The name and the data of the event that a stream begins with."""
    found = {}
    with urllib.request.urlopen(url) as answer:
        assert answer.headers.get_content_type() == "text/event-stream", answer.headers
        for line in iter(answer.readline, b"\n"):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            found[name] = value
    return found["event"], json.loads(found["data"])


def main(url):
    document = get(f"{url}/openapi.json")
    errors = list(OpenAPIV31SpecValidator(document).iter_errors())
    for error in errors:
        print(f"{'/'.join(map(str, error.absolute_path))}: {error.message}")
    checked = 0

    def check(name, value):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = OAS31Validator(schema, format_checker=OAS31Validator.FORMAT_CHECKER)
        for error in validator.iter_errors(value):
            errors.append(error)
            print(f"{name}: {error.message} in {value}")

    for path in document["paths"]:
        read, _, model = path.partition("/read/")
        if read or not model or "/" in model:
            continue
        rows = get(f"{url}{path}")
        for row in rows:
            checked += 1
            check(model, row)
        polled = get(f"{url}{path}?live=poll")
        check("Polled", polled)
        event, data = first_event(f"{url}{path}?live=rows")
        assert event == "rows", event
        check("FollowedRows", data)
        assert sorted(map(str, data["rows"])) == sorted(map(str, rows)), (data, rows)
        assert polled["events"][0]["data"]["rows"] == data["rows"], (polled, data)
    print(f"{len(document['paths'])} paths, {checked} rows, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
