//! Named points between receiving an event and the receipt of its alert at which a debug build can be made to die.
//!
//! `PIPEPROOF_FAILPOINT=NAME` or `NAME:PASS` ends the process when it passes the point for the PASS-th time (the first
//! unless said), with no clean-up, as `kill -9` does. The fault tests go through [`Failpoint::ALL`]. Release builds have
//! none of it.

#[cfg(debug_assertions)]
use std::io::Write as _;
#[cfg(debug_assertions)]
use std::sync::LazyLock;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

/// A point, in the order an event passes them; behind them those of upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Failpoint {
    ReceiveBeforeAppend,
    LogBeforeWrite,
    LogAfterWrite,
    LogAfterSync,
    LogAfterHashWrite,
    LogAfterHashSync,
    LogSegmentCreated,
    LogSegmentNamed,
    ReceiveAfterAppend,
    DetectBeforeCommit,
    StoreInTransaction,
    DetectAfterCommit,
    StoreInSnapshot,
    DetectAfterSnapshot,
    LakeBeforePut,
    LakeFileStaged,
    LakeAfterPut,
    LakeAfterCommit,
    CompactAfterPut,
    CompactAfterCommit,
    LakeAfterVacuum,
    ArchiveBeforeFeeds,
    SealBeforeAppend,
    SealAfterAppend,
    DeliverBeforeSend,
    DeliverAfterSend,
    DeliverAfterReceipt,
    RetireAfterMark,
    RetireAfterRemove,
    BackupBeforeManifest,
    RulesBeforeRename,
    RulesAfterRename,
    SqlBeforeRecord,
    SqlAfterRecord,
    CollectBeforeCursors,
    CollectAfterCursors,
    HealBefore,
    HealAfter,
    RedactAfterOrder,
    RedactAfterState,
    RedactAfterStore,
    RedactAfterLakeCommit,
    RedactAfterLakeRemove,
    RedactAfterMark,
    RedactAfterErase,
    RedactAfterVacuum,
}

impl Failpoint {
    /// Every point.
    pub const ALL: &'static [Self] = &[
        Self::ReceiveBeforeAppend,
        Self::LogBeforeWrite,
        Self::LogAfterWrite,
        Self::LogAfterSync,
        Self::LogAfterHashWrite,
        Self::LogAfterHashSync,
        Self::LogSegmentCreated,
        Self::LogSegmentNamed,
        Self::ReceiveAfterAppend,
        Self::DetectBeforeCommit,
        Self::StoreInTransaction,
        Self::DetectAfterCommit,
        Self::StoreInSnapshot,
        Self::DetectAfterSnapshot,
        Self::LakeBeforePut,
        Self::LakeFileStaged,
        Self::LakeAfterPut,
        Self::LakeAfterCommit,
        Self::CompactAfterPut,
        Self::CompactAfterCommit,
        Self::LakeAfterVacuum,
        Self::ArchiveBeforeFeeds,
        Self::SealBeforeAppend,
        Self::SealAfterAppend,
        Self::DeliverBeforeSend,
        Self::DeliverAfterSend,
        Self::DeliverAfterReceipt,
        Self::RetireAfterMark,
        Self::RetireAfterRemove,
        Self::BackupBeforeManifest,
        Self::RulesBeforeRename,
        Self::RulesAfterRename,
        Self::SqlBeforeRecord,
        Self::SqlAfterRecord,
        Self::CollectBeforeCursors,
        Self::CollectAfterCursors,
        Self::HealBefore,
        Self::HealAfter,
        Self::RedactAfterOrder,
        Self::RedactAfterState,
        Self::RedactAfterStore,
        Self::RedactAfterLakeCommit,
        Self::RedactAfterLakeRemove,
        Self::RedactAfterMark,
        Self::RedactAfterErase,
        Self::RedactAfterVacuum,
    ];

    /// The name it is asked for by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReceiveBeforeAppend => "receive.before-append",
            Self::LogBeforeWrite => "log.before-write",
            Self::LogAfterWrite => "log.after-write",
            Self::LogAfterSync => "log.after-sync",
            Self::LogAfterHashWrite => "log.after-hash-write",
            Self::LogAfterHashSync => "log.after-hash-sync",
            Self::LogSegmentCreated => "log.segment-created",
            Self::LogSegmentNamed => "log.segment-named",
            Self::ReceiveAfterAppend => "receive.after-append",
            Self::DetectBeforeCommit => "detect.before-commit",
            Self::StoreInTransaction => "store.in-transaction",
            Self::DetectAfterCommit => "detect.after-commit",
            Self::StoreInSnapshot => "store.in-snapshot",
            Self::DetectAfterSnapshot => "detect.after-snapshot",
            Self::LakeBeforePut => "lake.before-put",
            Self::LakeFileStaged => "lake.file-staged",
            Self::LakeAfterPut => "lake.after-put",
            Self::LakeAfterCommit => "lake.after-commit",
            Self::CompactAfterPut => "compact.after-put",
            Self::CompactAfterCommit => "compact.after-commit",
            Self::LakeAfterVacuum => "lake.after-vacuum",
            Self::ArchiveBeforeFeeds => "archive.before-feeds",
            Self::SealBeforeAppend => "seal.before-append",
            Self::SealAfterAppend => "seal.after-append",
            Self::DeliverBeforeSend => "deliver.before-send",
            Self::DeliverAfterSend => "deliver.after-send",
            Self::DeliverAfterReceipt => "deliver.after-receipt",
            Self::RetireAfterMark => "retire.after-mark",
            Self::RetireAfterRemove => "retire.after-remove",
            Self::BackupBeforeManifest => "backup.before-manifest",
            Self::RulesBeforeRename => "rules.before-rename",
            Self::RulesAfterRename => "rules.after-rename",
            Self::SqlBeforeRecord => "sql.before-record",
            Self::SqlAfterRecord => "sql.after-record",
            Self::CollectBeforeCursors => "collect.before-cursors",
            Self::CollectAfterCursors => "collect.after-cursors",
            Self::HealBefore => "heal.before",
            Self::HealAfter => "heal.after",
            Self::RedactAfterOrder => "redact.after-order",
            Self::RedactAfterState => "redact.after-state",
            Self::RedactAfterStore => "redact.after-store",
            Self::RedactAfterLakeCommit => "redact.after-lake-commit",
            Self::RedactAfterLakeRemove => "redact.after-lake-remove",
            Self::RedactAfterMark => "redact.after-mark",
            Self::RedactAfterErase => "redact.after-erase",
            Self::RedactAfterVacuum => "redact.after-vacuum",
        }
    }

    /// Passes the point.
    #[inline]
    pub fn pass(self) {
        #[cfg(debug_assertions)]
        if let Some((point, left)) = ARMED.as_ref()
            && *point == self
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            // Whoever armed it can tell this death from any other; a line that cannot be written changes nothing.
            drop(writeln!(std::io::stderr(), "dies at failpoint {}", self.name()));
            std::process::abort();
        }
    }
}

/// The point that was asked for, and how often it may still be passed.
#[cfg(debug_assertions)]
static ARMED: LazyLock<Option<(Failpoint, AtomicU64)>> = LazyLock::new(|| {
    let asked = std::env::var("PIPEPROOF_FAILPOINT").ok()?;
    let (name, pass) = asked.split_once(':').unwrap_or((asked.as_str(), "1"));
    let point = *Failpoint::ALL.iter().find(|point| point.name() == name)?;
    Some((point, AtomicU64::new(pass.parse().ok()?)))
});
