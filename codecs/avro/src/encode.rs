//! Encodes JSON text to Avro's binary form.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ktables_guest::CodecError;
use num_bigint::BigInt;
use schema_framing::{ValuePath, shorten};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::decode::MAX_DEPTH;
use crate::number::{MAX_DIGITS, read_decimal, read_special};
use crate::plan::{Branch, Decimal, JsonKind, Node, NodeId, Plan, Record};
use crate::time::read_time;

/// The form of the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// That of values.
    Value,
    /// That of defaults in a schema: bytes are characters up to U+00FF, and branches of unions have no names.
    Default,
}

/// How many parts a value may have beyond its bytes: the defaults of fields have none.
const MAX_DEFAULT_PARTS: usize = 1 << 20;

/// An object, in the order of its members.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    fn parse(json: &'a str, path: &ValuePath<'_>) -> Result<Self, CodecError> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut members, mut names) = (Vec::new(), HashSet::new());
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a name occurs twice"));
                    }
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let members = deserializer.deserialize_map(Members);
        members.map_err(|_| wrong(path, "an object whose names differ", json))
    }
}

/// A string without a copy, unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Encodes one value.
pub(crate) fn encode(plan: &Plan, form: Form, json: &str) -> Result<Vec<u8>, CodecError> {
    let json: &RawValue =
        serde_json::from_str(json).map_err(|error| CodecError::Malformed(format!("not JSON: {error}")))?;
    let mut out = Vec::new();
    let parts_left = Cell::new(json.get().len() + MAX_DEFAULT_PARTS);
    Encoder { plan, form, parts_left: &parts_left }.node(
        plan.root,
        json.get(),
        &mut out,
        &ValuePath::ROOT,
    )?;
    Ok(out)
}

struct Encoder<'a> {
    plan: &'a Plan,
    form: Form,
    /// How many parts may follow.
    parts_left: &'a Cell<usize>,
}

