//! Which lists of a member are done in its turn: one that goes on makes nobody read the others again.

use std::sync::{Mutex, PoisonError};

use super::Kind;

/// The turn that is on.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<(String, Vec<Kind>)>);

impl Turn {
    /// What is to be listed still of a member whose turn it is.
    pub(super) fn kinds(&self, member: &str, all: &[Kind]) -> Vec<Kind> {
        let mut turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.0 != member {
            *turn = (member.to_owned(), Vec::new());
        }
        all.iter().copied().filter(|kind| !turn.1.contains(kind)).collect()
    }

    /// A list is read to its end.
    pub(super) fn done(&self, kind: Kind) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(kind);
    }

    /// The turn is over.
    pub(super) fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (String::new(), Vec::new());
    }
}
