//! Decodes Avro's binary form to JSON text, in one pass.

use std::collections::HashSet;

use ktables_guest::CodecError;
use num_bigint::BigInt;
use schema_framing::{ValuePath, shorten};

use crate::json::{push_base64, push_string, push_uuid};
use crate::number::{MAX_DIGITS, write_decimal, write_double, write_float};
use crate::plan::{Branch, Decimal, JsonKind, Node, NodeId, Plan, ReadNumber, Record, WrittenNumber};
use crate::time::{write_duration, write_time};
use crate::{Decimals, Settings};

/// How deep values may be nested.
pub(crate) const MAX_DEPTH: usize = 100;

/// The longest decimal number, in bytes. Its digits take time that grows with the square.
const MAX_DECIMAL_BYTES: usize = 1024;

/// How many parts a value may have beyond its bytes: null, empty records and the like need no bytes.
const MAX_EMPTY_PARTS: usize = 1 << 16;

/// The largest JSON text, in bytes. The host's limit is lower, unless it is raised.
const MAX_JSON_BYTES: usize = 16 << 20;

/// Decodes one value.
pub(crate) fn decode(
    plan: &Plan,
    settings: &Settings,
    raw: &[u8],
    out: &mut String,
) -> Result<(), CodecError> {
    let parts_left = raw.len() + MAX_EMPTY_PARTS;
    let mut decoder = Decoder { plan, settings, left: raw, whole: raw.len(), parts_left, is_skipping: false };
    decoder.node(plan.root, out, &ValuePath::ROOT)?;
    match decoder.left.len() {
        0 => Ok(()),
        left => Err(CodecError::Malformed(format!("{left} bytes follow the value"))),
    }
}

struct Decoder<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    /// The bytes that were not read yet.
    left: &'a [u8],
    /// The number of all bytes.
    whole: usize,
    /// How many parts may follow.
    parts_left: usize,
    /// Whether the reader's schema does not have this part.
    is_skipping: bool,
}

impl<'a> Decoder<'a> {
    // Long because each type has a line or two.
    fn node(&mut self, id: NodeId, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        self.parts_left = self.parts_left.saturating_sub(1);
        if self.parts_left == 0 || out.len() > MAX_JSON_BYTES || path.depth() > MAX_DEPTH {
            return Err(CodecError::Unsupported(format!(
                "the value has too many parts, or more than {MAX_JSON_BYTES} bytes as JSON, or is nested more than \
                 {MAX_DEPTH} deep"
            )));
        }
        match &self.plan.nodes[id] {
            Node::Null => out.push_str("null"),
            Node::Boolean => match self.take(1, path)?[0] {
                0 => out.push_str("false"),
                1 => out.push_str("true"),
                other => return Err(self.malformed(path, &format!("a boolean is 0 or 1, not {other}"))),
            },
            Node::Int => {
                let number = self.int(path)?;
                out.push_str(itoa::Buffer::new().format(number));
            }
            Node::Long => {
                let number = self.long(path)?;
                out.push_str(itoa::Buffer::new().format(number));
            }
            Node::Float => write_float(f32::from_le_bytes(self.array(path)?), out),
            Node::Double => write_double(f64::from_le_bytes(self.array(path)?), out),
            &Node::Promoted(from, to) => self.promoted(from, to, out, path)?,
            Node::Bytes => {
                let bytes = self.bytes(path)?;
                push_base64(bytes, out);
            }
            &Node::Fixed(size) => {
                let bytes = self.take(size, path)?;
                push_base64(bytes, out);
            }
            Node::String => {
                let text = self.text(path)?;
                push_string(text, out);
            }
            Node::Enum(symbols) => {
                let index = self.long(path)?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                match symbol {
                    Some(Ok(symbol)) => out.push_str(symbol),
                    Some(Err(reason)) => return Err(CodecError::Invalid(format!("{path}: {reason}"))),
                    None => return Err(self.malformed(path, &format!("the enum has no symbol {index}"))),
                }
            }
            &Node::Array(item) => self.array_of(item, out, path)?,
            &Node::Map(value) => self.map_of(value, out, path)?,
            Node::Union(branches) => {
                let index = self.long(path)?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
                match branch {
                    Some(branch) => self.branch(branch, out, path)?,
                    None => return Err(self.malformed(path, &format!("the union has no branch {index}"))),
                }
            }
            Node::ReadAsBranch(branch) => self.branch(branch, out, path)?,
            Node::Record(record) => self.record(record, out, path)?,
            Node::Decimal(decimal) => self.decimal(decimal, out, path)?,
            Node::BigDecimal => self.big_decimal(out, path)?,
            Node::UuidFixed => {
                let bytes = self.array::<16>(path)?;
                push_uuid(bytes, out);
            }
            Node::Time(time) => {
                let count = if time.is_int() { i64::from(self.int(path)?) } else { self.long(path)? };
                write_time(*time, count, out);
            }
            Node::Duration => write_duration(self.array(path)?, out),
            Node::Unreadable(reason) => return Err(CodecError::Invalid(format!("{path}: {reason}"))),
            Node::Unfinished => unreachable!("a finished plan"),
        }
        Ok(())
    }

