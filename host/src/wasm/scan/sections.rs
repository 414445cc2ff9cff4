//! The structure of a component: its sections, imports and exports, and what one instance of it
//! needs. Types and code are passed over.

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Encoding, Instance, Parser, Payload,
};

use crate::wasm::scan::limits::{
    MAX_COMPONENT_DEPTH, MAX_COMPONENTS, MAX_EXTERNS, MAX_FUNCTIONS, MAX_MODULES, Needs, Refusal, exceeded,
    refuse,
};

/// Bytes that the host keeps for each instance of a module, each global, and each function,
/// table, memory and import of it: rounded up from wasmtime's `VMOffsets`.
const MODULE_INSTANCE_BYTES: u64 = 4096;
const GLOBAL_BYTES: u64 = 16;
const ITEM_BYTES: u64 = 40;

/// Bytes that the host keeps for an instance of a component.
const INSTANCE_BYTES: u64 = 1024;

/// What the sections of a component say.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Sections {
    /// The names of the outermost component's imports.
    pub(in crate::wasm) imports: Vec<String>,
    /// The names of its exports.
    pub(in crate::wasm) exports: Vec<String>,
    /// Whether anything in it is lifted asynchronously.
    pub(in crate::wasm) is_async: bool,
    /// What one instance needs.
    pub(in crate::wasm) needs: Needs,
}

/// A component or a module whose sections are being read.
#[derive(Debug, Default)]
struct Scope {
    is_module: bool,
    /// What an instance of this needs so far.
    needs: Needs,
    /// What an instance of each known component needs, by index.
    components: Vec<Needs>,
    /// The same of each known core module.
    modules: Vec<Needs>,
    imports: u64,
    exports: u64,
}

/// Reads the structure of a component.
pub(in crate::wasm) fn sections(bytes: &[u8]) -> Result<Sections, Refusal> {
    let mut reader = Reader::default();
    for payload in Parser::new(0).parse_all(bytes) {
        reader.take(payload?)?;
    }
    let reasons = reader.found.needs.refusals();
    if reasons.is_empty() { Ok(reader.found) } else { Err(Refusal::Limits(reasons)) }
}

/// The scopes that are open, outermost first, and what was found.
#[derive(Debug, Default)]
struct Reader {
    scopes: Vec<Scope>,
    found: Sections,
    components: u64,
    modules: u64,
    functions: u64,
}

