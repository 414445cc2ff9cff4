//! Scans the structure of a component: its imports and exports, and what one instance of it needs. Skips
//! types and code.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

use crate::wasm::scan::limits::{
    MAX_COMPONENT_DEPTH, MAX_COMPONENTS, MAX_EXTERN_NAME_BYTES, MAX_EXTERNS, MAX_FUNCTIONS, MAX_MODULES,
    MAX_TABLE_ELEMENTS, Needs, Refusal, describe_excess, refuse,
};

/// The bytes that the host keeps for each instance of a module, besides those for its items. This and the
/// next two numbers are rounded up from wasmtime's `VMOffsets`.
const MODULE_INSTANCE_BYTES: u64 = 4096;

/// The bytes that the host keeps for each global of a module instance.
const GLOBAL_BYTES: u64 = 16;

/// The bytes that the host keeps for each function, table, memory and import of a module instance.
const ITEM_BYTES: u64 = 40;

/// The bytes that the host keeps for an instance of a component.
const INSTANCE_BYTES: u64 = 1024;

/// The structure of a component.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Sections {
    /// The names of the outermost component's imports.
    pub(in crate::wasm) imports: Vec<String>,
    /// The names of the outermost component's exports.
    pub(in crate::wasm) exports: Vec<String>,
    /// Whether it lifts any function asynchronously.
    pub(in crate::wasm) is_async: bool,
    /// The resources that one instance needs.
    pub(in crate::wasm) needs: Needs,
}

/// A component or a module whose sections are being read.
#[derive(Debug, Default)]
struct Scope {
    is_module: bool,
    /// What an instance of this component or module needs so far.
    needs: Needs,
    /// What an instance of each known component needs, by index.
    components: Vec<Needs>,
    /// What an instance of each known core module needs, by index.
    modules: Vec<Needs>,
    imports: u64,
    exports: u64,
}

impl Scope {
    /// Adds a component to those that can be instantiated.
    fn add_component(&mut self, needs: Needs) -> Result<(), Refusal> {
        self.components.push(needs);
        self.check_count()
    }

    /// Adds a module to those that can be instantiated.
    fn add_module(&mut self, needs: Needs) -> Result<(), Refusal> {
        self.modules.push(needs);
        self.check_count()
    }

    fn check_count(&self) -> Result<(), Refusal> {
        let count = (self.components.len() + self.modules.len()) as u64;
        refuse(describe_excess("one of its components has", "components and modules", count, MAX_EXTERNS))
    }
}

/// Scans the structure of a component.
pub(in crate::wasm) fn scan_sections(bytes: &[u8]) -> Result<Sections, Refusal> {
    let mut reader = Reader::default();
    for payload in Parser::new(0).parse_all(bytes) {
        reader.read_payload(payload?)?;
    }
    let reasons = reader.sections.needs.refusals();
    if reasons.is_empty() { Ok(reader.sections) } else { Err(Refusal::Limits(reasons)) }
}

/// Reads the sections of a component. Holds the scopes that are open, outermost first, and the structure so
/// far.
#[derive(Debug, Default)]
struct Reader {
    scopes: Vec<Scope>,
    sections: Sections,
    components: u64,
    modules: u64,
    functions: u64,
}

