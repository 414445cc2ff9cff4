//! Checks the functions that a core module exports for the host, and says what to write instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use wasmparser::types::EntityType;
use wasmparser::{MemoryType, ValType, Validator};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{
    InterfaceId, LiftLowerAbi, ManglingAndAbi, PackageId, Resolve, WasmExport, WasmExportKind, WorldKey,
};

use crate::wasm::quote;

/// The names of core functions: those of the canonical ABI that all languages use today.
const NAMES: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);

/// The name of the module from which core modules import WASI preview 1.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// The interface that a component may import.
const LOGGING: &str = "logging";

/// The name of the function with which the host allocates memory for its arguments.
const REALLOC: &str = "cabi_realloc";

/// The prefix of the name of a function that frees an answer.
const POST: &str = "cabi_post_";

/// How similar two names must be for a hint, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// Among how many exports a similar name is searched, and how long they may be, in bytes.
const MAX_CANDIDATES: usize = 1000;
const MAX_NAME: usize = 200;

/// How many imports from one module are listed at most.
const MAX_LISTED: usize = 10;

/// A module whose exports make up a world.
pub(super) struct Checked {
    /// The world, in WIT.
    pub(super) world: String,
    /// What its author should know.
    pub(super) advice: Vec<String>,
}

/// The type of a core function.
#[derive(Clone, PartialEq, Eq)]
struct Signature {
    params: Vec<ValType>,
    results: Vec<ValType>,
}

impl Display for Signature {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |types: &[ValType]| types.iter().map(|ty| format!(" {ty}")).collect::<String>();
        f.write_str("(func")?;
        if !self.params.is_empty() {
            write!(f, " (param{})", list(&self.params))?;
        }
        if !self.results.is_empty() {
            write!(f, " (result{})", list(&self.results))?;
        }
        f.write_str(")")
    }
}

/// The names that matter in a core module.
struct Module {
    /// The exported functions and their types.
    functions: BTreeMap<String, Signature>,
    /// Some of the functions that the host does not call: one may be meant for one that is missing.
    others: Vec<String>,
    memory: Option<MemoryType>,
    /// The modules that it imports from, and what.
    imports: BTreeMap<String, Vec<String>>,
}

/// A function that the host calls, as a core module exports it.
struct Expected {
    name: String,
    signature: Signature,
}

/// A function of an interface, and the one that the host calls when it has read an answer that is in memory.
struct ExpectedPair {
    function: Expected,
    post_return: Option<Expected>,
}

