//! Compiles a schema to a plan: to write with it, or to read values of a writer's schema with a reader's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordField, RecordSchema, UuidSchema};
use serde_json::Value;

use crate::decode::decode;
use crate::encode::{Form, encode};
use crate::parse::{DEFAULT, ParsedSchema, type_name};
use crate::plan::{
    Branch, Decimal, Field, JsonKind, Node, NodeId, Plan, ReadNumber, Record, Symbol, Time, Unit,
    WrittenNumber,
};
use crate::{Decimals, Settings, Unions, message};

/// How deep schemas may be nested, and how many parts they may have.
const MAX_DEPTH: usize = 300;
const MAX_NODES: usize = 100_000;

/// How many branches a union may have.
const MAX_BRANCHES: usize = 200;

/// The largest precision and scale of a decimal number.
const MAX_PRECISION: usize = 1000;

/// How a type is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum,
    Array,
    Map,
    Union,
    Record,
}

fn stored(schema: &Schema) -> Stored {
    match schema {
        Schema::Null => Stored::Null,
        Schema::Boolean => Stored::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Stored::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Stored::Long,
        Schema::Float => Stored::Float,
        Schema::Double => Stored::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Stored::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Stored::String,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Stored::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Fixed(fixed) => Stored::Fixed(fixed.size),
            InnerDecimalSchema::Bytes => Stored::Bytes,
        },
        Schema::Enum(_) => Stored::Enum,
        Schema::Array(_) => Stored::Array,
        Schema::Map(_) => Stored::Map,
        Schema::Union(_) => Stored::Union,
        // A reference that was not found is refused before.
        Schema::Record(_) | Schema::Ref { .. } => Stored::Record,
    }
}

/// The name of a type in a wrapped branch: its full name, or the name of how it is stored.
fn branch_name(schema: &Schema) -> String {
    if let Some(name) = type_name(schema) {
        return name.fullname(None);
    }
    match stored(schema) {
        Stored::Null => "null",
        Stored::Boolean => "boolean",
        Stored::Int => "int",
        Stored::Long => "long",
        Stored::Float => "float",
        Stored::Double => "double",
        Stored::Bytes => "bytes",
        Stored::String => "string",
        Stored::Array => "array",
        Stored::Map => "map",
        // Not reached: these have names, and a union has no union.
        Stored::Fixed(_) | Stored::Enum | Stored::Union | Stored::Record => "union",
    }
    .to_owned()
}

fn json_kind(schema: &Schema, settings: &Settings) -> JsonKind {
    match schema {
        Schema::Null => JsonKind::Null,
        Schema::Boolean => JsonKind::Boolean,
        Schema::Int | Schema::Long | Schema::Float | Schema::Double => JsonKind::Number,
        Schema::Decimal(_) | Schema::BigDecimal if settings.decimal == Decimals::Number => JsonKind::Number,
        Schema::Array(_) => JsonKind::Array,
        Schema::Map(_) | Schema::Record(_) | Schema::Duration(_) => JsonKind::Object,
        _ => JsonKind::String,
    }
}

/// Compiles a schema, to write with it, or to read what was written with it.
pub(crate) fn compile(schema: &ParsedSchema, settings: &Settings) -> Result<Plan, String> {
    resolve(schema, schema, settings)
}

/// Compiles how what was written with one schema is read with another.
pub(crate) fn resolve(
    writer: &ParsedSchema,
    reader: &ParsedSchema,
    settings: &Settings,
) -> Result<Plan, String> {
    let mut compiler = Compiler {
        writer,
        reader,
        settings,
        nodes: Vec::new(),
        known: HashMap::new(),
        skipped: HashMap::new(),
        depth: 0,
    };
    let root = compiler.node(&writer.schema, &reader.schema)?;
    Ok(Plan { nodes: compiler.nodes, root })
}

struct Compiler<'a> {
    writer: &'a ParsedSchema,
    reader: &'a ParsedSchema,
    settings: &'a Settings,
    nodes: Vec<Node>,
    /// The nodes of named types, by their names in both schemas.
    known: HashMap<(Name, Name), NodeId>,
    /// Those of types that are not read.
    skipped: HashMap<(Name, Name), NodeId>,
    depth: usize,
}

