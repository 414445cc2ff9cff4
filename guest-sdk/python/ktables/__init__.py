"""The SDK for ktables codecs in Python.

A codec is a class with the methods of `ValueCodec`, `KeyCodec` or `GroupScheme`, or of several of them. `export` makes
it the codec of the component:

    import json

    import ktables

    class Counter(ktables.ValueCodec):
        def decode(self, raw, headers):
            if len(raw) != 4:
                raise ktables.Malformed(f"a counter has 4 bytes, not {len(raw)}")
            return str(int.from_bytes(raw, "big"))

        def encode(self, value):
            number = json.loads(value)
            if type(number) is not int or not 0 <= number < 2**32:
                raise ktables.Invalid("expected a whole number below 2^32")
            return ktables.Encoded(number.to_bytes(4, "big"))

    ktables.export(Counter)

Build a component of it (it needs the package componentize-py, and `ktables` on your PATH):

    python3 -m ktables counter.py -o counter.wasm

The same file runs natively, so its tests are ordinary Python.

A codec must be pure: its answer depends on the input and the configuration only, not on earlier calls. The host runs
several instances at once, and may replace any of them at any time. The component contains the module as it is after
its import: what the module does at its top level, and the `__init__` of the codec, run once, when the component is
built. What depends on the user belongs in `Plugin.configure`: `class Mine(ktables.ValueCodec, ktables.Plugin)`.

The component has no files, so import all modules at the top of the file, also what Python imports itself on first use:
`import _strptime`, `import encodings.cp1252`, for example.

The component has the standard library of Python 3.14, and the modules beside the file of the codec. Install packages
there that are only Python (`python3 -m pip install --target . NAME`); those with native code do not work.

A `CodecError` rejects a record, or refuses a write. Any other exception is a fault: the record is rejected, and the
traceback is its reason. `split` and `describe` cannot fail: any exception there is a fault.
"""

import enum
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = [
    "CodecError",
    "Context",
    "Encoded",
    "GroupScheme",
    "Header",
    "Info",
    "Invalid",
    "KeyCodec",
    "Level",
    "Malformed",
    "Plugin",
    "Role",
    "Unsupported",
    "ValueCodec",
    "export",
    "log",
]


class CodecError(Exception):
    """A codec could not convert an item. The host rejects the record, and counts it by the kind of the error.

    An instance of this class itself is of the kind "other". Users see the text: say what was expected, what was found, and where in the input.
    """


class Malformed(CodecError):
    """The bytes are not in the format of the codec."""


class Invalid(CodecError):
    """The format is correct, but the content breaks a rule of the schema."""


class Unsupported(CodecError):
    """The codec does not do this: it only decodes, for example, or the bytes have a later version of the format."""


@dataclass(frozen=True)
class Header:
    """A header of a record. As in Kafka, null (`None`) and empty values differ."""

    name: str
    value: bytes | None


@dataclass(frozen=True)
class Encoded:
    """An encoded value: the bytes of the record, and headers to write with it."""

    raw: bytes
    headers: Sequence[Header] = field(default_factory=tuple)


class ValueCodec(ABC):
    """Converts between the bytes of record values and JSON text."""

    @abstractmethod
    def decode(self, raw: bytes, headers: Sequence[Header]) -> str:
        """Returns the JSON text of a value.

        `headers` is empty unless the codec is a `Plugin` that wants them. A record with a null value does not reach
        the codec.
        """

    def encode(self, value: str) -> Encoded:
        """Returns the bytes of a value. A codec that only decodes leaves it out."""
        raise Unsupported("this codec only decodes")


class KeyCodec(ABC):
    """Converts between the bytes of record keys and the text of keys in a table.

    Kafka compacts by the bytes, and a table looks keys up by the text. So both must identify the same key: encoding a
    decoded key must return the same bytes. The host checks this, and rejects other records.
    """

    @abstractmethod
    def decode_key(self, raw: bytes) -> str:
        """Returns the text of a key."""

    @abstractmethod
    def encode_key(self, key: str) -> bytes:
        """Returns the bytes of a key."""


class GroupScheme(ABC):
    """Splits keys into group and member.

    Joining the parts of a key must return the key. Otherwise the host treats the key as foreign: it counts the record,
    and leaves it out of the grouped table.
    """

    @abstractmethod
    def split(self, key: str) -> tuple[str, str] | None:
        """Returns the group and the member of a key, or `None` if the key does not belong to the grouped table."""

    @abstractmethod
    def join(self, group: str, member: str) -> str:
        """Returns the key of a member of a group."""


@dataclass(frozen=True)
class Info:
    """The description of a component."""

    name: str
    version: str
    #: Whether `ValueCodec.decode` wants the headers of records.
    wants_headers: bool = False


class Role(enum.Enum):
    """What the host uses an instance for."""

    VALUE = 0
    KEY = 1
    GROUP = 2


@dataclass(frozen=True)
class Context:
    """What an instance is used for, and its configuration."""

    topic: str
    role: Role
    #: The configuration that the user gives, as JSON text; "{}" if there is none.
    config: str


class Plugin(ABC):
    """Describes the component, and receives its configuration."""

    @abstractmethod
    def describe(self) -> Info:
        """Describes the component."""

    def configure(self, context: Context) -> None:
        """Configures the instance before its first record.

        If it raises a `CodecError`, the table does not start, and the user sees the text.
        """


class Level(enum.Enum):
    """The severity of a log message."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4


def _log_to_stderr(level: Level, message: str) -> None:
    print(message, file=sys.stderr)


#: Where log messages go. A component replaces it by the log of the host.
_logger = _log_to_stderr


def log(level: Level, message: str) -> None:
    """Writes a message to the log of the host. In tests that run natively, writes it to standard error."""
    _logger(level, message)


#: The class of the codec, set by `export`.
_exported: type | None = None


def export(codec: type) -> None:
    """Makes this class the codec of the component. It is created without arguments, when the component is built."""
    global _exported
    if not issubclass(codec, (ValueCodec, KeyCodec, GroupScheme)):
        raise TypeError(f"{codec.__name__} must be a ValueCodec, a KeyCodec or a GroupScheme")
    codec()  # Fails if a method is missing.
    _exported = codec