impl Reader {
    // Long because it lists every kind of section.
    fn read_payload(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding, .. } => self.open_scope(encoding)?,
            Payload::End(_) => self.close_scope(),
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import?;
                    self.read_import(import.name.name, import.ty)?;
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.read_export(export.name.name, export.kind, export.index)?;
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    self.read_alias(&alias?)?;
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    let needs = match instance? {
                        ComponentInstance::Instantiate { component_index, .. } => {
                            needs_at(&self.innermost_scope().components, component_index)
                        }
                        ComponentInstance::FromExports(_) => Needs::default(),
                    };
                    self.add_instance(needs, INSTANCE_BYTES)?;
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    let needs = match instance? {
                        Instance::Instantiate { module_index, .. } => {
                            needs_at(&self.innermost_scope().modules, module_index)
                        }
                        Instance::FromExports(_) => Needs::default(),
                    };
                    self.add_instance(needs, 0)?;
                }
            }
            // Any of them may be a resource type.
            Payload::ComponentTypeSection(types) => self.add_items(types.count(), ITEM_BYTES),
            Payload::ComponentCanonicalSection(canonicals) => {
                self.add_items(canonicals.count(), ITEM_BYTES);
                for canonical in canonicals {
                    if let CanonicalFunction::Lift { options, .. } = canonical? {
                        self.sections.is_async |= options.contains(&CanonicalOption::Async);
                    }
                }
            }
            Payload::ImportSection(imports) => self.add_items(imports.count(), ITEM_BYTES),
            Payload::GlobalSection(globals) => {
                self.add_items(globals.count(), GLOBAL_BYTES);
                self.innermost_scope().needs.globals += u64::from(globals.count());
            }
            Payload::MemorySection(memories) => {
                self.add_items(memories.count(), ITEM_BYTES);
                self.innermost_scope().needs.memories += u64::from(memories.count());
            }
            Payload::TableSection(tables) => {
                self.add_items(tables.count(), ITEM_BYTES);
                self.innermost_scope().needs.tables += u64::from(tables.count());
                for table in tables {
                    let elements = table?.ty.initial;
                    refuse(describe_excess(
                        "one of its tables has",
                        "elements",
                        elements,
                        MAX_TABLE_ELEMENTS,
                    ))?;
                }
            }
            Payload::FunctionSection(functions) => {
                self.add_items(functions.count(), ITEM_BYTES);
                self.functions += u64::from(functions.count());
                refuse(describe_excess("it has", "functions", self.functions, MAX_FUNCTIONS))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens the scope of a component or a module.
    fn open_scope(&mut self, encoding: Encoding) -> Result<(), Refusal> {
        let is_module = encoding == Encoding::Module;
        let (count, items, limit) = match is_module {
            true => (&mut self.modules, "modules", MAX_MODULES),
            false => (&mut self.components, "components", MAX_COMPONENTS),
        };
        *count += 1;
        refuse(describe_excess("it has", items, *count, limit))?;
        if !is_module && self.scopes.len() >= MAX_COMPONENT_DEPTH {
            let reason = format!("components are nested more than {MAX_COMPONENT_DEPTH} levels deep");
            return Err(reason.into());
        }
        let mut scope = Scope { is_module, ..Scope::default() };
        if is_module {
            scope.needs.module_instances = 1;
            scope.needs.bytes = MODULE_INSTANCE_BYTES;
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// Closes the innermost scope, and adds what an instance of it needs to the scope around it.
    fn close_scope(&mut self) {
        let Some(Scope { is_module, needs, .. }) = self.scopes.pop() else { return };
        match self.scopes.last_mut() {
            None => self.sections.needs = needs,
            Some(outer) if is_module => outer.modules.push(needs),
            Some(outer) => outer.components.push(needs),
        }
    }

    fn read_import(&mut self, name: &str, kind: ComponentTypeRef) -> Result<(), Refusal> {
        check_name(name)?;
        let is_outermost = self.scopes.len() == 1;
        let scope = self.innermost_scope();
        scope.imports += 1;
        refuse(describe_excess("one of its components has", "imports", scope.imports, MAX_EXTERNS))?;
        match kind {
            ComponentTypeRef::Component(_) | ComponentTypeRef::Module(_) => return Err(external_code()),
            _ if is_outermost => self.sections.imports.push(name.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// Reads an export. An exported component or module gets another index.
    fn read_export(&mut self, name: &str, kind: ComponentExternalKind, index: u32) -> Result<(), Refusal> {
        check_name(name)?;
        let is_outermost = self.scopes.len() == 1;
        let scope = self.innermost_scope();
        scope.exports += 1;
        refuse(describe_excess("one of its components has", "exports", scope.exports, MAX_EXTERNS))?;
        match kind {
            ComponentExternalKind::Component => scope.add_component(needs_at(&scope.components, index))?,
            ComponentExternalKind::Module => scope.add_module(needs_at(&scope.modules, index))?,
            _ => {}
        }
        if is_outermost {
            self.sections.exports.push(name.to_owned());
        }
        Ok(())
    }

    fn read_alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), Refusal> {
        match *alias {
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Component | ComponentExternalKind::Module,
                ..
            } => return Err(external_code()),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let outer = self.outer_scope(count);
                let needs = outer.map_or(UNKNOWN, |outer| needs_at(&outer.components, index));
                return self.innermost_scope().add_component(needs);
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                let outer = self.outer_scope(count);
                let needs = outer.map_or(UNKNOWN, |outer| needs_at(&outer.modules, index));
                return self.innermost_scope().add_module(needs);
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds what an instance needs, and `bytes` that the host keeps for it, to the innermost scope.
    fn add_instance(&mut self, needs: Needs, bytes: u64) -> Result<(), Refusal> {
        let scope = self.innermost_scope();
        scope.needs.add(Needs { instances: needs.instances.saturating_add(1), ..needs });
        scope.needs.bytes = scope.needs.bytes.saturating_add(bytes);
        // Checked at once, because the scopes around this one can only need more.
        match scope.needs.refusals() {
            reasons if reasons.is_empty() => Ok(()),
            reasons => Err(Refusal::Limits(reasons)),
        }
    }

    /// Adds `bytes` that the host keeps for each of `count` items to the innermost scope.
    fn add_items(&mut self, count: u32, bytes: u64) {
        let scope = self.innermost_scope();
        scope.needs.bytes = scope.needs.bytes.saturating_add(u64::from(count) * bytes);
    }

    fn outer_scope(&self, count: u32) -> Option<&Scope> {
        let index = self.scopes.len().checked_sub(1)?.checked_sub(count as usize)?;
        self.scopes.get(index)
    }

    fn innermost_scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        // OK because the list is not empty.
        self.scopes.last_mut().expect("a scope")
    }
}

/// Checks the length of the name of an import or export.
fn check_name(name: &str) -> Result<(), Refusal> {
    let bytes = name.len() as u64;
    refuse(describe_excess(
        "the name of one of its imports or exports has",
        "bytes",
        bytes,
        MAX_EXTERN_NAME_BYTES,
    ))
}

/// The needs of an item with an invalid index: more than any limit, so instantiating it is refused. If the
/// file does not instantiate it, wasmtime refuses the file when it validates it.
const UNKNOWN: Needs = Needs {
    instances: u64::MAX,
    module_instances: u64::MAX,
    memories: u64::MAX,
    tables: u64::MAX,
    globals: u64::MAX,
    bytes: u64::MAX,
};

/// Returns what an instance of the component or module with this index needs.
fn needs_at(needs: &[Needs], index: u32) -> Needs {
    needs.get(index as usize).copied().unwrap_or(UNKNOWN)
}

/// Returns the reason to refuse components and modules that are not in the file.
fn external_code() -> Refusal {
    "it takes components or core modules from an import or an instance, so their cost is unknown: embed them \
     in the component"
        .to_owned()
        .into()
}
