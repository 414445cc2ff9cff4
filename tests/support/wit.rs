//! Describes the interfaces of core modules that were written by hand.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::{ktables, succeed};

/// Embeds the description of a world into a core module, as generated bindings do. `world` is the contents of the world.
///
/// # Panics
///
/// If the world is malformed.
pub fn embed_world(core: &mut Vec<u8>, world: &str, encoding: StringEncoding) {
    let mut resolve = Resolve::default();
    let package = succeed(&mut ktables(&["codec", "wit"])).stdout;
    resolve.push_str("ktables.wit", &package).expect("a valid package");
    let world = format!("package test:guest; world guest {{ {world} }}");
    let package = resolve.push_str("world.wit", &world).expect("a valid world");
    let world = resolve.select_world(&[package], None).expect("one world");
    embed_component_metadata(core, &resolve, world, encoding).expect("a module");
}
