//! A path in a value, for errors.

use std::fmt;

/// How much of a name is shown.
const MAX_NAME_CHARS: usize = 100;

/// A path in a value: the names and indexes that lead to it. It lives on the stack, so that a correct value costs nearly
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct ValuePath<'a> {
    step: Step<'a>,
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a ValuePath<'a>, &'a str),
    Index(&'a ValuePath<'a>, usize),
}

impl<'a> ValuePath<'a> {
    /// The whole value.
    pub const ROOT: Self = Self { step: Step::Root, depth: 0 };

    /// The part of this one with a name.
    #[must_use]
    pub fn name(&'a self, name: &'a str) -> Self {
        Self { step: Step::Name(self, name), depth: self.depth + 1 }
    }

    /// The part of this one with an index.
    #[must_use]
    pub fn index(&'a self, index: usize) -> Self {
        Self { step: Step::Index(self, index), depth: self.depth + 1 }
    }

    /// How many names and indexes lead here.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }
}

impl fmt::Display for ValuePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Root => f.write_str("$"),
            Step::Name(parent, name) => write!(f, "{parent}.{}", shorten(name)),
            Step::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Returns the beginning of a text, for errors.
#[must_use]
pub fn shorten(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_NAME_CHARS).map_or(text.len(), |(end, _)| end);
    &text[..end]
}
