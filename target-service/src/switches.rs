//! The mechanisms that can be turned off, so that the difference they make can be measured.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// A mechanism, by the name it has in scenario files and reports. What its comment says is what `seckill-target
/// catalogue` tells people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum SwitchId {
    /// Expired holds are released by the sweeper.
    C3,
    /// Beyond the bound on requests in flight, further ones are dropped.
    K8,
    /// Static item pages are answered from memory.
    P5,
}

impl SwitchId {
    /// Every switch there is.
    pub const ALL: [Self; 3] = [Self::C3, Self::K8, Self::P5];
}

impl fmt::Display for SwitchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for SwitchId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|id| id.to_string() == text).ok_or_else(|| {
            let known = Self::ALL.map(|id| id.to_string()).join(", ");
            format!("there is no switch `{text}`; known switches: {known}")
        })
    }
}

/// The present setting of every switch. All mechanisms work by default.
#[derive(Debug)]
pub struct Switches {
    on: [AtomicBool; SwitchId::ALL.len()],
}

impl Default for Switches {
    fn default() -> Self {
        Self { on: std::array::from_fn(|_| AtomicBool::new(true)) }
    }
}

impl Switches {
    /// Whether the mechanism works.
    pub fn is_on(&self, id: SwitchId) -> bool {
        self.on[id as usize].load(Ordering::Relaxed)
    }

    /// Turns the mechanism on or off.
    pub fn set(&self, id: SwitchId, on: bool) {
        self.on[id as usize].store(on, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_moves_alone() {
        let switches = Switches::default();
        switches.set(SwitchId::K8, false);
        assert_eq!(SwitchId::ALL.map(|id| switches.is_on(id)), [true, false, true]);
        for id in SwitchId::ALL {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
