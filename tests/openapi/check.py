"""Checks an engine's /openapi.json with a validator, and its rows against the schemas that it has for them.

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


def main(url):
    document = get(f"{url}/openapi.json")
    errors = list(OpenAPIV31SpecValidator(document).iter_errors())
    for error in errors:
        print(f"{'/'.join(map(str, error.absolute_path))}: {error.message}")
    checked = 0
    for path in document["paths"]:
        read, _, model = path.partition("/read/")
        if read or not model or "/" in model:
            continue
        schema = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
        validator = OAS31Validator(schema, format_checker=OAS31Validator.FORMAT_CHECKER)
        for row in get(f"{url}/read/{model}"):
            checked += 1
            for error in validator.iter_errors(row):
                errors.append(error)
                print(f"{model}: {error.message} in {row}")
    print(f"{len(document['paths'])} paths, {checked} rows, {len(errors)} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