impl<'a> Compiler<'a> {
    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, writer: &'a Schema, reader: &'a Schema) -> Result<NodeId, String> {
        let (writer, reader) = (self.writer.resolve(writer), self.reader.resolve(reader));
        for schema in [writer, reader] {
            if let Schema::Ref { name } = schema {
                return Err(format!("the type {} is not defined", name.fullname(None)));
            }
        }
        let names = type_name(writer).cloned().zip(type_name(reader).cloned());
        if let Some(&known) = names.as_ref().and_then(|names| self.known.get(names)) {
            return Ok(known);
        }
        if self.depth > MAX_DEPTH || self.nodes.len() > MAX_NODES {
            return Err("the schema is too large, or nested too deep".to_owned());
        }
        let id = self.add(Node::Unfinished);
        if let Some(names) = names {
            self.known.insert(names, id);
        }
        self.depth += 1;
        let node = self.compile(writer, reader);
        self.depth -= 1;
        self.nodes[id] = node?;
        Ok(id)
    }

    fn compile(&mut self, writer: &'a Schema, reader: &'a Schema) -> Result<Node, String> {
        match (writer, reader) {
            (Schema::Union(union), _) => {
                if union.variants().len() > MAX_BRANCHES {
                    return Err(format!("a union has more than {MAX_BRANCHES} branches"));
                }
                let mut branches = Vec::new();
                for variant in union.variants() {
                    branches.push(self.branch(variant, reader)?);
                }
                Ok(Node::Union(branches))
            }
            (_, Schema::Union(_)) => Ok(Node::ReadAsBranch(self.branch(writer, reader)?)),
            (Schema::Record(before), Schema::Record(after)) if has_same_name(writer, reader) => {
                self.record(before, after)
            }
            (Schema::Enum(before), Schema::Enum(after)) if has_same_name(writer, reader) => {
                let symbols: HashSet<&String> = after.symbols.iter().collect();
                let symbol = |symbol: &String| -> Symbol {
                    match symbols.contains(symbol) {
                        true => Ok(quote(symbol)),
                        false => after.default.as_deref().map(quote).ok_or_else(|| {
                            format!("the reader's schema does not have the symbol {symbol}, and no default")
                        }),
                    }
                };
                Ok(Node::Enum(before.symbols.iter().map(symbol).collect()))
            }
            (Schema::Array(writer), Schema::Array(reader)) => {
                Ok(Node::Array(self.node(&writer.items, &reader.items)?))
            }
            (Schema::Map(writer), Schema::Map(reader)) => {
                Ok(Node::Map(self.node(&writer.types, &reader.types)?))
            }
            _ => Ok(scalar(writer, reader)),
        }
    }

    /// Chooses the branch of the reader's union that a written type is read as. Without a union, it is the reader's type.
    fn branch(&mut self, writer: &'a Schema, reader: &'a Schema) -> Result<Branch, String> {
        let writer = self.writer.resolve(writer);
        let Schema::Union(union) = self.reader.resolve(reader) else {
            let node = self.node(writer, reader)?;
            return Ok(Branch {
                wrapper: None,
                kind: json_kind(writer, self.settings),
                kinds: [].into(),
                node,
            });
        };
        let variants: Vec<&'a Schema> =
            union.variants().iter().take(MAX_BRANCHES).map(|variant| self.reader.resolve(variant)).collect();
        // Types without a conversion come first, and of those the ones with the same full name.
        let rules: [fn(&Schema, &Schema) -> bool; 3] = [is_equal, is_exact, is_readable];
        let found =
            rules.iter().find_map(|rule| variants.iter().copied().find(|variant| rule(writer, variant)));
        let Some(found) = found else {
            let reason = format!("the reader's union has no branch for {}", branch_name(writer));
            let node = self.add(Node::Unreadable(reason));
            return Ok(Branch { wrapper: None, kind: JsonKind::Null, kinds: [].into(), node });
        };
        let kinds: Arc<[JsonKind]> =
            variants.iter().map(|variant| json_kind(variant, self.settings)).collect();
        let is_ambiguous = (1..kinds.len()).any(|index| kinds[..index].contains(&kinds[index]));
        let is_wrapped = is_ambiguous || self.settings.union == Unions::AvroJson;
        let kind = json_kind(found, self.settings);
        let wrapper = (is_wrapped && kind != JsonKind::Null).then(|| branch_name(found));
        Ok(Branch { wrapper, kind, kinds, node: self.node(writer, found)? })
    }

    fn record(&mut self, writer: &'a RecordSchema, reader: &'a RecordSchema) -> Result<Node, String> {
        let mut fields: Vec<Field> = Vec::new();
        let by_name: HashMap<&str, &'a RecordField> =
            reader.fields.iter().map(|field| (field.name.as_str(), field)).collect();
        for field in &writer.fields {
            let is_written = |name: &str| writer.fields.iter().any(|field| field.name == name);
            let is_taken = |name: &str| fields.iter().any(|field| field.is_read && field.name == name);
            let found = by_name.get(field.name.as_str()).copied().or_else(|| {
                let has_alias = |it: &&'a RecordField| it.aliases.contains(&field.name);
                reader.fields.iter().filter(has_alias).find(|it| !is_written(&it.name) && !is_taken(&it.name))
            });
            fields.push(match found {
                Some(found) => {
                    let node = self.node(&field.schema, &found.schema)?;
                    let (name, default) = (found.name.clone(), default_of(found).cloned());
                    Field { label: label(&name), name, node, is_read: true, default }
                }
                None => {
                    // Its types are not the reader's.
                    let node = self.skipped(&field.schema)?;
                    let name = field.name.clone();
                    Field { label: label(&name), name, node, is_read: false, default: None }
                }
            });
        }
        let mut added = Vec::new();
        let read: HashSet<&str> =
            fields.iter().filter(|field| field.is_read).map(|field| field.name.as_str()).collect();
        for field in &reader.fields {
            if read.contains(field.name.as_str()) {
                continue;
            }
            match self.added_field(field) {
                Ok(json) => added.push((label(&field.name), json)),
                Err(reason) => {
                    let (record, field) = (reader.name.fullname(None), &field.name);
                    return Ok(Node::Unreadable(format!("{record}.{field} was not written, and {reason}")));
                }
            }
        }
        Ok(Node::Record(Record { fields, added }))
    }

    /// Compiles a type that is read only to find its end.
    fn skipped(&mut self, schema: &'a Schema) -> Result<NodeId, String> {
        let reader = std::mem::replace(&mut self.reader, self.writer);
        std::mem::swap(&mut self.known, &mut self.skipped);
        let node = self.node(schema, schema);
        std::mem::swap(&mut self.known, &mut self.skipped);
        self.reader = reader;
        node
    }

    /// Returns the JSON of a field that was not written.
    fn added_field(&self, field: &'a RecordField) -> Result<String, String> {
        let default = default_of(field).ok_or("has no default")?;
        let unusable = |error: String| format!("its default cannot be used: {error}");
        let mut compiler = Compiler {
            writer: self.reader,
            reader: self.reader,
            settings: self.settings,
            nodes: Vec::new(),
            known: HashMap::new(),
            skipped: HashMap::new(),
            depth: self.depth,
        };
        let root = compiler.node(&field.schema, &field.schema).map_err(unusable)?;
        let plan = Plan { nodes: compiler.nodes, root };
        // The standard's form of a default is not that of a value.
        let raw = encode(&plan, Form::Default, &default.to_string());
        let raw = raw.map_err(|error| unusable(message(error)))?;
        let mut json = String::new();
        decode(&plan, self.settings, &raw, &mut json).map_err(|error| unusable(message(error)))?;
        Ok(json)
    }
}

