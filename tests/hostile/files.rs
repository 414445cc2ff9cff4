//! Files that are hostile as they are.

/// Returns a function that builds a component which has the export of a codec, and these definitions.
pub(crate) fn component(definitions: &str) -> impl Fn() -> Vec<u8> + use<> {
    let text = format!(
        r#"(component {definitions} (instance $i) (export "ktables:codec/value-codec@0.1.0" (instance $i)))"#
    );
    move || parse(&text)
}

/// Returns a function that builds a component with an instance of a module with these fields.
pub(crate) fn module(fields: &str) -> impl Fn() -> Vec<u8> + use<> {
    component(&format!("(core module $m {fields}) (core instance (instantiate $m))"))
}

/// Parses the text of a component or module.
pub(crate) fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}: {}", &text[..text.len().min(400)]))
}

const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Adds a section to a component.
fn add_section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    write_len(component, content.len());
    component.extend(content);
}

/// Writes a length as LEB128.
fn write_len(bytes: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
}

/// Builds a component with a custom section of this many bytes.
pub(crate) fn custom_section(bytes: usize) -> Vec<u8> {
    let mut component = Vec::with_capacity(bytes + 20);
    component.extend(COMPONENT);
    component.push(0);
    write_len(&mut component, bytes);
    // The name has one byte.
    component.push(1);
    component.resize(component.len() + bytes - 1, b'x');
    component
}

/// Builds a component in a component, and so on.
pub(crate) fn nested(levels: usize) -> Vec<u8> {
    (0..levels).fold(COMPONENT.to_vec(), |inner, _| {
        let mut outer = COMPONENT.to_vec();
        add_section(&mut outer, 4, &inner);
        outer
    })
}

/// Builds a component with a component, and in it this many aliases of the component.
pub(crate) fn aliases(count: usize) -> Vec<u8> {
    let mut inner = COMPONENT.to_vec();
    let mut section = Vec::with_capacity(count * 4 + 4);
    write_len(&mut section, count);
    // Of the component with index 0, one level up.
    (0..count).for_each(|_| section.extend([4, 2, 1, 0]));
    add_section(&mut inner, 6, &section);
    let mut outer = COMPONENT.to_vec();
    add_section(&mut outer, 4, &COMPONENT);
    add_section(&mut outer, 4, &inner);
    outer
}

/// Builds a component that has the export of a codec, and the type of a module, which has this many groups of this many types.
pub(crate) fn types_of_a_module(groups: usize, types: usize) -> Vec<u8> {
    let mut group = vec![1, 0x4e];
    write_len(&mut group, types);
    (0..types).for_each(|_| group.extend([0x60, 0, 0]));
    let mut section = vec![1, 0x50];
    write_len(&mut section, groups);
    (0..groups).for_each(|_| section.extend(&group));
    let mut component = component("")();
    add_section(&mut component, 3, &section);
    component
}
