//! What the ranks' records, laid side by side, say about why a run does not go on. Pure: flights in, one finding out.

use crate::comm::recorder::record::{Flight, Record, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Why a run does not go on. The first rank that disagrees or lags is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Finding {
    /// A rank made another call than the others.
    Differs {
        /// The rank.
        rank: usize,
        /// Its call.
        record: Box<Record>,
        /// A rank that made the call of the others.
        other: usize,
        /// That call.
        others: Box<Record>,
    },
    /// Others wait in a call for a rank that has not come to it, and waits for nobody.
    Behind {
        /// The rank.
        rank: usize,
        /// The call that it has not come to.
        record: Box<Record>,
        /// A rank that waits in it.
        waiting: usize,
        /// The rank's own last call; `None`: it has made none, or does not answer.
        last: Option<Box<Record>>,
        /// What is known of it, if it does not answer.
        silence: Option<String>,
    },
    /// Ranks wait for each other in different groups.
    Circle {
        /// Each with the call in which it waits for the next one; the last waits for the first.
        waits: Vec<(usize, Record)>,
    },
    /// Every rank of a group has come to a call, and it does not end.
    Stuck {
        /// The call.
        record: Box<Record>,
        /// The rank that came to it last.
        rank: usize,
    },
    /// No rank waits in a call.
    Nothing,
}

/// Lays records side by side: those of every rank of the run, by rank; `None`: the rank does not answer.
pub fn find(flights: &[Option<Flight>]) -> Finding {
    let told: Vec<&Flight> = flights.iter().flatten().collect();
    disagreement(&told).or_else(|| waiting(flights)).unwrap_or(Finding::Nothing)
}

/// A group, by name and ranks.
type Group<'f> = (&'f str, &'f [usize]);

/// The earliest call of a group that is not the same on every rank that came to it.
fn disagreement(flights: &[&Flight]) -> Option<Finding> {
    let mut calls: BTreeMap<(Group, u64), Vec<(usize, &Record)>> = BTreeMap::new();
    for flight in flights {
        for record in &flight.records {
            let group = (record.group.as_str(), &record.ranks[..]);
            calls.entry((group, record.sequence)).or_default().push((flight.rank, record));
        }
    }
    let differing = calls.into_values().filter_map(|made| odd_one_out(&made));
    let started = |finding: &Finding| match finding {
        Finding::Differs { record, .. } => record.started,
        _ => f64::INFINITY,
    };
    differing.min_by(|a, b| started(a).total_cmp(&started(b)))
}

/// The first rank whose call is not that of most; where there is no majority, not that of the first rank.
fn odd_one_out(made: &[(usize, &Record)]) -> Option<Finding> {
    let like = |record: &Record| made.iter().filter(|(_, other)| other.agrees(record)).count();
    let mut usual = made.first()?;
    for call in made {
        if like(call.1) > like(usual.1) {
            usual = call;
        }
    }
    let (rank, record) = made.iter().find(|(_, record)| !record.agrees(usual.1))?;
    let (record, others) = (Box::new((*record).clone()), Box::new(usual.1.clone()));
    Some(Finding::Differs { rank: *rank, record, other: usual.0, others })
}

/// Follows who waits for whom, from the rank that has waited longest, to the one that all of them wait for.
fn waiting(flights: &[Option<Flight>]) -> Option<Finding> {
    let blocked: BTreeMap<usize, &Record> =
        flights.iter().flatten().filter_map(|flight| Some((flight.rank, blocking(flight)?))).collect();
    let seconds = |record: &Record| record.blocked_seconds.unwrap_or(0.0);
    let longest = blocked.iter().max_by(|a, b| seconds(a.1).total_cmp(&seconds(b.1)).then(b.0.cmp(a.0)))?;
    let (mut rank, mut chain) = (*longest.0, Vec::new());
    loop {
        let record = *blocked.get(&rank)?;
        if let Some(begin) = chain.iter().position(|(earlier, _)| *earlier == rank) {
            return Some(Finding::Circle { waits: chain.split_off(begin) });
        }
        chain.push((rank, record.clone()));
        let missing: Vec<usize> = record.ranks.iter().copied().filter(|&peer| lacks(flights, peer, record)).collect();
        // A rank that is itself free, or silent, holds up all the others.
        let free = missing.iter().copied().filter(|peer| !blocked.contains_key(peer));
        let silent = free.clone().find(|&peer| flights[peer].is_none());
        if let Some(lagging) = silent.or_else(|| free.min()) {
            return Some(behind(flights, lagging, record, rank));
        }
        match missing.first() {
            Some(&next) => rank = next,
            None => return Some(stuck(flights, record)),
        }
    }
}

/// The call in which a rank waits.
fn blocking(flight: &Flight) -> Option<&Record> {
    flight.records.iter().find(|record| record.blocks())
}

/// Whether a rank has not come to a call.
fn lacks(flights: &[Option<Flight>], rank: usize, record: &Record) -> bool {
    let Some(flight) = flights.get(rank).and_then(Option::as_ref) else { return true };
    let group = flight.groups.iter().find(|group| group.name == record.group && group.ranks == record.ranks);
    group.is_none_or(|group| group.calls < record.sequence)
}

fn behind(flights: &[Option<Flight>], rank: usize, record: &Record, waiting: usize) -> Finding {
    let flight = flights[rank].as_ref();
    let last = flight.and_then(|flight| flight.records.last()).cloned().map(Box::new);
    let silence = flight.is_none().then(|| "it does not answer".to_owned());
    Finding::Behind { rank, record: Box::new(record.clone()), waiting, last, silence }
}

fn stuck(flights: &[Option<Flight>], record: &Record) -> Finding {
    let same = |found: &&Record| {
        found.group == record.group && found.ranks == record.ranks && found.sequence == record.sequence
    };
    let came = flights.iter().flatten().filter_map(|flight| Some((flight.rank, flight.records.iter().find(same)?)));
    let last = came.max_by(|a, b| a.1.started.total_cmp(&b.1.started));
    let rank = last.map_or_else(|| record.ranks.first().copied().unwrap_or_default(), |(rank, _)| rank);
    Finding::Stuck { record: Box::new(record.clone()), rank }
}

fn time(record: &Record) -> String {
    record.blocked_seconds.map_or_else(|| "no time".into(), |seconds| format!("{seconds:.0} s"))
}

impl Finding {
    /// In a few words, for who has not read the report; `None`: there is nothing to say.
    pub fn short(&self) -> Option<String> {
        match self {
            Self::Differs { rank, .. } => Some(format!("rank {rank} did not make the calls of the others")),
            Self::Behind { rank, silence: None, .. } => Some(format!("rank {rank} held up the others")),
            Self::Behind { rank, .. } => Some(format!("rank {rank} did not answer")),
            Self::Circle { .. } => Some("the ranks waited for each other".into()),
            Self::Stuck { record, .. } => Some(format!("{} for {} did not end", record.operation, record.layer)),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { rank, record, other, others } => write!(
                formatter,
                "the ranks do not make the same calls: rank {rank} made {record}, with {} bytes, where rank {other} made {} \
                 for {} ({}), with {} bytes",
                record.bytes, others.operation, others.layer, others.stage, others.bytes
            ),
            Self::Behind { rank, record, waiting, last, silence } => {
                let waited = time(record);
                write!(
                    formatter,
                    "rank {rank} has not come to {record}, in which rank {waiting} has waited for {waited}"
                )?;
                match (silence, last) {
                    (Some(silence), _) => write!(formatter, "; {silence}"),
                    (None, None) => write!(formatter, "; it has made no call yet"),
                    (None, Some(last)) => {
                        let state = if last.state == State::Done { "which is done" } else { "not awaited yet" };
                        write!(formatter, "; its last call was {last}, {state}: it computes, reads data, or is stuck")
                    }
                }
            }
            Self::Circle { waits } => {
                write!(formatter, "the ranks wait for each other:")?;
                for (place, (rank, record)) in waits.iter().enumerate() {
                    let next = waits[(place + 1) % waits.len()].0;
                    let comma = if place == 0 { "" } else { "," };
                    write!(formatter, "{comma} rank {rank} for rank {next} in {record} since {}", time(record))?;
                }
                Ok(())
            }
            Self::Stuck { record, rank } => write!(
                formatter,
                "{record} has not ended after {}, though every one of them has come to it, rank {rank} last",
                time(record)
            ),
            Self::Nothing => write!(formatter, "no rank waits in a call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::recorder::record::GroupState;
    use crate::comm::{Operation, Stage};

    /// A call of a group, done.
    fn done(group: &str, ranks: &[usize], sequence: u64, layer: &str) -> Record {
        Record {
            group: group.into(),
            ranks: ranks.to_vec(),
            sequence,
            operation: Operation::AllGather,
            layer: layer.into(),
            stage: Stage::Forward,
            bytes: 64,
            state: State::Done,
            started: sequence as f64,
            travelling: Some(sequence as f64),
            awaited: Some(sequence as f64),
            finished: Some(sequence as f64),
            blocked_seconds: None,
        }
    }

    /// The same, waited for.
    fn waited(group: &str, ranks: &[usize], sequence: u64, layer: &str) -> Record {
        let done = done(group, ranks, sequence, layer);
        Record { state: State::Travelling, finished: None, blocked_seconds: Some(60.0), ..done }
    }

    fn flight(rank: usize, records: Vec<Record>) -> Option<Flight> {
        let mut groups: Vec<GroupState> = Vec::new();
        for Record { group, ranks, sequence, .. } in &records {
            match groups.iter_mut().find(|found| found.name == *group && found.ranks == *ranks) {
                Some(found) => found.calls = found.calls.max(*sequence),
                None => groups.push(GroupState { name: group.clone(), ranks: ranks.clone(), calls: *sequence }),
            }
        }
        Some(Flight { rank, process: 1, at: 99.0, groups, records })
    }

    const BOTH: [usize; 2] = [0, 1];
    const ALL: [usize; 3] = [0, 1, 2];

    #[test]
    fn the_rank_that_has_not_come_is_behind() {
        let free = flight(1, vec![done("model", &BOTH, 1, "conv3")]);
        let waits = flight(0, vec![done("model", &BOTH, 1, "conv3"), waited("model", &BOTH, 2, "fc6")]);
        let found = find(&[waits.clone(), free]);
        assert_eq!(
            found.to_string(),
            "rank 1 has not come to all-gather for fc6 (forward), call 2 of the model group of ranks [0, 1], in which rank \
             0 has waited for 60 s; its last call was all-gather for conv3 (forward), call 1 of the model group of ranks \
             [0, 1], which is done: it computes, reads data, or is stuck"
        );
        let found = find(&[waits, None]);
        assert!(matches!(found, Finding::Behind { rank: 1, silence: Some(_), .. }), "{found:?}");
        assert!(found.to_string().ends_with("; it does not answer"), "{found}");
    }

    #[test]
    fn who_waits_for_one_that_waits_is_not_behind() {
        // 0 waits for 1 in one group, 1 for 2 in another, and 2 is silent or free.
        let first = flight(0, vec![waited("model", &BOTH, 4, "conv3")]);
        let second = flight(1, vec![done("model", &BOTH, 3, "conv1"), waited("data", &[1, 2], 1, "fc6")]);
        for third in [None, flight(2, vec![])] {
            let found = find(&[first.clone(), second.clone(), third]);
            let Finding::Behind { rank, record, waiting, .. } = found else { panic!("{found:?}") };
            assert_eq!((rank, record.layer.as_str(), waiting), (2, "fc6", 1));
        }
    }

    #[test]
    fn ranks_that_wait_for_each_other_are_a_circle() {
        let first = flight(0, vec![waited("model", &BOTH, 1, "conv3")]);
        let second = flight(1, vec![waited("data", &[1, 2], 1, "fc6")]);
        let third = flight(2, vec![waited("world", &ALL, 1, "step")]);
        let found = find(&[first, second, third]);
        let Finding::Circle { waits } = &found else { panic!("{found:?}") };
        assert_eq!(waits.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), ALL);
        assert!(found.to_string().contains("rank 2 for rank 0 in all-gather for step"), "{found}");
    }

    #[test]
    fn the_rank_whose_call_is_not_that_of_most_differs() {
        let other = Record { operation: Operation::AllReduce, ..waited("world", &ALL, 7, "fc8") };
        let same = || waited("world", &ALL, 7, "fc8");
        for odd in ALL {
            let flights = ALL.map(|rank| flight(rank, vec![if rank == odd { other.clone() } else { same() }]));
            let found = find(&flights);
            let Finding::Differs { rank, record, others, .. } = &found else { panic!("{found:?}") };
            assert_eq!((*rank, record.operation, others.operation), (odd, Operation::AllReduce, Operation::AllGather));
        }
        // The first difference counts, and what ranks send each other may differ in size.
        let sends = |bytes| Record { operation: Operation::SendReceive, bytes, ..done("model", &BOTH, 1, "conv2") };
        let later = flight(0, vec![sends(1), done("model", &BOTH, 2, "conv3"), waited("model", &BOTH, 3, "fc6")]);
        let earlier = flight(1, vec![sends(2), done("model", &BOTH, 2, "conv4"), waited("model", &BOTH, 3, "fc7")]);
        let found = find(&[later, earlier]);
        let Finding::Differs { rank: 1, record, .. } = &found else { panic!("{found:?}") };
        assert_eq!(record.layer, "conv4");
    }

    #[test]
    fn a_call_that_all_have_come_to_is_stuck() {
        let late = Record { started: 50.0, ..waited("model", &BOTH, 1, "conv3") };
        let found = find(&[flight(0, vec![waited("model", &BOTH, 1, "conv3")]), flight(1, vec![late])]);
        let Finding::Stuck { rank: 1, record } = &found else { panic!("{found:?}") };
        assert_eq!(record.layer, "conv3");
    }

    #[test]
    fn where_nobody_waits_there_is_nothing_to_find() {
        assert_eq!(find(&[flight(0, vec![done("model", &BOTH, 1, "conv3")]), None]), Finding::Nothing);
    }

    #[test]
    fn a_call_that_is_not_kept_any_more_was_made_all_the_same() {
        let mut second = flight(1, vec![]);
        second.as_mut().unwrap().groups = vec![GroupState { name: "world".into(), ranks: BOTH.to_vec(), calls: 9 }];
        let found = find(&[flight(0, vec![waited("world", &BOTH, 9, "step")]), second]);
        assert!(matches!(found, Finding::Stuck { .. }), "{found:?}");
    }
}