/// Checks the exports of a module without a world, and composes its world.
///
/// # Errors
///
/// Every fault, with what to write instead, and then the advice.
pub(super) fn check(core: &[u8], resolve: &Resolve, package: PackageId) -> Result<Checked, Vec<String>> {
    let interfaces = &resolve.packages[package].interfaces;
    // OK because an interface of a package has a name.
    let full_name = |id: InterfaceId| resolve.id_of(id).expect("a name");
    let logging = interfaces.get(LOGGING).copied().map(full_name).unwrap_or_default();
    let ids = interfaces.iter().filter(|(name, _)| *name != LOGGING).map(|(_, &id)| id);
    let expected: Vec<(String, Vec<ExpectedPair>)> =
        ids.map(|id| (full_name(id), expected_functions(resolve, id))).collect();
    let pairs = expected.iter().flat_map(|(_, functions)| functions);
    let names = pairs.flat_map(|pair| std::iter::once(&pair.function).chain(&pair.post_return));
    let known: BTreeSet<&str> = names.map(|function| function.name.as_str()).chain([REALLOC]).collect();
    let module = Module::read(core, &known).map_err(|reason| vec![reason])?;
    let is_exported = |pair: &ExpectedPair| module.functions.contains_key(&pair.function.name);
    let (implemented, others): (Vec<_>, Vec<_>) =
        expected.iter().partition(|(_, functions)| functions.iter().any(is_exported));
    let (mut faults, mut advice) = (Vec::new(), Vec::new());
    for pair in implemented.iter().flat_map(|(_, functions)| functions) {
        faults.extend(module.fault_of(&pair.function));
        if let Some(post_return) = &pair.post_return {
            match module.functions.contains_key(&post_return.name) {
                true => faults.extend(module.fault_of(post_return)),
                false => advice.extend(module.fault_of(post_return).map(|missing| {
                    format!("{missing}; without it, the module must free the memory of its answers itself")
                })),
            }
        }
    }
    if implemented.is_empty() {
        let functions: Vec<&Expected> =
            others.iter().flat_map(|(_, functions)| functions).map(|pair| &pair.function).collect();
        faults.push(module.describe_absence(&functions));
    } else {
        faults.extend(module.fault_of(&realloc()));
        faults.extend(module.memory_fault());
    }
    faults.extend(module.import_faults(&logging));
    if module.functions.contains_key("_start") {
        advice.push(
            "`_start` is not called: if it sets up the language's runtime, build a library instead, which has \
             `_initialize` (Go: -buildmode=c-shared; C: -mexec-model=reactor)"
                .to_owned(),
        );
    }
    if !faults.is_empty() {
        faults.append(&mut advice);
        return Err(faults);
    }
    let mut world: String = implemented.iter().map(|(name, _)| format!("    export {name};\n")).collect();
    if module.imports.contains_key(&logging) {
        world.push_str(&format!("    import {logging};\n"));
    }
    Ok(Checked { world: format!("package ktables:build;\n\nworld module {{\n{world}}}\n"), advice })
}

/// Returns the core functions of an interface.
fn expected_functions(resolve: &Resolve, interface: InterfaceId) -> Vec<ExpectedPair> {
    let key = WorldKey::Interface(interface);
    let functions = resolve.interfaces[interface].functions.values();
    let expected = functions.map(|func| {
        let name =
            |kind| resolve.wasm_export_name(NAMES, WasmExport::Func { interface: Some(&key), func, kind });
        let lowered = resolve.wasm_signature(AbiVariant::GuestExport, func);
        let signature =
            Signature { params: core_types(&lowered.params), results: core_types(&lowered.results) };
        let post_return = lowered.retptr.then(|| Expected {
            name: name(WasmExportKind::PostReturn),
            signature: Signature { params: signature.results.clone(), results: Vec::new() },
        });
        ExpectedPair { function: Expected { name: name(WasmExportKind::Normal), signature }, post_return }
    });
    expected.collect()
}

/// Converts types to those of a module with 32-bit addresses.
fn core_types(types: &[WasmType]) -> Vec<ValType> {
    let core = |ty: &WasmType| match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    };
    types.iter().map(core).collect()
}

/// The function [`REALLOC`]. It takes the old address, the old size, the alignment and the new size.
fn realloc() -> Expected {
    let signature = Signature { params: vec![ValType::I32; 4], results: vec![ValType::I32] };
    Expected { name: REALLOC.to_owned(), signature }
}

impl Module {
    fn read(core: &[u8], known: &BTreeSet<&str>) -> Result<Self, String> {
        let types =
            Validator::new().validate_all(core).map_err(|error| format!("it is malformed: {error}"))?;
        let types = types.as_ref();
        let (mut functions, mut memory) = (BTreeMap::new(), None);
        for (name, ty) in types.core_exports().into_iter().flatten() {
            match ty {
                EntityType::Func(id) => {
                    let function = types[id].unwrap_func();
                    let (params, results) = (function.params().to_vec(), function.results().to_vec());
                    functions.insert(name.to_owned(), Signature { params, results });
                }
                EntityType::Memory(ty) if name == "memory" => memory = Some(ty),
                _ => {}
            }
        }
        let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (module, name, _) in types.core_imports().into_iter().flatten() {
            imports.entry(module.to_owned()).or_default().push(name.to_owned());
        }
        let others = functions.keys().filter(|name| name.len() <= MAX_NAME && !known.contains(name.as_str()));
        let others = others.take(MAX_CANDIDATES).cloned().collect();
        Ok(Self { functions, others, memory, imports })
    }