impl Encoder<'_> {
    // Long because each type has a line or two.
    fn node(
        &self,
        id: NodeId,
        json: &str,
        out: &mut Vec<u8>,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        self.parts_left.set(self.parts_left.get().saturating_sub(1));
        if self.parts_left.get() == 0 || path.depth() > MAX_DEPTH {
            let reason = format!("the value has too many parts, or is nested more than {MAX_DEPTH} deep");
            return Err(CodecError::Unsupported(reason));
        }
        match &self.plan.nodes[id] {
            Node::Null => match JsonKind::of(json) {
                JsonKind::Null => {}
                _ => return Err(wrong(path, "null", json)),
            },
            Node::Boolean => out.push(u8::from(parse::<bool>(json, "a boolean", path)?)),
            Node::Int => write_long(i64::from(parse::<i32>(json, "an integer of 32 bits", path)?), out),
            Node::Long => write_long(parse(json, "an integer of 64 bits", path)?, out),
            Node::Float => {
                let number = match self.special(json, path)? {
                    Some(number) => number as f32,
                    None => finite(json, "a number of 32 bits", path)?,
                };
                out.extend(number.to_le_bytes());
            }
            Node::Double => {
                let number = match self.special(json, path)? {
                    Some(number) => number,
                    None => finite(json, "a number of 64 bits", path)?,
                };
                out.extend(number.to_le_bytes());
            }
            Node::Bytes => write_bytes(&self.bytes(json, path)?, out),
            &Node::Fixed(size) => {
                out.extend(self.bytes_of_len(size, json, path)?);
            }
            Node::String => write_bytes(text(json, path)?.as_bytes(), out),
            Node::Enum(symbols) => {
                let symbol = text(json, path)?;
                let quoted = serde_json::Value::from(&*symbol).to_string();
                let index = symbols.iter().position(|known| known.as_ref() == Ok(&quoted));
                let index = index.ok_or_else(|| wrong(path, "a symbol of the enum", json))?;
                write_long(index as i64, out);
            }
            &Node::Array(item) => {
                let items: Vec<&RawValue> = parse_borrowed(json, "an array", path)?;
                write_count(items.len(), out);
                for (index, value) in items.iter().enumerate() {
                    self.node(item, value.get(), out, &path.index(index))?;
                }
                write_long(0, out);
            }
            &Node::Map(value) => {
                let Object(entries) = Object::parse(json, path)?;
                write_count(entries.len(), out);
                for (key, json) in &entries {
                    write_bytes(key.as_bytes(), out);
                    self.node(value, json.get(), out, &path.name(key))?;
                }
                write_long(0, out);
            }
            Node::Union(branches) => self.union(branches, json, out, path)?,
            Node::Record(record) => self.record(record, json, out, path)?,
            Node::Decimal(decimal) => self.decimal(decimal, json, out, path)?,
            Node::BigDecimal => self.big_decimal(json, out, path)?,
            Node::UuidFixed if self.form == Form::Value => {
                let text = text(json, path)?;
                out.extend(uuid(&text).ok_or_else(|| wrong(path, "a UUID", json))?);
            }
            Node::UuidFixed => out.extend(self.bytes_of_len(16, json, path)?),
            Node::Time(time) => {
                let count = match JsonKind::of(json) {
                    JsonKind::String if self.form == Form::Value => read_time(*time, &text(json, path)?)
                        .map_err(|reason| CodecError::Invalid(format!("{path}: {reason}")))?,
                    _ => parse(json, "a date or a time", path)?,
                };
                if time.is_int() && i32::try_from(count).is_err() {
                    return Err(wrong(path, "a date or a time of 32 bits", json));
                }
                write_long(count, out);
            }
            Node::Duration => self.duration(json, out, path)?,
            // Not reached: a plan to write with has no reader's schema.
            Node::Promoted(..) | Node::ReadAsBranch(_) | Node::Unreadable(_) | Node::Unfinished => {
                return Err(CodecError::Unsupported(format!("{path}: this schema cannot be written")));
            }
        }
        Ok(())
    }

    fn union(
        &self,
        branches: &[Branch],
        json: &str,
        out: &mut Vec<u8>,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        let kind = JsonKind::of(json);
        if self.form == Form::Default {
            return self.default_branch(branches, json, out, path);
        }
        if kind == JsonKind::Object && branches.iter().any(|branch| branch.wrapper.is_some()) {
            let Object(members) = Object::parse(json, path)?;
            let found = members.first().filter(|_| members.len() == 1).and_then(|(name, value)| {
                let is_named = |branch: &Branch| branch.wrapper.as_deref() == Some(name.as_ref());
                Some((branches.iter().position(is_named)?, name, value))
            });
            let Some((index, name, value)) = found else {
                return Err(wrong(path, &names(branches), json));
            };
            write_long(index as i64, out);
            return self.node(branches[index].node, value.get(), out, &path.name(name));
        }
        let fits = |branch: &Branch| branch.wrapper.is_none() && branch.kind == kind;
        // NaN and the infinities are strings, and some times are numbers.
        let may_fit = |branch: &Branch| {
            let is_time = matches!(self.plan.nodes[branch.node], Node::Time(_));
            branch.wrapper.is_none()
                && match kind {
                    JsonKind::String => branch.kind == JsonKind::Number,
                    JsonKind::Number => is_time,
                    _ => false,
                }
        };
        let index = branches.iter().position(fits).or_else(|| branches.iter().position(may_fit));
        match index {
            Some(index) => {
                write_long(index as i64, out);
                self.node(branches[index].node, json, out, path)
            }
            None => Err(wrong(path, &names(branches), json)),
        }
    }

    /// Writes the first branch that takes the value.
    fn default_branch(
        &self,
        branches: &[Branch],
        json: &str,
        out: &mut Vec<u8>,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        let begin = out.len();
        for (index, branch) in branches.iter().enumerate() {
            write_long(index as i64, out);
            if self.node(branch.node, json, out, path).is_ok() {
                return Ok(());
            }
            out.truncate(begin);
        }
        Err(wrong(path, &names(branches), json))
    }

    fn record(
        &self,
        record: &Record,
        json: &str,
        out: &mut Vec<u8>,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        let Object(members) = Object::parse(json, path)?;
        let members: HashMap<&str, &RawValue> =
            members.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        let mut used = 0;
        for field in &record.fields {
            let inside = path.name(&field.name);
            match (members.get(field.name.as_str()), &field.default) {
                (Some(value), _) => {
                    used += 1;
                    self.node(field.node, value.get(), out, &inside)?;
                }
                (None, Some(default)) => {
                    let default = default.to_string();
                    Encoder { form: Form::Default, ..*self }.node(field.node, &default, out, &inside)?;
                }
                (None, None) => {
                    return Err(CodecError::Invalid(format!("{inside} is missing, and has no default")));
                }
            }
        }
        if used == members.len() {
            return Ok(());
        }
        let is_known = |name: &str| record.fields.iter().any(|field| field.name == name);
        let unknown = members.keys().find(|name| !is_known(name)).map_or("", |name| shorten(name));
        Err(CodecError::Invalid(format!("{path} has no field {unknown:?} in the schema")))
    }

    fn decimal(
        &self,
        decimal: &Decimal,
        json: &str,
        out: &mut Vec<u8>,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        let bytes = if self.form == Form::Default {
            self.bytes(json, path)?
        } else {
            let (number, scale) = self.number(json, path)?;
            let Some(zeros) = decimal.scale.checked_sub(scale) else {
                let expected = format!("a decimal with at most {} digits behind the point", decimal.scale);
                return Err(wrong(path, &expected, json));
            };
            let number = number * BigInt::from(10).pow(zeros as u32);
            if number.magnitude().to_string().len() > decimal.precision {
                return Err(wrong(path, &format!("a decimal of at most {} digits", decimal.precision), json));
            }
            number.to_signed_bytes_be()
        };
        let Some(size) = decimal.size else {
            write_bytes(&bytes, out);
            return Ok(());
        };
        let Some(padding) = size.checked_sub(bytes.len()) else {
            return Err(wrong(path, &format!("a decimal that fits into {size} bytes"), json));
        };
        let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        out.extend(std::iter::repeat_n(sign, padding));
        out.extend(bytes);
        Ok(())
    }

    fn big_decimal(&self, json: &str, out: &mut Vec<u8>, path: &ValuePath<'_>) -> Result<(), CodecError> {
        if self.form == Form::Default {
            write_bytes(&self.bytes(json, path)?, out);
            return Ok(());
        }
        let text = self.decimal_text(json, path)?;
        let (number, scale) = read_decimal(&text).ok_or_else(|| wrong(path, "a decimal number", json))?;
        // As many zeros at the end as were written.
        let written = text.split_once('.').map_or(0, |(_, fraction)| fraction.len()).clamp(scale, MAX_DIGITS);
        let number = number * BigInt::from(10).pow((written - scale) as u32);
        let mut inner = Vec::new();
        write_bytes(&number.to_signed_bytes_be(), &mut inner);
        write_long(written as i64, &mut inner);
        write_bytes(&inner, out);
        Ok(())
    }

    fn number(&self, json: &str, path: &ValuePath<'_>) -> Result<(BigInt, usize), CodecError> {
        let text = self.decimal_text(json, path)?;
        read_decimal(&text).ok_or_else(|| wrong(path, "a decimal number", json))
    }

    /// A decimal is a string or a number.
    fn decimal_text<'j>(&self, json: &'j str, path: &ValuePath<'_>) -> Result<Cow<'j, str>, CodecError> {
        match JsonKind::of(json) {
            JsonKind::String => text(json, path),
            JsonKind::Number => Ok(Cow::Borrowed(json)),
            _ => Err(wrong(path, "a decimal number", json)),
        }
    }

    fn duration(&self, json: &str, out: &mut Vec<u8>, path: &ValuePath<'_>) -> Result<(), CodecError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Duration {
            months: u32,
            days: u32,
            millis: u32,
        }
        if self.form == Form::Default {
            out.extend(self.bytes_of_len(12, json, path)?);
            return Ok(());
        }
        let expected = "an object with months, days and millis, integers from 0 to 2^32 - 1";
        let duration: Duration = parse(json, expected, path)?;
        for number in [duration.months, duration.days, duration.millis] {
            out.extend(number.to_le_bytes());
        }
        Ok(())
    }

    /// Reads NaN and the infinities, which are strings.
    fn special(&self, json: &str, path: &ValuePath<'_>) -> Result<Option<f64>, CodecError> {
        if JsonKind::of(json) != JsonKind::String || self.form == Form::Default {
            return Ok(None);
        }
        let special = read_special(&text(json, path)?);
        special.map(Some).ok_or_else(|| wrong(path, "a number", json))
    }

    fn bytes_of_len(&self, len: usize, json: &str, path: &ValuePath<'_>) -> Result<Vec<u8>, CodecError> {
        let bytes = self.bytes(json, path)?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(wrong(path, &format!("{len} bytes"), json)),
        }
    }

    fn bytes(&self, json: &str, path: &ValuePath<'_>) -> Result<Vec<u8>, CodecError> {
        let text = text(json, path)?;
        match self.form {
            Form::Value => {
                STANDARD.decode(&*text).map_err(|error| wrong(path, &format!("base64 ({error})"), json))
            }
            Form::Default => {
                let bytes: Result<Vec<u8>, _> =
                    text.chars().map(|char| u8::try_from(u32::from(char))).collect();
                bytes.map_err(|_| wrong(path, "characters up to U+00FF", json))
            }
        }
    }
}

