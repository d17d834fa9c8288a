//! Client certificates, as TLS hands them on before anybody has judged what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeproof_ingest::authentic::ClientCertificate;

fuzz_target!(|der: &[u8]| {
    if let Ok(certificate) = ClientCertificate::read(der) {
        assert!(!certificate.key_id().is_empty());
    }
});