    fn branch(&mut self, branch: &Branch, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        let Some(name) = &branch.wrapper else {
            let begin = out.len();
            self.node(branch.node, out, path)?;
            // NaN and the infinities are strings, and some times are numbers.
            let kind = JsonKind::of(&out[begin..]);
            if kind != branch.kind && branch.kinds.contains(&kind) && !self.is_skipping {
                let reason = format!("{path}: {} could be another branch of this union", &out[begin..]);
                return Err(CodecError::Unsupported(reason));
            }
            return Ok(());
        };
        out.push('{');
        push_string(name, out);
        out.push(':');
        self.node(branch.node, out, &path.name(name))?;
        out.push('}');
        Ok(())
    }

    fn record(&mut self, record: &Record, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        out.push('{');
        let begin = out.len();
        for field in &record.fields {
            let before = out.len();
            if field.is_read {
                if before > begin {
                    out.push(',');
                }
                out.push_str(&field.label);
            }
            let was_skipping = self.is_skipping;
            self.is_skipping |= !field.is_read;
            self.node(field.node, out, &path.name(&field.name))?;
            self.is_skipping = was_skipping;
            if !field.is_read {
                out.truncate(before);
            }
        }
        for (label, json) in &record.added {
            if out.len() > begin {
                out.push(',');
            }
            out.push_str(label);
            out.push_str(json);
        }
        out.push('}');
        Ok(())
    }

    fn array_of(&mut self, item: NodeId, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        out.push('[');
        let mut index = 0;
        self.blocks(path, |decoder| {
            if index > 0 {
                out.push(',');
            }
            decoder.node(item, out, &path.index(index))?;
            index += 1;
            Ok(())
        })?;
        out.push(']');
        Ok(())
    }

    fn map_of(&mut self, value: NodeId, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        out.push('{');
        let mut keys = HashSet::new();
        self.blocks(path, |decoder| {
            if !keys.is_empty() {
                out.push(',');
            }
            let key = decoder.text(path)?;
            if !keys.insert(key) {
                return Err(decoder.malformed(path, &format!("the key {:?} occurs twice", shorten(key))));
            }
            push_string(key, out);
            out.push(':');
            decoder.node(value, out, &path.name(key))
        })?;
        out.push('}');
        Ok(())
    }

