//! A schema that was compiled, so that a value is read and written without looking any name up.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// The index of a node in its plan.
pub(crate) type NodeId = usize;

/// A compiled schema. Recursive types make it a graph.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
}

/// A type.
#[derive(Debug)]
pub(crate) enum Node {
    /// A type that is being compiled. A finished plan has none.
    Unfinished,
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// A number that was written as one of these types, and is read as a floating-point number.
    Promoted(WrittenNumber, ReadNumber),
    /// Base64 in JSON.
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<Symbol>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<Branch>),
    /// What was written without a union is read as this branch of one.
    ReadAsBranch(Branch),
    Record(Record),
    Decimal(Decimal),
    /// A decimal number with a scale of its own.
    BigDecimal,
    /// A UUID in 16 bytes.
    UuidFixed,
    Time(Time),
    /// Months, days and milliseconds.
    Duration,
    /// It was written with a type that cannot be read as the one of the reader's schema.
    Unreadable(String),
}

/// The type of a written number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WrittenNumber {
    Int,
    Long,
    Float,
}

/// The type of a floating-point number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadNumber {
    Float,
    Double,
}

/// A symbol of an enum: its JSON, or why it cannot be read.
pub(crate) type Symbol = Result<String, String>;

/// A branch of a union.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// The name around its JSON value; `None` if it has no name there.
    pub(crate) wrapper: Option<String>,
    pub(crate) kind: JsonKind,
    /// The kinds of the branches of its union.
    pub(crate) kinds: Arc<[JsonKind]>,
    pub(crate) node: NodeId,
}

/// A record.
#[derive(Debug)]
pub(crate) struct Record {
    /// The fields, in the order of their data.
    pub(crate) fields: Vec<Field>,
    /// The labels and the JSON of fields that only the reader's schema has.
    pub(crate) added: Vec<(String, String)>,
}

/// A field of a record.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in JSON.
    pub(crate) name: String,
    /// Its name, quoted, and a colon.
    pub(crate) label: String,
    pub(crate) node: NodeId,
    /// Whether it is part of the JSON. The reader's schema may not have it.
    pub(crate) is_read: bool,
    /// The value that is written if the JSON has none.
    pub(crate) default: Option<Value>,
}

/// A decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) precision: usize,
    pub(crate) scale: usize,
    /// The number of its bytes, if it is fixed.
    pub(crate) size: Option<usize>,
}

/// A date, a time of day, or a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    /// Days since 1970.
    Date,
    /// The time of day.
    OfDay(Unit),
    /// A point in time in UTC.
    Point(Unit),
    /// A date and a time of day without a time zone.
    Local(Unit),
}

impl Time {
    /// Whether it is stored in 32 bits.
    pub(crate) fn is_int(self) -> bool {
        matches!(self, Self::Date | Self::OfDay(Unit::Millis))
    }
}

/// What a time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// Returns how many nanoseconds it has.
    pub(crate) fn nanos(self) -> i128 {
        match self {
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
        }
    }
}

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JsonKind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl JsonKind {
    /// Returns the kind of a JSON text.
    pub(crate) fn of(json: &str) -> Self {
        match json.trim_start().bytes().next() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}
