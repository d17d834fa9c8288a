//! A backtest on the server, told line by line while it runs.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as ResponseBody;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pipeproof_engine::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ApiError;
use super::answers::Body;
use crate::backtest::{self, Deciding, Line, Request};
use crate::node::Shared;
use crate::rules::{self, SetError};

/// Largest body: rules as text.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;
/// How long it waits for the lake to take in what is there.
const FLUSH: Duration = Duration::from_secs(60);
/// Lines on their way to the client.
const LINES: usize = 256;

/// The files of rules as a request carries them: (path, text) of everything rules are made of.
pub(crate) type RuleTexts = Vec<(String, String)>;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BacktestBody {
    /// Without any, the sets that were in force at each record.
    pub(crate) rules: Option<RuleTexts>,
    /// What they are compared with; the live run without it.
    pub(crate) against: Option<RuleTexts>,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// Seconds before `from` at which the replay begins; at the beginning of the log without it.
    pub(crate) warm_up_secs: Option<u64>,
}

impl BacktestBody {
    /// Compiles what it asks for; `sets` is the folder where sets of rules are kept.
    pub(crate) fn compile(self, sets: &Path) -> Result<Request, SetError> {
        Ok(Request {
            rules: match self.rules {
                Some(files) => Deciding::Fixed(rules::plan_of(files)?),
                None => Deciding::InForce(sets.to_owned()),
            },
            against: self.against.map(rules::plan_of).transpose()?,
            from: self.from,
            to: self.to,
            warm_up: self.warm_up_secs.map(Duration::from_secs),
            offline: false,
        })
    }
}

pub(crate) async fn backtest(
    State(shared): State<Arc<Shared>>,
    Body(body): Body<BacktestBody>,
) -> Result<Response, ApiError> {
    if body.from >= body.to {
        return Err(ApiError::bad_request("`from` must be before `to`"));
    }
    // One at a time: it keeps a core and more busy.
    let turn = Arc::clone(&shared.backtests).try_acquire_owned();
    let turn = turn.map_err(|_| ApiError::unavailable("another backtest is running: try again when it is done"))?;
    let sets = shared.rules.root().to_owned();
    let compiled = tokio::task::spawn_blocking(move || body.compile(&sets)).await;
    let compiled = compiled.map_err(super::answers::internal("compile the rules"))?;
    let request = compiled.map_err(|error| ApiError::bad_request(crate::chain(&error)))?;
    if !shared.flush_lake(FLUSH).await {
        return Err(ApiError::unavailable("the lake has not taken in what was received: try again in a moment"));
    }
    let (sender, receiver) = mpsc::channel::<Bytes>(LINES);
    let lake = shared.lake.pin();
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let send = |line: &Line| {
            let mut text = serde_json::to_vec(line).unwrap_or_default();
            text.push(b'\n');
            sender.blocking_send(Bytes::from(text)).is_ok()
        };
        let mut tell = |line: Line| send(&line) && !*shared.stopping.borrow();
        let done = backtest::run(&lake, shared.address_files.clone(), &request, &handle, &mut tell);
        if let Err(error) = done {
            // Nobody may be listening any more, which is why it ended.
            let _told = send(&Line::Error(crate::chain(&error)));
        }
    });
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (Ok::<_, Infallible>(line), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], ResponseBody::from_stream(lines)).into_response())
}