    /// Reads the items of all blocks of an array or a map.
    fn blocks(
        &mut self,
        path: &ValuePath<'_>,
        mut item: impl FnMut(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        loop {
            let mut count = self.long(path)?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The bytes of the block follow.
                self.long(path)?;
                count =
                    count.checked_neg().ok_or_else(|| self.malformed(path, "a block has too many items"))?;
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    fn promoted(
        &mut self,
        from: WrittenNumber,
        to: ReadNumber,
        out: &mut String,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        match (from, to) {
            (WrittenNumber::Int, ReadNumber::Float) => write_float(self.int(path)? as f32, out),
            (WrittenNumber::Int, ReadNumber::Double) => write_double(f64::from(self.int(path)?), out),
            (WrittenNumber::Long, ReadNumber::Float) => write_float(self.long(path)? as f32, out),
            (WrittenNumber::Long, ReadNumber::Double) => write_double(self.long(path)? as f64, out),
            (WrittenNumber::Float, _) => write_double(f64::from(f32::from_le_bytes(self.array(path)?)), out),
        }
        Ok(())
    }

    fn decimal(
        &mut self,
        decimal: &Decimal,
        out: &mut String,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        let bytes = match decimal.size {
            Some(size) => self.take(size, path)?,
            None => self.bytes(path)?,
        };
        self.push_decimal(bytes, decimal.scale as i64, decimal.precision, out, path)
    }

    fn big_decimal(&mut self, out: &mut String, path: &ValuePath<'_>) -> Result<(), CodecError> {
        let bytes = self.bytes(path)?;
        let mut inner = Decoder { left: bytes, whole: bytes.len(), ..*self };
        let number = inner.bytes(path)?;
        let scale = inner.long(path)?;
        if !inner.left.is_empty() || !(-1024..=1024).contains(&scale) {
            return Err(self.malformed(path, "a big decimal is a number and a scale from -1024 to 1024"));
        }
        self.push_decimal(number, scale, MAX_DIGITS - 1024, out, path)
    }

    fn push_decimal(
        &self,
        bytes: &[u8],
        scale: i64,
        precision: usize,
        out: &mut String,
        path: &ValuePath<'_>,
    ) -> Result<(), CodecError> {
        if bytes.len() > MAX_DECIMAL_BYTES && !self.is_skipping {
            let reason = format!(
                "{path}: a decimal of {} bytes, but at most {MAX_DECIMAL_BYTES} are read",
                bytes.len()
            );
            return Err(CodecError::Unsupported(reason));
        }
        let is_text = self.settings.decimal == Decimals::String;
        if is_text {
            out.push('"');
        }
        let bytes = &bytes[..bytes.len().min(MAX_DECIMAL_BYTES)];
        let number = BigInt::from_signed_bytes_be(bytes);
        let begin = out.len();
        write_decimal(&number, scale, out);
        let digits = number.magnitude().to_string().len();
        if digits > precision && !self.is_skipping {
            let reason =
                format!("{path}: {} has {digits} digits, more than {precision}", shorten(&out[begin..]));
            return Err(CodecError::Invalid(reason));
        }
        if is_text {
            out.push('"');
        }
        Ok(())
    }

    fn text(&mut self, path: &ValuePath<'_>) -> Result<&'a str, CodecError> {
        let bytes = self.bytes(path)?;
        std::str::from_utf8(bytes).map_err(|error| self.malformed(path, &format!("not UTF-8: {error}")))
    }

    fn bytes(&mut self, path: &ValuePath<'_>) -> Result<&'a [u8], CodecError> {
        let len = self.long(path)?;
        let len = usize::try_from(len).map_err(|_| self.malformed(path, &format!("it has {len} bytes")))?;
        self.take(len, path)
    }

    fn array<const N: usize>(&mut self, path: &ValuePath<'_>) -> Result<[u8; N], CodecError> {
        // OK because `take` returns this many bytes.
        Ok(self.take(N, path)?.try_into().expect("N bytes"))
    }

    fn take(&mut self, len: usize, path: &ValuePath<'_>) -> Result<&'a [u8], CodecError> {
        match self.left.split_at_checked(len) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => Err(self.malformed(path, &format!("{len} bytes expected, {} left", self.left.len()))),
        }
    }

    fn int(&mut self, path: &ValuePath<'_>) -> Result<i32, CodecError> {
        let number = self.long(path)?;
        i32::try_from(number).map_err(|_| self.malformed(path, &format!("{number} is no int of 32 bits")))
    }

    fn long(&mut self, path: &ValuePath<'_>) -> Result<i64, CodecError> {
        let mut number = 0_u64;
        for (index, &byte) in self.left.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has the last bit.
            if index == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.left = &self.left[index + 1..];
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(self.malformed(path, "a number has no end within 64 bits"))
    }

    fn malformed(&self, path: &ValuePath<'_>, reason: &str) -> CodecError {
        CodecError::Malformed(format!("{path}, byte {}: {reason}", self.whole - self.left.len()))
    }
}
