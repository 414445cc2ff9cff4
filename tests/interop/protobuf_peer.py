"""Writes and reads Protobuf with Confluent's client for Python (see registry_peer.py).

Keys that begin with `k` have orders; with `l`, lines, a type in another one; with `s`, the second type of the file.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, json_format, struct_pb2
from google.protobuf import message_factory, timestamp_pb2, wrappers_pb2

import registry_peer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer

TYPES = {
    "bool": 8, "bytes": 12, "double": 1, "float": 2, "int32": 5, "int64": 3, "sint64": 18, "string": 9, "uint64": 4,
}  # fmt: skip


def field(number, name, kind, label="optional", **others):
    """Returns the descriptor of a field. A kind that begins with a dot is a type, with `enum` before it an enum."""
    made = descriptor_pb2.FieldDescriptorProto(name=name, number=number, **others)
    made.label = {"optional": 1, "repeated": 3}[label]
    if kind.startswith("enum"):
        made.type, made.type_name = 14, kind.removeprefix("enum")
    elif kind.startswith("."):
        made.type, made.type_name = 11, kind
    else:
        made.type = TYPES[kind]
    return made


def message(name, *fields, nested=(), oneofs=()):
    made = descriptor_pb2.DescriptorProto(name=name, field=fields, nested_type=nested)
    made.oneof_decl.extend(descriptor_pb2.OneofDescriptorProto(name=oneof) for oneof in oneofs)
    return made


def color_file():
    color = descriptor_pb2.EnumDescriptorProto(name="Color")
    color.value.add(name="RED", number=0)
    color.value.add(name="GREEN", number=1)
    return descriptor_pb2.FileDescriptorProto(
        name="shop/color.proto", package="shop", syntax="proto3", enum_type=[color]
    )


def order_file(*added):
    counts = message("CountsEntry", field(1, "key", "string"), field(2, "value", "sint64"))
    counts.options.map_entry = True
    line = message("Line", field(1, "amount", "int64"), field(2, "text", "string"))
    order = message(
        "Order",
        field(1, "id", "int64"),
        field(2, "big_number", "uint64"),
        field(3, "color", "enum.shop.Color"),
        field(4, "ratio", "double"),
        field(5, "small", "float"),
        field(6, "raw", "bytes"),
        field(7, "lines", ".shop.Order.Line", "repeated"),
        field(8, "counts", ".shop.Order.CountsEntry", "repeated"),
        field(9, "name", "string", oneof_index=0),
        field(10, "next", ".shop.Order", oneof_index=0),
        field(11, "maybe", "int32", oneof_index=1, proto3_optional=True),
        field(12, "at", ".google.protobuf.Timestamp"),
        field(13, "wait", ".google.protobuf.Duration"),
        field(14, "wrapped", ".google.protobuf.Int64Value"),
        field(15, "extra", ".google.protobuf.Struct"),
        field(16, "flags", "bool", "repeated"),
        *added,
        nested=[counts, line],
        oneofs=["kind", "_maybe"],
    )
    return descriptor_pb2.FileDescriptorProto(
        name="shop/order.proto",
        package="shop",
        syntax="proto3",
        dependency=[
            "shop/color.proto",
            *(f"google/protobuf/{name}.proto" for name in ("timestamp", "duration", "wrappers", "struct")),
        ],
        message_type=[order, message("Second", field(1, "text", "string"))],
    )


def classes(*added):
    """Returns the classes of the three types, in a version of the file."""
    pool = descriptor_pool.DescriptorPool()
    known = [timestamp_pb2, duration_pb2, wrappers_pb2, struct_pb2]
    for file in [module.DESCRIPTOR.serialized_pb for module in known] + [
        made.SerializeToString() for made in (color_file(), order_file(*added))
    ]:
        pool.AddSerializedFile(file)
    find = pool.FindMessageTypeByName
    return [message_factory.GetMessageClass(find(f"shop.{name}")) for name in ("Order", "Order.Line", "Second")]


def order(number, **others):
    return {
        "id": str(number - 2**62),
        "bigNumber": str(2**64 - 1 - number),
        "color": "GREEN" if number % 2 else "RED",
        "ratio": number / 7,
        "small": number + 0.1,
        "raw": "AP8=",
        "lines": [{"amount": str(count), "text": "x" * count} for count in range(number % 4)],
        "counts": {"a": str(-number), "ä": "1"},
        "maybe": 0 if number % 2 else number,
        "at": f"2026-11-30T12:34:{number:02}.789Z",
        "wait": f"-{number}.500s",
        "wrapped": str(number),
        "extra": {"list": [1.5, None, {"x": "y"}]},
        "flags": [True, False],
        **others,
    }


NEW = field(20, "extra_number", "int64")


def values(registry, topic):
    config = {"auto.register.schemas": True}
    old, new = classes(), classes(NEW)
    for number in range(20):
        yield make(registry, config, old[0], f"k{number}", order(number, name="" if number % 3 else "n"))
    for number in range(20, 40):
        yield make(registry, config, new[0], f"k{number}", order(number, extraNumber=str(2**63 - 1)))
    yield make(registry, config, old[0], "k40", order(40, next=order(41, next={"id": "1"})))
    yield make(registry, config, old[1], "l1", {"amount": "7", "text": "a line"})
    yield make(registry, config, old[2], "s1", {"text": "second"})


def make(registry, config, kind, key, value):
    return key, ProtobufSerializer(kind, registry, config), json_format.ParseDict(value, kind())


def reader(registry):
    order, line, second = (ProtobufDeserializer(kind, {}, registry) for kind in classes(NEW))
    return lambda key, data, context: {"k": order, "l": line, "s": second}[key[0]](data, context)


registry_peer.run(values, reader, json_format.MessageToDict)
