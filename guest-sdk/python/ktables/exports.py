"""The classes that a component exports. They convert between the codec and the types of the WIT package.

Only imported in a component: the modules of the bindings do not exist elsewhere.
"""

from componentize_py_types import Err
from wit_world.imports import logging, types

import ktables

_KINDS = {
    ktables.Malformed: types.CodecError_Malformed,
    ktables.Invalid: types.CodecError_Invalid,
    ktables.Unsupported: types.CodecError_Unsupported,
}

_codec = ktables._exported()

__all__ = []


def _clean(text):
    """Replaces surrogates without their pairs, which the host refuses."""
    return str(text).encode("utf-8", "replace").decode()


def _log(level, message):
    logging.log(logging.Level(level.value), _clean(message))


ktables._logger = _log


def _bytes(value):
    """Converts a bytearray, for example."""
    return value if value is None or type(value) is bytes else bytes(memoryview(value))


def _error(error):
    kinds = (wit for kind, wit in _KINDS.items() if isinstance(error, kind))
    return Err(next(kinds, types.CodecError_Other)(_clean(error)))


def _export(interface):
    """Exports a class if the codec implements this interface."""

    def add(exported):
        if isinstance(_codec, interface):
            __all__.append(exported.__name__)
        return exported

    return add


@_export(ktables.ValueCodec)
class ValueCodec:
    def decode(self, raw, headers):
        try:
            return _codec.decode(raw, [ktables.Header(header.name, header.value) for header in headers])
        except ktables.CodecError as error:
            raise _error(error) from None

    def encode(self, value):
        try:
            encoded = _codec.encode(value)
        except ktables.CodecError as error:
            raise _error(error) from None
        headers = [types.Header(header.name, _bytes(header.value)) for header in encoded.headers]
        return types.Encoded(_bytes(encoded.raw), headers)


@_export(ktables.KeyCodec)
class KeyCodec:
    def decode(self, raw):
        try:
            return _codec.decode_key(raw)
        except ktables.CodecError as error:
            raise _error(error) from None

    def encode(self, key):
        try:
            return _bytes(_codec.encode_key(key))
        except ktables.CodecError as error:
            raise _error(error) from None


@_export(ktables.GroupScheme)
class GroupScheme:
    def split(self, key):
        parts = _codec.split(key)
        return types.GroupKey(*parts) if parts is not None else None

    def join(self, group, member):
        try:
            return _codec.join(group, member)
        except ktables.CodecError as error:
            raise _error(error) from None


@_export(ktables.Plugin)
class Plugin:
    def describe(self):
        # This module exists only if the world exports the interface.
        from wit_world.exports import plugin

        info = _codec.describe()
        return plugin.Info(info.name, info.version, info.wants_headers)

    def configure(self, context):
        role = ktables.Role(context.role.value)
        try:
            _codec.configure(ktables.Context(context.topic, role, context.config))
        except ktables.CodecError as error:
            raise Err(_clean(error)) from None
