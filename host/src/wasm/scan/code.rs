//! Types and code: everything of a file that a compiler takes time and memory for.

use wasmparser::{
    BinaryReader, ComponentType, ComponentTypeDeclaration, CoreType, FunctionBody, InstanceTypeDeclaration,
    Operator, Parser, Payload,
};

use crate::wasm::scan::limits::{
    MAX_ALL_BRANCHES, MAX_ALL_LOCALS, MAX_BRANCHES, MAX_FUNCTION_BYTES, MAX_LOCALS, MAX_TYPE_DEPTH,
    MAX_TYPES, Refusal, exceeded, refuse,
};

/// The leading bytes of a component type and of an instance type, and that of a type within
/// one of these.
const COMPONENT_TYPE: u8 = 0x41;
const INSTANCE_TYPE: u8 = 0x42;
const TYPE_DECLARATION: u8 = 0x01;

/// The custom sections in which a core module carries the component type that it was built
/// against begin with this.
const EMBEDDED_TYPE: &str = "component-type";

/// How many components may be embedded in custom sections of each other.
const MAX_EMBEDDED: usize = 4;

/// Checks types and code of a component or a core module, embedded types too.
pub(in crate::wasm) fn code(bytes: &[u8]) -> Result<(), Refusal> {
    let mut counts = Counts::default();
    // A list instead of recursion: what is embedded may embed more.
    let mut left = vec![(bytes, 0)];
    while let Some((bytes, depth)) = left.pop() {
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ComponentTypeSection(section) => {
                    let range = section.range();
                    let reader = BinaryReader::new(bytes.get(range.clone()).unwrap_or_default(), range.start);
                    counts.types(reader, section.count())?;
                }
                Payload::CoreTypeSection(section) => {
                    for ty in section {
                        counts.core_type(&ty?)?;
                    }
                }
                Payload::TypeSection(section) => counts.type_count(u64::from(section.count()))?,
                Payload::CodeSectionEntry(body) => counts.function(&body)?,
                Payload::CustomSection(section) if section.name().starts_with(EMBEDDED_TYPE) => {
                    if depth >= MAX_EMBEDDED {
                        return Err("types are embedded too deep in it".to_owned().into());
                    }
                    left.push((section.data(), depth + 1));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Counts {
    types: u64,
    locals: u64,
    branches: u64,
}

impl Counts {
    fn type_count(&mut self, more: u64) -> Result<(), Refusal> {
        self.types = self.types.saturating_add(more);
        refuse(exceeded("it has", "types", self.types, MAX_TYPES))
    }

    fn core_type(&mut self, ty: &CoreType<'_>) -> Result<(), Refusal> {
        self.type_count(match ty {
            CoreType::Rec(group) => group.types().len() as u64,
            CoreType::Module(declarations) => declarations.len() as u64 + 1,
        })
    }

    /// Passes over a section of component types. The parser's own reader recurses into types
    /// within types; here a list holds how many declarations each open type has left.
    fn types(&mut self, mut reader: BinaryReader<'_>, count: u32) -> Result<(), Refusal> {
        // The section's count, which the caller has read.
        reader.read_var_u32()?;
        for _ in 0..count {
            let mut open: Vec<(u8, u32)> = Vec::new();
            self.one_type(&mut reader, &mut open)?;
            while let Some((kind, left)) = open.last_mut() {
                if *left == 0 {
                    open.pop();
                    continue;
                }
                *left -= 1;
                let kind = *kind;
                self.type_count(1)?;
                if peek(&reader)? == TYPE_DECLARATION {
                    reader.read_u8()?;
                    self.one_type(&mut reader, &mut open)?;
                } else if kind == COMPONENT_TYPE {
                    if let ComponentTypeDeclaration::CoreType(ty) = reader.read()? {
                        self.core_type(&ty)?;
                    }
                } else if let InstanceTypeDeclaration::CoreType(ty) = reader.read()? {
                    self.core_type(&ty)?;
                }
            }
        }
        Ok(())
    }

    /// Passes over a type; of one that has declarations, only the begin.
    fn one_type(&mut self, reader: &mut BinaryReader<'_>, open: &mut Vec<(u8, u32)>) -> Result<(), Refusal> {
        self.type_count(1)?;
        match peek(reader)? {
            kind @ (COMPONENT_TYPE | INSTANCE_TYPE) => {
                reader.read_u8()?;
                open.push((kind, reader.read_var_u32()?));
                if open.len() > MAX_TYPE_DEPTH {
                    return Err(format!("types are nested more than {MAX_TYPE_DEPTH} deep in it").into());
                }
            }
            _ => drop(reader.read::<ComponentType<'_>>()?),
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), Refusal> {
        let bytes = body.range().len();
        if bytes > MAX_FUNCTION_BYTES {
            return Err(format!(
                "a function of it has {bytes} bytes, at most {MAX_FUNCTION_BYTES} are allowed: build it with \
                 optimization"
            )
            .into());
        }
        let mut locals = 0_u64;
        for local in body.get_locals_reader()? {
            locals = locals.saturating_add(u64::from(local?.0));
        }
        refuse(exceeded("a function of it has", "locals", locals, MAX_LOCALS))?;
        self.locals = self.locals.saturating_add(locals);
        refuse(exceeded("its functions have", "locals", self.locals, MAX_ALL_LOCALS))?;
        let mut branches = 0_u64;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            if let Operator::BrTable { targets } = operators.read()? {
                branches += u64::from(targets.len());
            }
        }
        refuse(exceeded("a function of it has", "branch table entries", branches, MAX_BRANCHES))?;
        self.branches = self.branches.saturating_add(branches);
        refuse(exceeded("its functions have", "branch table entries", self.branches, MAX_ALL_BRANCHES))
    }
}

/// The next byte, which stays to be read.
fn peek(reader: &BinaryReader<'_>) -> Result<u8, Refusal> {
    Ok(reader.clone().read_u8()?)
}