    /// Returns what is wrong with a function that the host calls: it is missing, or has another type.
    fn fault_of(&self, expected: &Expected) -> Option<String> {
        let Expected { name, signature } = expected;
        match self.functions.get(name) {
            Some(found) if found == signature => None,
            Some(found) => Some(format!("{} is {found}, but must be {signature}", quote(name))),
            None => {
                let similar = self.find_similar(name).map(|found| format!(" (it exports {})", quote(found)));
                let similar = similar.unwrap_or_default();
                Some(format!("{} is missing{similar}: export it as {signature}", quote(name)))
            }
        }
    }

    /// Says that no function has a name of the package, and which names may be meant for one.
    fn describe_absence(&self, functions: &[&Expected]) -> String {
        let example = functions.first().map(|function| quote(&function.name)).unwrap_or_default();
        let similar = functions.iter().filter_map(|function| {
            let found = self.find_similar(&function.name)?;
            Some(format!("; rename {} to {}", quote(found), quote(&function.name)))
        });
        format!(
            "it exports no function of the WIT package, for example {example}: `ktables codec wit` prints the \
             package{}",
            similar.collect::<String>()
        )
    }

    /// Returns the function that the host does not call whose name is most similar to this one, which is missing.
    fn find_similar(&self, missing: &str) -> Option<&str> {
        let scored = self.others.iter().map(|name| (similarity(missing, name), name.as_str()));
        let (score, best) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (score >= MIN_SIMILARITY).then_some(best)
    }

    fn memory_fault(&self) -> Option<String> {
        match self.memory {
            None => Some("`memory` is missing: export the module's memory under this name".to_owned()),
            Some(memory) if memory.memory64 || memory.shared => {
                Some("`memory` must be a 32-bit memory that is not shared".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Returns what is imported but not provided.
    fn import_faults(&self, logging: &str) -> Vec<String> {
        let unknown = self.imports.iter().filter(|(from, _)| *from != logging && *from != PREVIEW1);
        let describe = |(from, names): (&String, &Vec<String>)| {
            let mut listed: Vec<String> = names.iter().take(MAX_LISTED).map(|name| quote(name)).collect();
            if let Some(more @ 1..) = names.len().checked_sub(MAX_LISTED) {
                listed.push(format!("{more} more"));
            }
            format!(
                "it imports {} from {}, which the host does not provide: only the function `log` of {} and WASI \
                 preview 1 can be imported",
                listed.join(", "),
                quote(from),
                quote(logging)
            )
        };
        unknown.map(describe).collect()
    }
}

/// Returns how similar an exported name is to one that is missing, from 0 to 1. What differs least in what an author
/// types is not compared: the package and its version, and the prefix of functions that free answers.
fn similarity(missing: &str, found: &str) -> f64 {
    let (missing_post, found_post) = (missing.strip_prefix(POST), found.strip_prefix(POST));
    if missing_post.is_some() != found_post.is_some() {
        return 0.0;
    }
    let core = |name: &str| {
        let (interface, function) = name.rsplit_once(['#', '.', '/']).unwrap_or(("", name));
        let interface = interface.rsplit(['/', ':']).next().unwrap_or_default();
        let interface = interface.split('@').next().unwrap_or_default().replace('_', "-");
        (interface, function.replace('_', "-"))
    };
    let (wanted, given) = (core(missing_post.unwrap_or(missing)), core(found_post.unwrap_or(found)));
    let function = strsim::jaro_winkler(&wanted.1, &given.1);
    match given.0.is_empty() {
        true => function,
        false => function.min(strsim::jaro_winkler(&wanted.0, &given.0)),
    }
}
