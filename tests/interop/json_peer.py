"""Writes and reads JSON with a JSON Schema, with Confluent's client for Python (see registry_peer.py)."""

import json

import registry_peer
from confluent_kafka.schema_registry import Schema, SchemaReference
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer

COLOR = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Color", "enum": ["RED", "GREEN"]}


def order_schema(**added):
    link = {"type": "object", "properties": {"order": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}
    return json.dumps(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Order",
            "type": "object",
            "properties": {
                "id": {"type": "integer"},
                "color": {"$ref": "color.json"},
                "note": {"type": ["null", "string"], "maxLength": 100},
                "ratio": {"oneOf": [{"type": "number", "minimum": 0}, {"type": "string"}, {"type": "boolean"}]},
                "tags": {"type": "array", "items": {"pattern": "^[a-z]+$"}, "uniqueItems": True},
                "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
                "day": {"type": "string", "format": "date"},
                "next": link,
                **added,
            },
            "required": ["id", "color"],
            "additionalProperties": False,
        }
    )


def order(number, **others):
    return {
        "id": number * 10**15,
        "color": "GREEN" if number % 2 else "RED",
        "note": None if number % 3 else 'a "quoted"\nline ä',
        "ratio": [number / 7, "text", True][number % 3],
        "tags": ["x", "yz"][: number % 3],
        "counts": {"a": -number, "b": 2**53 - 1},
        "day": "2026-11-30",
        **others,
    }


def values(registry, topic):
    registry.register_schema(f"{topic}-color", Schema(json.dumps(COLOR), "JSON"))
    references = [SchemaReference("color.json", f"{topic}-color", 1)]
    old = JSONSerializer(Schema(order_schema(), "JSON", references), registry)
    new = JSONSerializer(Schema(order_schema(extra={"type": "integer"}), "JSON", references), registry)
    orders = [(f"k{number}", old, order(number)) for number in range(20)]
    orders += [(f"k{number}", new, order(number, extra=2**63 - 1)) for number in range(20, 40)]
    orders.append(("k40", old, order(40, next={"order": order(41, next={"order": None})})))
    yield from orders


def reader(registry):
    deserialize = JSONDeserializer(None, schema_registry_client=registry)
    return lambda key, data, context: deserialize(data, context)


registry_peer.run(values, reader, lambda value: value)
