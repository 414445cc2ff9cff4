//! Compiles a schema: the text of a `.proto` file, or a file descriptor in base64, and the files that it imports.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buffa::Message as _;
use buffa_descriptor::generated::descriptor::{
    DescriptorProto, Edition, FileDescriptorProto, FileDescriptorSet,
};
use buffa_descriptor::{DescriptorPool, MessageIndex};
use ktables_guest::schemas::ResolvedReference;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost::Message as _;
use schema_framing::shorten;

use crate::built_in_files::built_in_file;
use crate::edition::without_edition;
use crate::indexes::Indexes;
use crate::required::has_required_fields;
use crate::strip::strip;
use crate::to_json::UNKNOWN;

/// The name of the file of the schema itself.
const MAIN_FILE: &str = "schema";

/// How many names of message types an error has.
const MAX_NAMES: usize = 10;

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) pool: Arc<DescriptorPool>,
    pub(crate) has_required_fields: bool,
}

impl Schema {
    /// Compiles a schema and the files that it imports.
    pub(crate) fn compile(text: &str, references: &[ResolvedReference]) -> Result<Self, String> {
        let mut files = HashMap::new();
        for reference in references {
            let file = SourceFile::parse(&reference.name, &reference.text)
                .map_err(|error| format!("{}: {error}", shorten(&reference.name)))?;
            files.insert(reference.name.clone(), file);
        }
        files.insert(MAIN_FILE.to_owned(), SourceFile::parse(MAIN_FILE, text)?);
        add_public_imports(&mut files);
        let syntaxes: HashMap<String, Syntax> =
            files.iter().map(|(name, file)| (name.clone(), file.syntax.clone())).collect();

        let mut resolver = ChainFileResolver::new();
        resolver.add(Files(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        // Source information was removed before; to remove it here, files would be decoded again.
        compiler.include_imports(true).include_source_info(true);
        compiler.open_file(MAIN_FILE).map_err(|error| format!("{error:?}"))?;
        let set = compiler.encode_file_descriptor_set();
        let mut set = FileDescriptorSet::decode_from_slice(&set).map_err(|error| error.to_string())?;
        for file in &mut set.file {
            if let Some(Syntax { name, edition }) = file.name.as_ref().and_then(|name| syntaxes.get(name)) {
                file.syntax.clone_from(name);
                file.edition = *edition;
            }
        }
        let pool = DescriptorPool::new(set).map_err(|error| error.to_string())?;
        let mut fields = pool.messages().iter().flat_map(|message| message.fields());
        if fields.any(|field| field.json_name() == UNKNOWN) {
            return Err(format!(
                "a field has the JSON name {UNKNOWN}, which is that of fields that are not known"
            ));
        }
        let has_required_fields = has_required_fields(&pool);
        Ok(Self { pool: Arc::new(pool), has_required_fields })
    }

    fn file(&self) -> &FileDescriptorProto {
        // OK because the pool was made of this file.
        self.pool.file_by_name(MAIN_FILE).expect("the file of the schema")
    }

    /// Returns the message type with these indexes.
    pub(crate) fn message_at(&self, indexes: &Indexes) -> Option<MessageIndex> {
        let file = self.file();
        let (first, rest) = indexes.0.split_first()?;
        let mut message = file.message_type.get(*first)?;
        let mut name = full_name(file.package.as_deref().unwrap_or_default(), message);
        for index in rest {
            message = message.nested_type.get(*index)?;
            name = full_name(&name, message);
        }
        self.pool.message_index(&name)
    }

    /// Returns the full names of some message types that are not in others.
    pub(crate) fn message_names(&self) -> impl Iterator<Item = String> {
        let file = self.file();
        let package = file.package.as_deref().unwrap_or_default();
        file.message_type.iter().take(MAX_NAMES).map(move |message| full_name(package, message))
    }

    /// Returns the indexes of a message type, by its full name; without a name, those of the first one.
    pub(crate) fn indexes_of(&self, name: Option<&str>) -> Option<Indexes> {
        let file = self.file();
        let Some(name) = name else { return file.message_type.first().map(|_| Indexes(vec![0])) };
        let package = file.package.as_deref().unwrap_or_default();
        let relative = match package {
            "" => name,
            package => name.strip_prefix(package)?.strip_prefix('.')?,
        };
        let mut names = relative.split('.');
        let first = names.next()?;
        let index = file.message_type.iter().position(|message| message.name.as_deref() == Some(first))?;
        let (mut indexes, mut message) = (vec![index], file.message_type.get(index)?);
        for name in names {
            let mut nested = message.nested_type.iter().enumerate();
            let (index, found) = nested.find(|(_, nested)| nested.name.as_deref() == Some(name))?;
            indexes.push(index);
            message = found;
        }
        Some(Indexes(indexes))
    }
}

fn full_name(scope: &str, message: &DescriptorProto) -> String {
    let name = message.name.as_deref().unwrap_or_default();
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// The syntax or edition of a file.
#[derive(Debug, Clone)]
struct Syntax {
    name: Option<String>,
    edition: Option<Edition>,
}

/// A parsed file. It is compiled as a file of proto2, which has the fewest rules, whatever its syntax or edition is.
#[derive(Debug, Clone)]
struct SourceFile {
    descriptor: FileDescriptorProto,
    syntax: Syntax,
}

impl SourceFile {
    /// Parses the text of a file, or its descriptor in base64.
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let compact: String = text.split_whitespace().collect();
        // An empty file is text.
        match STANDARD.decode(&compact) {
            Ok(descriptor) if !descriptor.is_empty() => Self::of_descriptor(name, &descriptor),
            _ => Self::of_text(name, text),
        }
    }

    fn of_text(name: &str, text: &str) -> Result<Self, String> {
        let without = without_edition(text)?;
        let mut file = protox_parse::parse(name, without.as_deref().unwrap_or(text))
            .map_err(|error| format!("{error:?}"))?;
        strip(&mut file);
        file.source_code_info = None;
        let name = file.syntax.take();
        let syntax = match without {
            Some(_) => Syntax { name: Some("editions".to_owned()), edition: Some(Edition::EDITION_2023) },
            None => Syntax { name, edition: None },
        };
        let descriptor = FileDescriptorProto::decode_from_slice(&file.encode_to_vec());
        Ok(Self { descriptor: descriptor.map_err(|error| error.to_string())?, syntax })
    }

    fn of_descriptor(name: &str, descriptor: &[u8]) -> Result<Self, String> {
        let error = |error: buffa::DecodeError| {
            format!("it is neither the text of a .proto file nor a file descriptor in base64: {error}")
        };
        let mut file = FileDescriptorProto::decode_from_slice(descriptor).map_err(error)?;
        file.name = Some(name.to_owned());
        file.source_code_info = None.into();
        file.service.clear();
        let syntax = Syntax { name: file.syntax.take(), edition: file.edition.take() };
        Ok(Self { descriptor: file, syntax })
    }

    /// Returns the names of the files whose types are also those of this one for files that import it.
    fn public_imports(&self) -> impl Iterator<Item = &String> {
        let FileDescriptorProto { dependency, public_dependency, .. } = &self.descriptor;
        public_dependency.iter().filter_map(|index| dependency.get(usize::try_from(*index).ok()?))
    }
}

/// Adds to each file the files that its imports import publicly, at any depth: the compiler follows one level.
fn add_public_imports(files: &mut HashMap<String, SourceFile>) {
    let mut added = Vec::new();
    for (name, file) in &*files {
        let mut all = file.descriptor.dependency.clone();
        let mut known: HashSet<String> = all.iter().cloned().collect();
        let mut next = 0;
        while let Some(import) = all.get(next) {
            let public = files.get(import).into_iter().flat_map(SourceFile::public_imports);
            let public = public.filter(|import| *import != name && known.insert((*import).clone()));
            let public: Vec<String> = public.cloned().collect();
            all.extend(public);
            next += 1;
        }
        added.push((name.clone(), all));
    }
    for (name, imports) in added {
        if let Some(file) = files.get_mut(&name) {
            file.descriptor.dependency = imports;
        }
    }
}

/// The files of a schema.
struct Files(HashMap<String, SourceFile>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let built_in = || SourceFile::parse(name, built_in_file(name)?).ok();
        let Some(file) = self.0.get(name).cloned().or_else(built_in) else {
            return Err(protox::Error::file_not_found(name));
        };
        File::decode_file_descriptor_proto(file.descriptor.encode_to_vec().as_slice())
            .map_err(protox::Error::new)
    }
}
