//! What a figure is measured by.

use serde::{Deserialize, Serialize};

/// What is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    /// At most so many times what it is compared with.
    Times(f64),
    /// What it is compared with is at least so many times as much.
    Faster(f64),
    /// At most so much, in the figure's unit.
    AtMost(f64),
}

impl Goal {
    /// Whether it is reached; none, if nothing is there to compare with.
    pub(super) fn is_met(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Goal::Times(limit) => Some(ratio? <= limit),
            Goal::Faster(times) => Some(ratio? * times <= 1.0),
            Goal::AtMost(limit) => Some(value <= limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_within() {
        assert_eq!(Goal::Times(1.5).is_met(9.0, Some(1.5)), Some(true));
        assert_eq!(Goal::Times(1.5).is_met(9.0, Some(1.51)), Some(false));
        assert_eq!(Goal::Times(1.5).is_met(9.0, None), None);
        assert_eq!(Goal::Faster(8.0).is_met(9.0, Some(0.125)), Some(true));
        assert_eq!(Goal::Faster(8.0).is_met(9.0, Some(0.2)), Some(false));
        assert_eq!(Goal::AtMost(0.0).is_met(0.0, None), Some(true));
        assert_eq!(Goal::AtMost(2.0).is_met(2.1, None), Some(false));
    }
}
