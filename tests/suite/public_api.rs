//! The public API of the host crate, as a committed listing.
//!
//! The lint `unreachable_pub` makes every item that is plainly `pub` part of the public API. So the listing
//! contains all such items, with their signatures. After a wanted change, run the test with
//! `KTABLES_WRITE_API=1`, and commit the listing with the change.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use ktables_tests::root;
use quote::ToTokens;
use syn::{Attribute, Field, Fields, File, ImplItem, Item, ItemImpl, Meta, TraitItem, Type, Visibility};

use crate::rules::find_files;

/// The listing, below the project's folder.
const LISTING: &str = "docs/public-api.txt";

/// The attributes that are part of the API.
const ATTRIBUTES: [&str; 4] = ["cfg", "derive", "must_use", "non_exhaustive"];

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn keep_attributes(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        let is_hidden = attribute.meta.to_token_stream().to_string() == "doc (hidden)";
        is_hidden || ATTRIBUTES.iter().any(|name| attribute.path().is_ident(name))
    });
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// Keeps the public fields.
fn keep_public_fields(fields: &mut Fields) {
    let keep = |field: &Field| is_public(&field.vis);
    match fields {
        Fields::Named(fields) => {
            fields.named = fields.named.iter().filter(|field| keep(field)).cloned().collect();
        }
        Fields::Unnamed(unnamed) if !unnamed.unnamed.iter().all(keep) => *fields = Fields::Unit,
        Fields::Unnamed(_) | Fields::Unit => {}
    }
    fields.iter_mut().for_each(|field| keep_attributes(&mut field.attrs));
}

/// The text of an item without bodies and private parts; `None` if nothing of it is public.
fn listed(item: &Item, types: &[String]) -> Option<String> {
    let mut item = item.clone();
    match &mut item {
        Item::Const(item) if is_public(&item.vis) => keep_attributes(&mut item.attrs),
        Item::Static(item) if is_public(&item.vis) => keep_attributes(&mut item.attrs),
        Item::Type(item) if is_public(&item.vis) => keep_attributes(&mut item.attrs),
        Item::Mod(item) if is_public(&item.vis) && item.content.is_none() => {
            keep_attributes(&mut item.attrs);
        }
        Item::Use(item) if is_public(&item.vis) => keep_attributes(&mut item.attrs),
        Item::Fn(item) if is_public(&item.vis) => {
            keep_attributes(&mut item.attrs);
            let attributes: String =
                item.attrs.iter().map(|attribute| attribute.to_token_stream().to_string()).collect();
            return Some(format!("{attributes} pub {};", item.sig.to_token_stream()));
        }
        Item::Struct(item) if is_public(&item.vis) => {
            keep_attributes(&mut item.attrs);
            keep_public_fields(&mut item.fields);
            if matches!(item.fields, Fields::Unit) {
                item.semi_token = Some(Default::default());
            }
        }
        Item::Enum(item) if is_public(&item.vis) => {
            keep_attributes(&mut item.attrs);
            for variant in &mut item.variants {
                keep_attributes(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_attributes(&mut field.attrs));
            }
        }
        Item::Trait(item) if is_public(&item.vis) => {
            keep_attributes(&mut item.attrs);
            for member in &mut item.items {
                if let TraitItem::Fn(function) = member {
                    keep_attributes(&mut function.attrs);
                    function.default = None;
                    function.semi_token = Some(Default::default());
                }
            }
        }
        Item::Impl(item) => return listed_impl(item, types),
        _ => return None,
    }
    Some(item.to_token_stream().to_string())
}

/// The text of an implementation for a public type: a trait by its head, public functions by their
/// signatures.
fn listed_impl(item: &ItemImpl, types: &[String]) -> Option<String> {
    let Type::Path(path) = &*item.self_ty else { return None };
    let name = path.path.segments.last()?.ident.to_string();
    if !types.contains(&name) || is_for_tests(&item.attrs) {
        return None;
    }
    let (generics, _, condition) = item.generics.split_for_impl();
    let (generics, condition) = (generics.to_token_stream(), condition.to_token_stream());
    let target = item.self_ty.to_token_stream();
    if let Some((path, _)) = &item.trait_ {
        return Some(format!("impl {generics} {} for {target} {condition} {{}}", path.to_token_stream()));
    }
    let functions = item.items.iter().filter_map(|member| match member {
        ImplItem::Fn(function) if is_public(&function.vis) => {
            let mut attributes = function.attrs.clone();
            keep_attributes(&mut attributes);
            let attributes: String =
                attributes.iter().map(|attribute| attribute.to_token_stream().to_string()).collect();
            Some(format!("{attributes} pub {};", function.sig.to_token_stream()))
        }
        ImplItem::Const(constant) if is_public(&constant.vis) => {
            let (name, kind) = (&constant.ident, constant.ty.to_token_stream());
            Some(format!("pub const {name}: {kind};"))
        }
        _ => None,
    });
    let functions: Vec<String> = functions.collect();
    if functions.is_empty() {
        return None;
    }
    Some(format!("impl {generics} {target} {condition} {{ {} }}", functions.join("\n")))
}

/// The names of the public types of a file.
fn public_types(file: &File) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Struct(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Enum(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        _ => None,
    };
    file.items.iter().filter_map(name).collect()
}

/// Formats Rust text.
fn format(text: &str) -> String {
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024", "--config-path"]).arg(root());
    let mut process = rustfmt.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("rustfmt runs");
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "rustfmt refuses the listing");
    String::from_utf8(output.stdout).unwrap()
}

fn listing() -> String {
    let files: BTreeMap<String, File> = find_files("host/src", ".rs")
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root().join("host/src")).unwrap().display().to_string();
            (name, syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap())
        })
        // The command line is hidden: only the command uses it.
        .filter(|(name, _)| !name.starts_with("bin/") && !name.starts_with("cli"))
        .collect();
    let types: Vec<String> = files.values().flat_map(public_types).collect();
    let mut text = "// The public API of the crate `ktables`, by file. Written by a test: see tests/suite/public_api.rs.\n".to_owned();
    for (name, file) in &files {
        let items: Vec<String> = file.items.iter().filter_map(|item| listed(item, &types)).collect();
        if !items.is_empty() {
            text.push_str(&format!("\n// {name}\n\n{}\n", items.join("\n\n")));
        }
    }
    format(&text)
}

#[test]
fn the_public_api_is_as_listed() {
    let (path, current) = (root().join(LISTING), listing());
    if std::env::var_os("KTABLES_WRITE_API").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differing = current.lines().zip(committed.lines()).find(|(current, committed)| current != committed);
    assert!(
        current == committed,
        "the public API has changed, first here: {differing:?}. If that is wanted, run this test with \
         KTABLES_WRITE_API=1 and commit {LISTING}"
    );
}
