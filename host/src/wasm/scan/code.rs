//! Scans types and code: everything in a file that costs a compiler time and memory.

use wasmparser::{
    BinaryReader, ComponentType, ComponentTypeDeclaration, CoreType, FunctionBody, InstanceTypeDeclaration,
    Operator, Parser, Payload,
};

use crate::wasm::scan::limits::{
    MAX_ALL_BRANCHES, MAX_ALL_LOCALS, MAX_BRANCHES, MAX_FUNCTION_BYTES, MAX_LOCALS, MAX_TYPE_BYTES,
    MAX_TYPE_DEPTH, MAX_TYPES, Refusal, describe_excess, refuse,
};

/// The leading byte of a component type.
const COMPONENT_TYPE: u8 = 0x41;

/// The leading byte of an instance type.
const INSTANCE_TYPE: u8 = 0x42;

/// The leading byte of the declaration of a type, in a component type or an instance type.
const TYPE_DECLARATION: u8 = 0x01;

/// The prefix of the names of custom sections that hold the component type against which a core module was
/// built.
const EMBEDDED_TYPE: &str = "component-type";

/// How deeply components may be embedded in custom sections of each other.
const MAX_EMBEDDED: usize = 4;

/// Checks the types and the code of a component or a core module, including embedded types.
pub(in crate::wasm) fn scan_code(bytes: &[u8]) -> Result<(), Refusal> {
    let mut counts = Counts::default();
    // A list instead of recursion, because embedded components may embed others.
    let mut pending = vec![(bytes, 0)];
    while let Some((bytes, depth)) = pending.pop() {
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ComponentTypeSection(section) => {
                    let range = section.range();
                    counts.add_type_bytes(range.len())?;
                    let reader = BinaryReader::new(bytes.get(range.clone()).unwrap_or_default(), range.start);
                    counts.read_types(reader, section.count())?;
                }
                Payload::CoreTypeSection(section) => {
                    counts.add_type_bytes(section.range().len())?;
                    for ty in section {
                        counts.count_core_type(&ty?)?;
                    }
                }
                Payload::TypeSection(section) => {
                    counts.add_type_bytes(section.range().len())?;
                    counts.add_types(u64::from(section.count()))?;
                }
                Payload::CodeSectionEntry(body) => counts.count_function(&body)?,
                Payload::CustomSection(section) if section.name().starts_with(EMBEDDED_TYPE) => {
                    if depth >= MAX_EMBEDDED {
                        return Err("its types are embedded too deeply in each other".to_owned().into());
                    }
                    pending.push((section.data(), depth + 1));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The counts of a file so far.
#[derive(Debug, Default)]
struct Counts {
    type_bytes: u64,
    types: u64,
    locals: u64,
    branches: u64,
}

impl Counts {
    /// Adds the bytes of a section of types, before it is read.
    fn add_type_bytes(&mut self, more: usize) -> Result<(), Refusal> {
        self.type_bytes = self.type_bytes.saturating_add(more as u64);
        refuse(describe_excess("its types have", "bytes", self.type_bytes, MAX_TYPE_BYTES))
    }

    fn add_types(&mut self, more: u64) -> Result<(), Refusal> {
        self.types = self.types.saturating_add(more);
        refuse(describe_excess("it has", "types", self.types, MAX_TYPES))
    }

    fn count_core_type(&mut self, ty: &CoreType<'_>) -> Result<(), Refusal> {
        self.add_types(match ty {
            CoreType::Rec(group) => group.types().len() as u64,
            CoreType::Module(declarations) => declarations.len() as u64 + 1,
        })
    }

    /// Reads and counts a section of component types. The parser's own reader recurses into nested types.
    /// Here, a list holds how many declarations each open type has left.
    fn read_types(&mut self, mut reader: BinaryReader<'_>, count: u32) -> Result<(), Refusal> {
        // The number of types, which the caller knows already.
        reader.read_var_u32()?;
        for _ in 0..count {
            let mut open: Vec<(u8, u32)> = Vec::new();
            self.read_type(&mut reader, &mut open)?;
            while let Some((kind, left)) = open.last_mut() {
                if *left == 0 {
                    open.pop();
                    continue;
                }
                *left -= 1;
                let kind = *kind;
                self.add_types(1)?;
                if peek(&reader)? == TYPE_DECLARATION {
                    reader.read_u8()?;
                    self.read_type(&mut reader, &mut open)?;
                } else if kind == COMPONENT_TYPE {
                    if let ComponentTypeDeclaration::CoreType(ty) = reader.read()? {
                        self.count_core_type(&ty)?;
                    }
                } else if let InstanceTypeDeclaration::CoreType(ty) = reader.read()? {
                    self.count_core_type(&ty)?;
                }
            }
        }
        Ok(())
    }

    /// Reads and counts a type. If it has declarations, reads only its beginning and adds it to `open`.
    fn read_type(&mut self, reader: &mut BinaryReader<'_>, open: &mut Vec<(u8, u32)>) -> Result<(), Refusal> {
        self.add_types(1)?;
        match peek(reader)? {
            kind @ (COMPONENT_TYPE | INSTANCE_TYPE) => {
                reader.read_u8()?;
                open.push((kind, reader.read_var_u32()?));
                if open.len() > MAX_TYPE_DEPTH {
                    return Err(format!("types are nested more than {MAX_TYPE_DEPTH} levels deep").into());
                }
            }
            _ => drop(reader.read::<ComponentType<'_>>()?),
        }
        Ok(())
    }

    fn count_function(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let bytes = body.range().len();
        if bytes > MAX_FUNCTION_BYTES {
            return Err(format!(
                "one of its functions has {bytes} bytes, but at most {MAX_FUNCTION_BYTES} are allowed: build \
                 it with optimization"
            )
            .into());
        }
        let mut locals = 0_u64;
        for local in body.get_locals_reader()? {
            locals = locals.saturating_add(u64::from(local?.0));
        }
        refuse(describe_excess("one of its functions has", "locals", locals, MAX_LOCALS))?;
        self.locals = self.locals.saturating_add(locals);
        refuse(describe_excess("its functions have", "locals", self.locals, MAX_ALL_LOCALS))?;
        let mut branches = 0_u64;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            if let Operator::BrTable { targets } = operators.read()? {
                branches += u64::from(targets.len());
            }
        }
        refuse(describe_excess("one of its functions has", "branch table entries", branches, MAX_BRANCHES))?;
        self.branches = self.branches.saturating_add(branches);
        refuse(describe_excess("its functions have", "branch table entries", self.branches, MAX_ALL_BRANCHES))
    }
}

/// Returns the next byte without consuming it.
fn peek(reader: &BinaryReader<'_>) -> Result<u8, Refusal> {
    Ok(reader.clone().read_u8()?)
}