impl Reader {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding, .. } => self.open(encoding)?,
            Payload::End(_) => self.close(),
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import?;
                    self.import(import.name.name, import.ty)?;
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    self.export(export.name.name, export.kind, export.index)?;
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    self.alias(&alias?)?;
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances {
                    let needs = match instance? {
                        ComponentInstance::Instantiate { component_index, .. } => {
                            known(&self.scope().components, component_index)
                        }
                        ComponentInstance::FromExports(_) => Needs::default(),
                    };
                    self.instantiate(needs, INSTANCE_BYTES)?;
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    let needs = match instance? {
                        Instance::Instantiate { module_index, .. } => {
                            known(&self.scope().modules, module_index)
                        }
                        Instance::FromExports(_) => Needs::default(),
                    };
                    self.instantiate(needs, 0)?;
                }
            }
            Payload::ComponentCanonicalSection(canonicals) => {
                for canonical in canonicals {
                    if let CanonicalFunction::Lift { options, .. } = canonical? {
                        self.found.is_async |= options.contains(&CanonicalOption::Async);
                    }
                }
            }
            Payload::ImportSection(imports) => self.items(imports.count(), ITEM_BYTES),
            Payload::GlobalSection(globals) => {
                self.items(globals.count(), GLOBAL_BYTES);
                self.scope().needs.globals += u64::from(globals.count());
            }
            Payload::MemorySection(memories) => {
                self.items(memories.count(), ITEM_BYTES);
                self.scope().needs.memories += u64::from(memories.count());
            }
            Payload::TableSection(tables) => {
                self.items(tables.count(), ITEM_BYTES);
                self.scope().needs.tables += u64::from(tables.count());
            }
            Payload::FunctionSection(functions) => {
                self.items(functions.count(), ITEM_BYTES);
                self.functions += u64::from(functions.count());
                refuse(exceeded("it has", "functions", self.functions, MAX_FUNCTIONS))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, encoding: Encoding) -> Result<(), Refusal> {
        let is_module = encoding == Encoding::Module;
        let (count, what, limit) = match is_module {
            true => (&mut self.modules, "modules", MAX_MODULES),
            false => (&mut self.components, "components", MAX_COMPONENTS),
        };
        *count += 1;
        refuse(exceeded("it has", what, *count, limit))?;
        if !is_module && self.scopes.len() >= MAX_COMPONENT_DEPTH {
            let reason = format!("components are nested more than {MAX_COMPONENT_DEPTH} deep in it");
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

    /// Hands what an instance of the innermost scope needs to the one around it.
    fn close(&mut self) {
        let Some(Scope { is_module, needs, .. }) = self.scopes.pop() else { return };
        match self.scopes.last_mut() {
            None => self.found.needs = needs,
            Some(outer) if is_module => outer.modules.push(needs),
            Some(outer) => outer.components.push(needs),
        }
    }

    fn import(&mut self, name: &str, kind: ComponentTypeRef) -> Result<(), Refusal> {
        let is_outermost = self.scopes.len() == 1;
        let scope = self.scope();
        scope.imports += 1;
        refuse(exceeded("a component of it has", "imports", scope.imports, MAX_EXTERNS))?;
        match kind {
            ComponentTypeRef::Component(_) | ComponentTypeRef::Module(_) => return Err(unknown_code()),
            _ if is_outermost => self.found.imports.push(name.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// What is exported gets an index again.
    fn export(&mut self, name: &str, kind: ComponentExternalKind, index: u32) -> Result<(), Refusal> {
        let is_outermost = self.scopes.len() == 1;
        let scope = self.scope();
        scope.exports += 1;
        refuse(exceeded("a component of it has", "exports", scope.exports, MAX_EXTERNS))?;
        match kind {
            ComponentExternalKind::Component => scope.components.push(known(&scope.components, index)),
            ComponentExternalKind::Module => scope.modules.push(known(&scope.modules, index)),
            _ => {}
        }
        if is_outermost {
            self.found.exports.push(name.to_owned());
        }
        Ok(())
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), Refusal> {
        match *alias {
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Component | ComponentExternalKind::Module,
                ..
            } => return Err(unknown_code()),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let needs = self.outer(count).map_or(UNKNOWN, |outer| known(&outer.components, index));
                self.scope().components.push(needs);
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                let needs = self.outer(count).map_or(UNKNOWN, |outer| known(&outer.modules, index));
                self.scope().modules.push(needs);
            }
            _ => {}
        }
        Ok(())
    }

    fn instantiate(&mut self, needs: Needs, bytes: u64) -> Result<(), Refusal> {
        let scope = self.scope();
        scope.needs.add(Needs { instances: needs.instances.saturating_add(1), ..needs });
        scope.needs.bytes = scope.needs.bytes.saturating_add(bytes);
        // Refused as soon as it is certain: what is around it can only be larger.
        match scope.needs.refusals() {
            reasons if reasons.is_empty() => Ok(()),
            reasons => Err(Refusal::Limits(reasons)),
        }
    }

    fn items(&mut self, count: u32, bytes: u64) {
        let scope = self.scope();
        scope.needs.bytes = scope.needs.bytes.saturating_add(u64::from(count) * bytes);
    }

    fn outer(&self, count: u32) -> Option<&Scope> {
        let index = self.scopes.len().checked_sub(1)?.checked_sub(count as usize)?;
        self.scopes.get(index)
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        // OK because there is one.
        self.scopes.last_mut().expect("a scope")
    }
}

/// What is not known: an index that leads nowhere. The validation of the file refuses it later.
const UNKNOWN: Needs = Needs {
    instances: u64::MAX,
    module_instances: u64::MAX,
    memories: u64::MAX,
    tables: u64::MAX,
    globals: u64::MAX,
    bytes: u64::MAX,
};

fn known(needs: &[Needs], index: u32) -> Needs {
    needs.get(index as usize).copied().unwrap_or(UNKNOWN)
}

fn unknown_code() -> Refusal {
    "it takes components or core modules from elsewhere (by an import or out of an instance), so that what \
     it costs cannot be told: put them into the component"
        .to_owned()
        .into()
}
