//! Reading one event after the other in memory that is used again: straight from the text where that is possible, from
//! simd-json's tape where not.

use std::fmt;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape};

use crate::columns::{Schema, Sink};
use crate::json::DEPTH_MAX;
use crate::program::Program;
use crate::scan::{Findings, Wanted};

/// Reads one event after the other.
pub(crate) struct Reader {
    /// The event, and the padding the parser wants.
    text: Vec<u8>,
    len: usize,
    /// Whether it has a backslash.
    escaped: bool,
    /// For parsers that stop when they know where the tokens are.
    index: Buffers,
    indexed: bool,
    buffers: Buffers,
    tape: Tape<'static>,
    findings: Findings,
    /// Where in the event keywords may be.
    places: Vec<u32>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reader").field("text_bytes", &self.text.capacity()).finish_non_exhaustive()
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            text: Vec::new(),
            len: 0,
            escaped: false,
            // The parser first finds all tokens and checks UTF-8 and strings, then builds a tape. With no depth allowed
            // it ends in between, at the first bracket.
            index: Buffers::with_max_depth(0, 0),
            indexed: false,
            // Deeper texts than a decoder accepts are not read here either; the limit is on what lies inside the root.
            buffers: Buffers::with_max_depth(0, DEPTH_MAX + 1),
            tape: Tape(Vec::new()),
            findings: Findings::default(),
            places: Vec::new(),
        }
    }
}

impl Reader {
    /// Begins with the next event.
    pub(crate) fn load(&mut self, native: &[u8]) {
        self.len = native.len();
        self.escaped = memchr::memchr(b'\\', native).is_some();
        self.text.clear();
        self.text.extend_from_slice(native);
        self.text.resize(self.len + INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let ended = simd_json::fill_tape_padded(&mut self.text, self.len, &mut self.index, &mut tape);
        self.indexed = ended.is_err_and(|error| matches!(error.error(), ErrorType::DepthLimitExceeded));
        self.tape = tape.reset();
    }

    /// Finds what a program reads and the texts of members of the whole, straight from the text. Says false where that
    /// cannot be done.
    pub(crate) fn scan(&mut self, program: Option<&Program>, members: &[&str]) -> bool {
        let nothing = Schema::default();
        let schema = program.map_or(&nothing, Program::schema);
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        let everything = self.indexed
            && schema.everything().is_some()
            && program
                .and_then(Program::keywords)
                .is_none_or(|keywords| keywords.look(&self.text, self.escaped, &mut places));
        let scanned = self.scan_for(Wanted { schema, everything, places: &places, members });
        self.places = places;
        scanned
    }

    /// As [`Reader::scan`], for what is said.
    pub(crate) fn scan_for(&mut self, wanted: Wanted<'_>) -> bool {
        self.indexed
            && self
                .text
                .get(..self.len)
                .is_some_and(|text| self.findings.scan(text, self.escaped, self.index.structural_indexes(), wanted))
    }

    /// The text of a member that [`Reader::scan`] was asked for.
    pub(crate) fn member(&self, number: usize) -> Option<&str> {
        self.findings.member(number, &self.text)
    }

    /// Hands on what [`Reader::scan`] found.
    pub(crate) fn give(&mut self, sink: &mut impl Sink) {
        // That it is UTF-8 was checked when its tokens were found.
        let text = self.text.get(..self.len).and_then(|text| simdutf8::basic::from_utf8(text).ok());
        self.findings.give(text.unwrap_or_default(), sink);
    }

    /// Reads the tape of the event; `None` is given where it is no JSON: such an event has no native fields, and decoding
    /// refused it long before.
    pub(crate) fn tape<R>(&mut self, take: impl FnOnce(Option<&[Node<'_>]>) -> R) -> R {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.text, self.len, &mut self.buffers, &mut tape);
        let taken = take(parsed.is_ok().then_some(tape.0.as_slice()));
        self.tape = tape.reset();
        taken
    }

    /// Hands on what a program reads of an event, in whichever way.
    pub(crate) fn read(&mut self, native: &[u8], program: &Program, sink: &mut impl Sink) {
        self.load(native);
        if self.scan(Some(program), &[]) {
            return self.give(sink);
        }
        self.tape(|tape| tape.into_iter().for_each(|tape| program.schema().native(tape, sink)));
    }
}