/// Returns the default of a field.
fn default_of(field: &RecordField) -> Option<&Value> {
    field.custom_attributes.get(DEFAULT)
}

/// Whether two types are the same one.
fn is_equal(writer: &Schema, reader: &Schema) -> bool {
    stored(writer) == stored(reader) && type_name(writer) == type_name(reader)
}

/// Whether what was written as one type can be read as the other, without a conversion.
fn is_exact(writer: &Schema, reader: &Schema) -> bool {
    stored(writer) == stored(reader) && has_same_name(writer, reader)
}

/// Whether the names of two types fit: the namespaces may differ, and the reader's type may have the other name as an
/// alias. Types without names fit.
fn has_same_name(writer: &Schema, reader: &Schema) -> bool {
    let (Some(before), Some(after)) = (type_name(writer), type_name(reader)) else {
        return type_name(writer).is_none() && type_name(reader).is_none();
    };
    let mut aliases = reader.aliases().into_iter().flatten();
    before.name() == after.name() || aliases.any(|alias| alias.name() == before.name())
}

/// Whether what was written as one type can be read as the other.
fn is_readable(writer: &Schema, reader: &Schema) -> bool {
    matches!(
        (stored(writer), stored(reader)),
        (Stored::Int, Stored::Long | Stored::Float | Stored::Double)
            | (Stored::Long, Stored::Float | Stored::Double)
            | (Stored::Float, Stored::Double)
            | (Stored::String, Stored::Bytes)
            | (Stored::Bytes, Stored::String)
    )
}

