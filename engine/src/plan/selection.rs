//! Events on their way through the plan: each is parsed at most once, shown to the program of its route, and evaluated
//! with the others of that route, many at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use simd_json::Node;

use super::{Match, Plan, Route, Routing};
use crate::columns::root_text;
use crate::event::Event;
use crate::program::{Program, Space};
use crate::reader::Reader;
use crate::rule::Rule;
use crate::source::{Logsource, SourceType};

/// Spare parsers kept: as many as threads match at once, within reason.
const READERS_MAX: usize = 16;
/// Most routes of one call that are gathered at once; one more, and what is there is evaluated first.
const LANES_MAX: usize = 64;
/// Most ways of writing a logsource that are remembered.
const WRITTEN_MAX: usize = 8;
/// Stands for every name that no rule uses, so that events cannot ask for a program each.
const UNKNOWN: &str = "\0";

/// The names of logsources that rules use.
#[derive(Debug, Default)]
pub(super) struct Names {
    products: BTreeSet<String>,
    services: BTreeSet<String>,
    categories: BTreeSet<String>,
}

impl Names {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut names = Self::default();
        for rule in rules {
            if let Rule::Detection(rule) = rule {
                let Logsource { product, service, category } = rule.logsource.clone();
                names.products.extend(product);
                names.services.extend(service);
                names.categories.extend(category);
            }
        }
        names
    }

    fn route(&self, said: &Said<'_>) -> Route {
        let name = |known: &BTreeSet<String>, said: Option<&str>| {
            let name = said?.to_lowercase();
            Some(if known.contains(&name) { name } else { UNKNOWN.to_owned() })
        };
        Route::Logsource(Logsource {
            product: name(&self.products, said.product),
            service: name(&self.services, said.service),
            category: name(&self.categories, said.category),
        })
    }
}

/// The members of an event that say which logsource it is of.
const MEMBERS: [&str; 3] = ["product", "service", "category"];

/// The logsource an event says it is of.
#[derive(Clone, Copy, Debug)]
struct Said<'e> {
    product: Option<&'e str>,
    service: Option<&'e str>,
    category: Option<&'e str>,
}

impl<'e> Said<'e> {
    /// By its [`MEMBERS`].
    fn by(member: impl Fn(usize) -> Option<&'e str>) -> Self {
        Self { product: member(0), service: member(1), category: member(2) }
    }

    fn of(tape: Option<&'e [Node<'_>]>) -> Self {
        let text = |number: usize| MEMBERS.get(number).and_then(|name| root_text(tape?, name));
        Self::by(text)
    }

    /// Without product and service it may be of any.
    const fn is_any(&self) -> bool {
        self.product.is_none() && self.service.is_none()
    }

    fn is(&self, logsource: &Logsource) -> bool {
        logsource.product.as_deref() == self.product
            && logsource.service.as_deref() == self.service
            && logsource.category.as_deref() == self.category
    }

    fn is_of(&self, lane: &Lane) -> bool {
        match &lane.route {
            Route::Logsource(own) => {
                !self.is_any() && (self.is(own) || lane.written.iter().any(|written| self.is(written)))
            }
            Route::All => self.is_any(),
            Route::Source(_) => false,
        }
    }

    fn to_logsource(self) -> Logsource {
        Logsource {
            product: self.product.map(str::to_owned),
            service: self.service.map(str::to_owned),
            category: self.category.map(str::to_owned),
        }
    }
}

/// Events that begin alike are mostly of one logsource.
const BEGINNING: usize = 16;
type Beginning = [u8; BEGINNING];

/// One call.
#[derive(Debug)]
pub(super) struct Selection<'p> {
    plan: &'p Plan,
    lanes: Vec<Lane>,
    /// The lane of the event before: most likely this one's as well.
    last: usize,
    /// Which lane an event was of that began so.
    guesses: Vec<(Beginning, usize)>,
    /// How often all lanes were closed.
    closed: usize,
    matches: Vec<Match>,
}

/// The events of one route.
#[derive(Debug)]
struct Lane {
    route: Route,
    /// Logsources as events wrote them that turned out to be this one: in other letters, or unheard of.
    written: Vec<Logsource>,
    program: Arc<Program>,
    space: Space,
    /// Index of the event of each row.
    events: Vec<usize>,
}

impl<'p> Selection<'p> {
    pub(super) const fn new(plan: &'p Plan) -> Self {
        Self { plan, lanes: Vec::new(), last: 0, guesses: Vec::new(), closed: 0, matches: Vec::new() }
    }

