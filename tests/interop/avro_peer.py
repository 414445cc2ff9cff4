"""Writes and reads Avro with Confluent's client for Python, in two versions of a schema (see registry_peer.py)."""

import base64
import datetime
import decimal
import json
import uuid

import registry_peer
from confluent_kafka.schema_registry import Schema, SchemaReference
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer

COLOR = {"type": "enum", "name": "Color", "namespace": "shop", "symbols": ["RED", "GREEN"]}


def logical(kind, name):
    return {"type": kind, "logicalType": name}


FIELDS = [
    {"name": "id", "type": "long"},
    {"name": "color", "type": "shop.Color"},
    {"name": "note", "type": ["null", "string"], "default": None},
    {"name": "ratio", "type": ["null", "double", "string", "boolean"], "default": None},
    {"name": "raw", "type": "bytes"},
    {"name": "tags", "type": {"type": "array", "items": "string"}},
    {"name": "counts", "type": {"type": "map", "values": "int"}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
    {"name": "ref", "type": logical("string", "uuid")},
    {"name": "day", "type": logical("int", "date")},
    {"name": "at", "type": logical("long", "timestamp-millis")},
    {"name": "exact", "type": logical("long", "timestamp-micros")},
    {"name": "time", "type": logical("int", "time-millis")},
    {
        "name": "next",
        "type": ["null", {"type": "record", "name": "Link", "fields": [{"name": "order", "type": ["null", "Order"]}]}],
        "default": None,
    },
]


def order_schema(fields):
    return json.dumps({"type": "record", "name": "Order", "namespace": "shop", "fields": fields})


def order(number, **others):
    utc = datetime.timezone.utc
    value = {
        "id": number,
        "color": "GREEN" if number % 2 else "RED",
        "note": None if number % 3 else 'a "quoted"\nline ä',
        "ratio": [None, number / 7, "text", True][number % 4],
        "raw": bytes([0, 255, number % 256]),
        "tags": ["x"] * (number % 3),
        "counts": {"a": -number, "b": 2147483647},
        "price": decimal.Decimal(number).scaleb(-2),
        "ref": uuid.UUID(int=number << 64),
        "day": datetime.date(1969, 12, 31) + datetime.timedelta(days=number * 1000),
        "at": datetime.datetime(2026, 11, 30, 12, 34, 56, 789000, utc) - datetime.timedelta(days=number * 900),
        "exact": datetime.datetime(1970, 1, 1, 0, 0, 0, number, utc),
        "time": datetime.time(23, 59, number % 60, 1000 * number),
        "next": None,
    }
    return {**value, **others}


def to_json(value):
    match value:
        case dict():
            return {key: to_json(item) for key, item in value.items()}
        case list():
            return [to_json(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case datetime.datetime() | datetime.time():
            text = value.isoformat().removesuffix("+00:00")
            if "." in text:
                text = text.rstrip("0").removesuffix(".")
            return text + ("Z" if isinstance(value, datetime.datetime) else "")
        case datetime.date():
            return value.isoformat()
        case _:
            return value


def values(registry, topic):
    registry.register_schema(f"{topic}-color", Schema(json.dumps(COLOR), "AVRO"))
    references = [SchemaReference("shop.Color", f"{topic}-color", 1)]
    new_fields = FIELDS + [{"name": "extra", "type": ["null", "long"], "default": None}]
    old = AvroSerializer(registry, Schema(order_schema(FIELDS), "AVRO", references))
    new = AvroSerializer(registry, Schema(order_schema(new_fields), "AVRO", references))
    orders = [(old, order(number)) for number in range(20)]
    orders += [(new, order(number, extra=2**63 - 1)) for number in range(20, 40)]
    orders.append((old, order(40, next={"order": order(41, next={"order": None})})))
    for serialize, value in orders:
        yield f"k{value['id']}", serialize, value


def reader(registry):
    deserialize = AvroDeserializer(registry)
    return lambda key, data, context: deserialize(data, context)


registry_peer.run(values, reader, to_json)
