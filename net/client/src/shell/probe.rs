//! Many probes in flight on one connection: the load of commit measurements.
//!
//! One thread, no channel: each turn reads what one system call gives, answers each `ProbeDone` with the next probe into
//! the write buffer, and sends that buffer with one more system call. At 64 in flight a turn carries tens of probes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::client::{ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{LogIndex, RequestId};
use proto::limits::PROBE_BYTES_MAX;

use crate::error::ClientError;
use crate::limits::{CONNECT_US_MAX, PROBE_ANSWER_US_MAX, PROBE_REFUSED_WAIT_US, PROBES_IN_FLIGHT_MAX};
use crate::session::{ConnectFailure, SessionFailure, Welcome};
use crate::shell::connection::Connection;
use crate::shell::options::Options;
use crate::troubles::Troubles;

/// What a load does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// Probes in flight; brought into 1 to `PROBES_IN_FLIGHT_MAX`.
    pub in_flight: usize,
    /// Bytes of each payload; brought below `PROBE_BYTES_MAX`.
    pub payload_bytes: usize,
    /// No new probe is sent after this time. The ones in flight are waited for.
    pub duration: Duration,
    /// No new probe is sent after this many.
    pub count_max: Option<u64>,
}

/// One committed probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSample {
    /// From queueing the request to reading its answer.
    pub latency: Duration,
    /// Since the load began, when the answer was read.
    pub at: Duration,
    /// Its place in the log.
    pub index: LogIndex,
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ProbeReport {
    /// Probes committed.
    pub committed: u64,
    /// Probes refused for now (busy, no leader). Each counts as sent; another one takes its place after a short wait.
    pub refused: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

/// Many probes in flight on one connection to one node. Not resumed when the connection breaks: a measurement with a
/// hole is none.
#[derive(Debug)]
pub struct ProbeLoad {
    address: String,
    connection: Connection,
    welcome: Welcome,
    request_last: RequestId,
    body: Vec<u8>,
}

impl ProbeLoad {
    /// Connects to the first of the options' nodes that answers.
    pub fn connect(options: &Options, target: Target) -> Result<ProbeLoad, ClientError> {
        let mut last = ClientError::NoNodes;
        for address in &options.nodes {
            let timeout = Duration::from_micros(CONNECT_US_MAX);
            match Connection::open(address, target.clone(), options.cluster, timeout) {
                Ok((connection, welcome)) => {
                    let address = address.clone();
                    return Ok(ProbeLoad {
                        address,
                        connection,
                        welcome,
                        request_last: RequestId(0),
                        body: Vec::new(),
                    });
                }
                Err(ConnectFailure::Unreachable { text }) => {
                    last = ClientError::Connection { address: address.clone(), text };
                }
                Err(ConnectFailure::Refused { refusal: Refusal::WrongCluster, text, .. }) => {
                    last = ClientError::Session(SessionFailure::WrongCluster { address: address.clone(), text });
                }
                Err(ConnectFailure::Refused { refusal, text, .. }) => last = ClientError::Refused { refusal, text },
            }
        }
        Err(last)
    }

    /// What the node said at the handshake.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Runs the plan; `on_sample` is called for every committed probe. A refusal for good ends the load.
    pub fn run(&mut self, plan: &ProbePlan, on_sample: impl FnMut(ProbeSample)) -> Result<ProbeReport, ClientError> {
        let in_flight = plan.in_flight.clamp(1, PROBES_IN_FLIGHT_MAX);
        let started = Instant::now();
        let mut run = Run {
            load: self,
            payload: vec![0x5a; plan.payload_bytes.min(PROBE_BYTES_MAX)],
            open: BTreeMap::new(),
            started,
            ends_at: started + plan.duration,
            left: plan.count_max.unwrap_or(u64::MAX),
            refused_at: None,
            report: ProbeReport::default(),
            on_sample,
        };
        run.refill(in_flight)?;
        while !run.open.is_empty() || run.may_send() {
            run.turn(in_flight)?;
        }
        run.report.elapsed = started.elapsed();
        Ok(run.report)
    }
}

/// One load under way.
struct Run<'l, F> {
    load: &'l mut ProbeLoad,
    payload: Vec<u8>,
    open: BTreeMap<RequestId, Instant>, // the first is the oldest
    started: Instant,
    ends_at: Instant,
    left: u64,
    refused_at: Option<Instant>,
    report: ProbeReport,
    on_sample: F,
}