    pub(super) fn run(mut self, events: &[Event], routing: &Routing) -> Vec<Match> {
        let spare = self.plan.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader: Reader = spare.unwrap_or_default();
        let fixed = match routing {
            Routing::ByLogsource(logsource) => Some(Route::Logsource(logsource.clone())),
            Routing::Unrouted => Some(Route::All),
            Routing::BySource | Routing::Recognised => None,
        };
        for (index, event) in events.iter().enumerate() {
            if fixed.is_none() && *routing == Routing::Recognised && event.source_type == SourceType::Json {
                self.recognise(index, event, &mut reader);
                continue;
            }
            let lane = match &fixed {
                Some(route) => self.lane(route),
                None => self.lane(&Route::Source(event.source_type)),
            };
            let Some(own) = self.lanes.get_mut(lane) else { continue };
            let program = &own.program;
            program.take(event, &mut own.space, |taking| {
                if program.schema().reads_native() {
                    reader.read(&event.native, program, taking);
                }
            });
            self.took(lane, index);
        }
        self.close();
        let mut readers = self.plan.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_MAX {
            readers.push(reader);
        }
        drop(readers);
        self.matches.sort_unstable();
        self.matches
    }

    /// Takes an event that says itself where it belongs.
    fn recognise(&mut self, index: usize, event: &Event, reader: &mut Reader) {
        reader.load(&event.native);
        let beginning = event.native.first_chunk::<BEGINNING>();
        let guess = self.guesses.iter().position(|(known, _)| Some(known) == beginning);
        let lane = guess.and_then(|guess| self.guesses.get(guess)).map_or(self.last, |(_, lane)| *lane);
        // What the event says stands in the same text as what rules read, so it is looked for together, in the fields
        // of the likeliest logsource; if it turns out to be of another, once more.
        let (known, closed) = (lane < self.lanes.len(), self.closed);
        let mut scanned = self.scan(lane, reader);
        let mut right = lane;
        if scanned {
            right = self.lane_of(&Said::by(|number| reader.member(number)));
            if !known || right != lane || closed != self.closed {
                scanned = self.scan(right, reader);
            }
        }
        if !scanned {
            reader.tape(|tape| {
                right = self.lane_of(&Said::of(tape));
                let Some(own) = self.lanes.get_mut(right) else { return };
                let program = &own.program;
                program.take(event, &mut own.space, |taking| {
                    tape.into_iter().for_each(|tape| program.schema().native(tape, taking));
                });
            });
        } else if let Some(own) = self.lanes.get_mut(right) {
            own.program.take(event, &mut own.space, |taking| reader.give(taking));
        }
        if let Some(guess) = guess {
            self.guesses.get_mut(guess).into_iter().for_each(|(_, lane)| *lane = right);
        } else if let Some(beginning) = beginning
            && self.guesses.len() < LANES_MAX
        {
            self.guesses.push((*beginning, right));
        }
        self.took(right, index);
    }

    /// Looks for what a lane reads, and where the event says it belongs. Says false where the tape is needed.
    fn scan(&self, lane: usize, reader: &mut Reader) -> bool {
        reader.scan(self.lanes.get(lane).map(|lane| &*lane.program), &MEMBERS)
    }

    /// The lane of what an event says.
    fn lane_of(&mut self, said: &Said<'_>) -> usize {
        if let Some(lane) = self.find(|lane| said.is_of(lane)) {
            return lane;
        }
        if said.is_any() {
            return self.lane(&Route::All);
        }
        let lane = self.lane(&self.plan.names.route(said));
        if let Some(own) = self.lanes.get_mut(lane)
            && own.written.len() < WRITTEN_MAX
        {
            own.written.push(said.to_logsource());
        }
        lane
    }

    fn find(&mut self, fits: impl Fn(&Lane) -> bool) -> Option<usize> {
        if self.lanes.get(self.last).is_some_and(&fits) {
            return Some(self.last);
        }
        self.last = self.lanes.iter().position(fits)?;
        Some(self.last)
    }

    fn lane(&mut self, route: &Route) -> usize {
        if let Some(lane) = self.find(|lane| lane.route == *route) {
            return lane;
        }
        if self.lanes.len() >= LANES_MAX {
            self.close();
        }
        let program = self.plan.program(route);
        let space = program.space();
        self.lanes.push(Lane { route: route.clone(), written: Vec::new(), program, space, events: Vec::new() });
        self.last = self.lanes.len() - 1;
        self.last
    }

    /// The event of this index is the last row of the lane.
    fn took(&mut self, lane: usize, index: usize) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        lane.events.push(index);
        if lane.space.is_full() {
            lane.evaluate(&mut self.matches);
        }
    }

    /// Evaluates what was gathered, and gives the memory back.
    fn close(&mut self) {
        for mut lane in self.lanes.drain(..) {
            lane.evaluate(&mut self.matches);
            lane.program.put_back(lane.space);
        }
        self.guesses.clear();
        self.last = 0;
        self.closed += 1;
    }
}

impl Lane {
    fn evaluate(&mut self, matches: &mut Vec<Match>) {
        let events = &self.events;
        self.program.evaluate(&mut self.space, |row, rule| {
            if let Some(event) = events.get(row) {
                matches.push(Match { event: *event, rule });
            }
        });
        self.events.clear();
    }
}
