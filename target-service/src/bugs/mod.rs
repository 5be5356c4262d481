//! Seeded bugs: mistakes that people really make, planted one at a time to show that a rehearsal finds them.
//!
//! Each bug is one file here, or a branch on [`Bug`] that its comment marks as such. Nothing else in the
//! service may depend on a bug. Bugs are refused without `--allow-seeded-bugs`.

mod ack_before_commit;
mod by_statement;
mod cache_never_compensated;
mod case_when;
mod check_then_deduct;
mod committed_but_told_failed;
mod deducted_before_duplicate_check;
mod key_checked_then_inserted;
mod limit_raced;
mod negative_stock;
mod never_released;
mod paid_after_release;
mod published_then_rolled_back;
mod read_then_write_back;
mod released_twice;
mod retry_under_new_key;
mod row_count_ignored;
mod shard_remainder_stranded;
mod sold_out_flag_sticks;
mod taken_before_start;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::inventory::{Ground, Inventory, Shards, Strategy, Unbuilt};
use crate::store::schema::Guard;

/// Why a bug cannot be planted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending(pub &'static str);

macro_rules! bugs {
    ($($number:literal $variant:ident $name:literal $(#[$doc:meta])+ ;)+) => {
        /// A seeded bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])+ $variant,)+
        }

        impl Bug {
            /// Every bug, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number in the catalogue.
            pub fn number(self) -> u8 {
                match self { $(Self::$variant => $number),+ }
            }

            /// The name in the catalogue.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

bugs! {
    1 ReadThenWriteBack "read-then-write-back"
        /// Stock is read, reduced in the application, and written back as a number.
        ;
    2 CheckThenDeduct "check-then-deduct"
        /// Stock is checked in one transaction and deducted in another.
        ;
    3 RowCountIgnored "row-count-ignored"
        /// The order is inserted without looking whether the update deducted anything.
        ;
    4 CaseWhen "case-when"
        /// An unconditional update always changes one row, which is taken for success.
        ;
    5 NegativeStock "negative-stock"
        /// Neither the quantity nor the stock has a floor.
        ;
    7 CacheNeverCompensated "cache-never-compensated"
        /// The cache is deducted, the database fails, and nothing is put back.
        ;
    8 DeductedBeforeDuplicateCheck "deducted-before-duplicate-check"
        /// Stock is deducted before the key is found to have an order already.
        ;
    10 SoldOutFlagSticks "sold-out-flag-sticks"
        /// Once sold out, an item is refused from memory for ever.
        ;
    11 ShardRemainderStranded "shard-remainder-stranded"
        /// Units left in one shard cannot be bought through another.
        ;
    12 AckBeforeCommit "ack-before-commit"
        /// Orders are acknowledged inside a transaction that is committed later.
        ;
    13 CommitNotSynced "commit-not-synced"
        /// Commits return before they are on disk.
        ;
    14 LaggingReplicaPromoted "lagging-replica-promoted"
        /// A replica that lags behind takes over. The service is sound: the mistake is in how its databases are run.
        ;
    16 CommittedButToldFailed "committed-but-told-failed"
        /// An uncertain outcome is reported as a definite refusal.
        ;
    17 RetryUnderNewKey "retry-under-new-key"
        /// An uncertain attempt is repeated under a key that the service makes up.
        ;
    18 KeyCheckedThenInserted "key-checked-then-inserted"
        /// The key is looked up first, and nothing stops its twin from being inserted meanwhile.
        ;
    19 RetryWithoutRecheck "retry-without-recheck"
        /// An uncertain attempt is repeated without looking whether it took effect.
        ;
    20 RedeliveryProcessedAgain "redelivery-processed-again"
        /// A redelivered message makes a second order.
        ;
    21 CrashBeforePublish "crash-before-publish"
        /// A crash between commit and publish loses the notification.
        ;
    22 PublishedThenRolledBack "published-then-rolled-back"
        /// The order is announced, and its transaction aborted afterwards.
        ;
    23 ReleasedTwice "released-twice"
        /// Cancelling and expiring release without looking at the state.
        ;
    25 NeverReleased "never-released"
        /// Nothing is released after a failed payment.
        ;
    26 PaidAfterRelease "paid-after-release"
        /// A released order is paid without reserving its units again.
        ;
    27 LimitRaced "limit-raced"
        /// The limit per user is checked by a query beforehand.
        ;
    29 TakenBeforeStart "taken-before-start"
        /// The server does not check whether the sale has started.
        ;
    30 ClientCountdown "client-countdown"
        /// The start is decided by the client's clock.
        ;
}

impl Bug {
    /// Why the bug cannot be planted yet, if it cannot.
    pub fn pending(self) -> Option<Pending> {
        let reason = match self {
            Self::RedeliveryProcessedAgain => "it needs the message queue",
            Self::CrashBeforePublish => "it needs tickets whose outcome is notified",
            Self::ClientCountdown => "it needs the token that opens the sale to a client",
            _ => return None,
        };
        Some(Pending(reason))
    }

    /// Whether it is a mistake that is made with a Redis beside the database.
    pub fn needs_redis(self) -> bool {
        self == Self::CacheNeverCompensated
    }

    /// Whether it is a mistake about payments that go wrong, which only a payment dependency can refuse.
    pub fn needs_payment(self) -> bool {
        self == Self::NeverReleased
    }

    /// Whether it is made by who runs the databases: the service is told of it and does nothing wrong by itself.
    pub fn needs_lagging_standby(self) -> bool {
        self == Self::LaggingReplicaPromoted
    }

    /// The strategy in whose place it is planted: any other one would not run. None if it goes with all of them.
    pub fn strategy(self) -> Option<Strategy> {
        match self {
            Self::CacheNeverCompensated => Some(Strategy::RedisLua),
            Self::ShardRemainderStranded => Some(Strategy::Shards),
            Self::ReadThenWriteBack
            | Self::CheckThenDeduct
            | Self::RowCountIgnored
            | Self::CaseWhen
            | Self::NegativeStock
            | Self::DeductedBeforeDuplicateCheck
            | Self::AckBeforeCommit
            | Self::KeyCheckedThenInserted
            | Self::RetryWithoutRecheck
            | Self::PublishedThenRolledBack
            | Self::LimitRaced
            | Self::TakenBeforeStart => Some(Strategy::ConditionalUpdate),
            Self::SoldOutFlagSticks
            | Self::CommitNotSynced
            | Self::LaggingReplicaPromoted
            | Self::CommittedButToldFailed
            | Self::RetryUnderNewKey
            | Self::RedeliveryProcessedAgain
            | Self::CrashBeforePublish
            | Self::ReleasedTwice
            | Self::NeverReleased
            | Self::PaidAfterRelease
            | Self::ClientCountdown => None,
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number(), self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let by_number = |bug: &&Self| text.parse() == Ok(bug.number());
        let by_name = |bug: &&Self| bug.name() == text;
        Self::ALL.iter().find(|bug| by_number(bug) || by_name(bug)).copied().ok_or_else(|| {
            let known: Vec<String> = Self::ALL.iter().map(|bug| format!("{}={}", bug.number(), bug.name())).collect();
            format!("there is no seeded bug `{text}`; accepted numbers and names: {}", known.join(", "))
        })
    }
}

/// Builds an inventory with the bug in it, which may be one around the strategy that was asked for.
///
/// # Errors
/// It needs a Redis, and there is none.
pub fn plant(bug: Bug, sound: Arc<dyn Inventory>, ground: &Ground) -> Result<Arc<dyn Inventory>, Unbuilt> {
    let by_statement = |store, statement| Arc::new(by_statement::ByStatement::new(store, statement));
    let store = ground.store.clone();
    Ok(match bug {
        Bug::ReadThenWriteBack => Arc::new(read_then_write_back::ReadThenWriteBack::new(store)),
        Bug::CheckThenDeduct => Arc::new(check_then_deduct::CheckThenDeduct::new(store)),
        Bug::RowCountIgnored => Arc::new(row_count_ignored::RowCountIgnored::new(store)),
        Bug::CaseWhen => by_statement(store, case_when::RESERVE),
        Bug::NegativeStock => by_statement(store, negative_stock::RESERVE),
        Bug::CacheNeverCompensated => {
            let redis = ground.redis.clone().ok_or_else(|| Unbuilt::NeedsRedis(format!("seeded bug {bug}")))?;
            Arc::new(cache_never_compensated::CacheNeverCompensated::new(store, redis)?)
        }
        Bug::ShardRemainderStranded => {
            Arc::new(shard_remainder_stranded::ShardRemainderStranded::new(Shards::new(store, ground.shards)))
        }
        Bug::DeductedBeforeDuplicateCheck => {
            Arc::new(deducted_before_duplicate_check::DeductedBeforeDuplicateCheck::new(store))
        }
        Bug::SoldOutFlagSticks => Arc::new(sold_out_flag_sticks::SoldOutFlagSticks::new(sound)),
        Bug::AckBeforeCommit => Arc::new(ack_before_commit::AckBeforeCommit::new(store)),
        Bug::CommittedButToldFailed => Arc::new(committed_but_told_failed::CommittedButToldFailed::new(sound)),
        Bug::RetryUnderNewKey => Arc::new(retry_under_new_key::RetryUnderNewKey::new(sound)),
        Bug::KeyCheckedThenInserted => Arc::new(key_checked_then_inserted::KeyCheckedThenInserted::new(store)),
        Bug::RetryWithoutRecheck => Arc::new(key_checked_then_inserted::KeyCheckedThenInserted::with_retries(store)),
        Bug::PublishedThenRolledBack => Arc::new(published_then_rolled_back::PublishedThenRolledBack::new(store)),
        Bug::ReleasedTwice => Arc::new(released_twice::ReleasedTwice::new(sound)),
        Bug::NeverReleased => Arc::new(never_released::NeverReleased::new(sound)),
        Bug::PaidAfterRelease => Arc::new(paid_after_release::PaidAfterRelease::new(sound)),
        Bug::LimitRaced => Arc::new(limit_raced::LimitRaced::new(store)),
        Bug::TakenBeforeStart => by_statement(store, taken_before_start::RESERVE),
        // Not in the inventory: see `session_options`; or not in the service at all; or pending.
        Bug::CommitNotSynced
        | Bug::LaggingReplicaPromoted
        | Bug::RedeliveryProcessedAgain
        | Bug::CrashBeforePublish
        | Bug::ClientCountdown => sound,
    })
}

/// The constraints that would hide the bug.
pub fn relaxed_guards(bug: Option<Bug>) -> &'static [Guard] {
    match bug {
        Some(Bug::CheckThenDeduct) => &[Guard::StockFloor],
        Some(Bug::NegativeStock) => {
            &[Guard::StockFloor, Guard::OrderQuantity, Guard::OrderAmount, Guard::EventQuantity, Guard::PurchaseFloor]
        }
        Some(Bug::ReleasedTwice) => &[Guard::PurchaseFloor],
        Some(Bug::KeyCheckedThenInserted | Bug::RetryWithoutRecheck) => &[Guard::OrderKey],
        _ => &[],
    }
}

/// Settings of every pooled database session that are the bug.
pub fn session_options(bug: Bug) -> &'static str {
    match bug {
        Bug::CommitNotSynced => "-c synchronous_commit=off",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_are_known_by_number_and_by_name() {
        for bug in Bug::ALL {
            assert_eq!(bug.number().to_string().parse(), Ok(*bug));
            assert_eq!(bug.name().parse(), Ok(*bug));
        }
        let complaint = "nonsense".parse::<Bug>().unwrap_err();
        assert!(complaint.contains("4=case-when"), "{complaint}");
        assert!("0".parse::<Bug>().is_err());
    }

    #[test]
    fn numbers_ascend() {
        assert!(Bug::ALL.is_sorted_by(|a, b| a.number() < b.number()));
    }
}
