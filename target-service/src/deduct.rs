//! When stock is deducted: a setting of the service, beside the strategy that says how.

use std::fmt;

/// When stock is deducted. What its comment says is what `seckill-target catalogue` tells people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Deduct {
    /// At the order, for good (C1): only its buyer gives it back, or a payment that is declined.
    Order,
    /// At the payment (C2): an order sets nothing aside, and its buyer may find it sold out when they pay.
    Payment,
    /// At the order, for a time (C3): a hold that is not paid by then is given back.
    #[default]
    Hold,
}

/// A hold that is not meant to end lasts a hundred years, in milliseconds.
pub const FOR_EVER_MS: i64 = 100 * 365 * 24 * 3_600 * 1_000;

impl fmt::Display for Deduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Hold => "hold",
        })
    }
}
