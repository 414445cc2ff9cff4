//! How the work of guests is limited and measured.

/// How the work of guests is limited and measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metering {
    /// By time ([`Limits::deadline`](crate::wasm::Limits::deadline)). For production.
    #[default]
    Deadline,
    /// By fuel: usually one unit for each instruction, so the number is the same on every machine. Slower,
    /// and without deadlines. For measurements.
    Fuel,
}

impl Metering {
    #[cfg(feature = "cli")]
    pub(super) const ALL: [Self; 2] = [Self::Deadline, Self::Fuel];

    /// Returns the name in the arguments of the compiler process.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Fuel => "fuel",
        }
    }
}
