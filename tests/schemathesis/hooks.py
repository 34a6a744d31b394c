"""What Schemathesis has to be told of NDJSON: one JSON value a line, for OpenAPI an array."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def serialize(_context, value):
    lines = value if isinstance(value, list) else [value]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@schemathesis.deserializer("application/x-ndjson")
def deserialize(_context, response):
    return [json.loads(line) for line in response.content.decode().splitlines()]