/// Lists the names of branches.
fn names(branches: &[Branch]) -> String {
    const MAX_NAMES: usize = 10;
    let name = |branch: &Branch| match &branch.wrapper {
        Some(wrapper) => format!("{{{wrapper:?}: …}}"),
        None => branch.kind.to_string(),
    };
    let more = if branches.len() > MAX_NAMES { " or others" } else { "" };
    format!("{}{more}", branches.iter().take(MAX_NAMES).map(name).collect::<Vec<_>>().join(" or "))
}

fn parse<T: DeserializeOwned>(json: &str, expected: &str, path: &ValuePath<'_>) -> Result<T, CodecError> {
    serde_json::from_str(json).map_err(|_| wrong(path, expected, json))
}

fn parse_borrowed<'a, T: Deserialize<'a>>(
    json: &'a str,
    expected: &str,
    path: &ValuePath<'_>,
) -> Result<T, CodecError> {
    serde_json::from_str(json).map_err(|_| wrong(path, expected, json))
}

fn text<'a>(json: &'a str, path: &ValuePath<'_>) -> Result<Cow<'a, str>, CodecError> {
    parse_borrowed::<Text<'_>>(json, "a string", path).map(|Text(text)| text)
}

/// Parses a floating-point number, rounded once. JSON has numbers that none can hold.
fn finite<T: FromStr + Copy + Into<f64>>(
    json: &str,
    expected: &str,
    path: &ValuePath<'_>,
) -> Result<T, CodecError> {
    let number = json.parse().ok().filter(|number: &T| (*number).into().is_finite());
    number.ok_or_else(|| wrong(path, expected, json))
}

fn wrong(path: &ValuePath<'_>, expected: &str, json: &str) -> CodecError {
    let shown = shorten(json);
    let more = if shown.len() < json.len() { "…" } else { "" };
    CodecError::Invalid(format!("{path}: expected {expected}, found {shown}{more}"))
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&char| char != '-').collect();
    let is_uuid =
        text.len() == 36 && digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_uuid.then(|| {
        std::array::from_fn(|index| {
            // OK because all are hexadecimal digits.
            u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).expect("digits")
        })
    })
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend(bytes);
}

/// Begins the only block, unless it is empty.
fn write_count(items: usize, out: &mut Vec<u8>) {
    if items > 0 {
        write_long(items as i64, out);
    }
}

fn write_long(number: i64, out: &mut Vec<u8>) {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}