/// Whether two types have other logical types, so that the same bytes mean something else.
fn means_otherwise(writer: &Schema, reader: &Schema) -> bool {
    match (plain(writer), plain(reader)) {
        (Some(Node::Decimal(before)), Some(Node::Decimal(after))) => {
            (before.precision, before.scale) != (after.precision, after.scale)
        }
        (Some(Node::Time(before)), Some(Node::Time(after))) => before != after,
        _ => false,
    }
}

/// The node of a type without parts.
fn scalar(writer: &Schema, reader: &Schema) -> Node {
    let unreadable = || {
        let (before, after) = (branch_name(writer), branch_name(reader));
        Node::Unreadable(format!("{before} was written, which cannot be read as {after}"))
    };
    let is_named = matches!(stored(writer), Stored::Fixed(_) | Stored::Enum);
    if means_otherwise(writer, reader) || is_named && !has_same_name(writer, reader) {
        return unreadable();
    }
    match (stored(writer), stored(reader)) {
        (Stored::Int, Stored::Float) => Node::Promoted(WrittenNumber::Int, ReadNumber::Float),
        (Stored::Int, Stored::Double) => Node::Promoted(WrittenNumber::Int, ReadNumber::Double),
        (Stored::Long, Stored::Float) => Node::Promoted(WrittenNumber::Long, ReadNumber::Float),
        (Stored::Long, Stored::Double) => Node::Promoted(WrittenNumber::Long, ReadNumber::Double),
        (Stored::Float, Stored::Double) => Node::Promoted(WrittenNumber::Float, ReadNumber::Double),
        (before, after)
            if before == after
                || matches!(
                    (before, after),
                    (Stored::Int, Stored::Long)
                        | (Stored::String, Stored::Bytes)
                        | (Stored::Bytes, Stored::String)
                ) =>
        {
            plain(reader).unwrap_or_else(unreadable)
        }
        _ => unreadable(),
    }
}

/// The node of a type without parts, as it is written and read.
fn plain(schema: &Schema) -> Option<Node> {
    Some(match schema {
        Schema::Null => Node::Null,
        Schema::Boolean => Node::Boolean,
        Schema::Int => Node::Int,
        Schema::Long => Node::Long,
        Schema::Float => Node::Float,
        Schema::Double => Node::Double,
        Schema::Bytes | Schema::Uuid(UuidSchema::Bytes) => Node::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Node::String,
        Schema::Fixed(fixed) => Node::Fixed(fixed.size),
        Schema::Decimal(decimal) => {
            let size = match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                InnerDecimalSchema::Bytes => None,
            };
            if decimal.precision > MAX_PRECISION || decimal.scale > MAX_PRECISION {
                return None;
            }
            Node::Decimal(Decimal { precision: decimal.precision, scale: decimal.scale, size })
        }
        Schema::BigDecimal => Node::BigDecimal,
        Schema::Uuid(UuidSchema::Fixed(fixed)) if fixed.size == 16 => Node::UuidFixed,
        Schema::Uuid(UuidSchema::Fixed(fixed)) => Node::Fixed(fixed.size),
        Schema::Date => Node::Time(Time::Date),
        Schema::TimeMillis => Node::Time(Time::OfDay(Unit::Millis)),
        Schema::TimeMicros => Node::Time(Time::OfDay(Unit::Micros)),
        Schema::TimestampMillis => Node::Time(Time::Point(Unit::Millis)),
        Schema::TimestampMicros => Node::Time(Time::Point(Unit::Micros)),
        Schema::TimestampNanos => Node::Time(Time::Point(Unit::Nanos)),
        Schema::LocalTimestampMillis => Node::Time(Time::Local(Unit::Millis)),
        Schema::LocalTimestampMicros => Node::Time(Time::Local(Unit::Micros)),
        Schema::LocalTimestampNanos => Node::Time(Time::Local(Unit::Nanos)),
        Schema::Duration(fixed) if fixed.size == 12 => Node::Duration,
        _ => return None,
    })
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns a name of a JSON member, with its colon.
fn label(name: &str) -> String {
    format!("{}:", quote(name))
}
