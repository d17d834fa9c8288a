//! Notices of new objects as SQS hands them on: S3, EventBridge, SNS around either.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_ingest::objects::notice::Notice;

fuzz_target!(|text: &str| {
    drop(Notice::read(text));
});
