//! Time as the shell hands it in. A `std` instant can only come from the system's clock; this one comes from anywhere.

/// A point in time, in microseconds from an origin of the shell's choice. It must not run backwards; an earlier time
/// than the last one handed in counts as the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than everything: a deadline that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ms` milliseconds after the origin.
    #[must_use]
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// `ms` milliseconds after this.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// `ms` milliseconds before this; not before the origin.
    #[must_use]
    pub fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms.saturating_mul(1000)))
    }
}
