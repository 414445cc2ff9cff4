//! Removes from the descriptor of a file what does not affect the bytes of messages, so that it need not be compiled: custom
//! options, default values and services.

use prost_types::uninterpreted_option::NamePart;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, UninterpretedOption,
};
use protox::prost_reflect::prost_types;

/// Removes custom options, default values and services.
pub(crate) fn strip(file: &mut FileDescriptorProto) {
    strip_options(file.options.as_mut().map(|options| &mut options.uninterpreted_option));
    file.message_type.iter_mut().for_each(strip_message);
    file.enum_type.iter_mut().for_each(strip_enum);
    file.extension.iter_mut().for_each(strip_field);
    // Services have no messages of their own.
    file.service.clear();
}

fn strip_message(message: &mut DescriptorProto) {
    strip_options(message.options.as_mut().map(|options| &mut options.uninterpreted_option));
    message.nested_type.iter_mut().for_each(strip_message);
    message.enum_type.iter_mut().for_each(strip_enum);
    message.field.iter_mut().chain(&mut message.extension).for_each(strip_field);
    for oneof in &mut message.oneof_decl {
        strip_options(oneof.options.as_mut().map(|options| &mut options.uninterpreted_option));
    }
    for range in &mut message.extension_range {
        strip_options(range.options.as_mut().map(|options| &mut options.uninterpreted_option));
    }
}

fn strip_field(field: &mut FieldDescriptorProto) {
    strip_options(field.options.as_mut().map(|options| &mut options.uninterpreted_option));
    // Fields without a value are left out in JSON.
    field.default_value = None;
}

fn strip_enum(descriptor: &mut EnumDescriptorProto) {
    strip_options(descriptor.options.as_mut().map(|options| &mut options.uninterpreted_option));
    for value in &mut descriptor.value {
        strip_options(value.options.as_mut().map(|options| &mut options.uninterpreted_option));
    }
}

fn strip_options(options: Option<&mut Vec<UninterpretedOption>>) {
    let is_custom = |name: &[NamePart]| name.iter().any(|part| part.is_extension);
    if let Some(options) = options {
        options.retain(|option| !is_custom(&option.name));
    }
}
