//! Notices of new objects as SQS hands them on: S3, EventBridge, SNS around either.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pipeproof_fuzz::s3_notice(data));