impl<F: FnMut(ProbeSample)> Run<'_, F> {
    fn may_send(&self) -> bool {
        self.left > 0 && Instant::now() < self.ends_at
    }

    /// Reads what is there, waiting for the first of it, and sends as many probes as were answered.
    fn turn(&mut self, in_flight: usize) -> Result<(), ClientError> {
        let pause = self
            .refused_at
            .map(|at| (at + Duration::from_micros(PROBE_REFUSED_WAIT_US)).saturating_duration_since(Instant::now()));
        let wait = pause.unwrap_or(Duration::from_micros(PROBE_ANSWER_US_MAX)).max(Duration::from_millis(1));
        let mut waiting = Some(wait);
        loop {
            let reply =
                self.load.connection.receive(&mut self.load.body, waiting).map_err(|error| self.broken(error))?;
            match reply {
                Some(reply) => self.on_reply(reply)?,
                None => break,
            }
            if !self.load.connection.has_buffered() {
                break;
            }
            waiting = Some(wait);
        }
        let oldest = self.open.first_key_value().map(|(_, since)| since.elapsed());
        if oldest.is_some_and(|age| age >= Duration::from_micros(PROBE_ANSWER_US_MAX)) {
            let seconds = PROBE_ANSWER_US_MAX / 1_000_000;
            return Err(ClientError::TimedOut { what: "committing a probe", seconds, troubles: Troubles::default() });
        }
        if self.refused_at.is_some_and(|at| at.elapsed() >= Duration::from_micros(PROBE_REFUSED_WAIT_US)) {
            self.refused_at = None;
        }
        if self.refused_at.is_none() { self.refill(in_flight) } else { Ok(()) }
    }

    fn refill(&mut self, in_flight: usize) -> Result<(), ClientError> {
        if self.open.len() >= in_flight || !self.may_send() {
            return Ok(());
        }
        let mut message = ClientRequest::Probe { request: RequestId(0), payload: std::mem::take(&mut self.payload) };
        while self.open.len() < in_flight && self.left > 0 {
            self.left -= 1;
            self.load.request_last = RequestId(self.load.request_last.0 + 1);
            if let ClientRequest::Probe { request, .. } = &mut message {
                *request = self.load.request_last;
            }
            self.open.insert(self.load.request_last, Instant::now());
            self.load.connection.send(&message, &[]).map_err(|error| self.broken(error))?;
        }
        if let ClientRequest::Probe { payload, .. } = message {
            self.payload = payload;
        }
        self.load.connection.flush().map_err(|error| self.broken(error))
    }

    fn on_reply(&mut self, reply: ClientReply) -> Result<(), ClientError> {
        match reply {
            ClientReply::ProbeDone { request, index } => {
                if let Some(since) = self.open.remove(&request) {
                    let now = Instant::now();
                    self.report.committed += 1;
                    let (latency, at) = (now - since, now - self.started);
                    (self.on_sample)(ProbeSample { latency, at, index });
                }
                Ok(())
            }
            ClientReply::Failure { request: Some(request), refusal, .. } if refusal.is_transient() => {
                if self.open.remove(&request).is_some() {
                    self.report.refused += 1;
                    self.refused_at = Some(Instant::now());
                }
                Ok(())
            }
            ClientReply::Failure { refusal, text, .. } => Err(ClientError::Refused { refusal, text }),
            // News of the ring, for example.
            _ => Ok(()),
        }
    }

    fn broken(&self, error: std::io::Error) -> ClientError {
        ClientError::Connection { address: self.load.address.clone(), text: error.to_string() }
    }
}
