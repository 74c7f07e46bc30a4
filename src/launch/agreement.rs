//! What the ranks of a run must have in common, compared before the first step: ranks that differ would train on and give
//! numbers that mean nothing, or wait for each other for ever.

use super::world::{World, named};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The key of what rank 0 found.
const VERDICT: &str = "verdict";

/// What a rank is about to do, point by point, in the order in which points are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration(Vec<Point>);

/// One point: what it is about, how it is here, and what to do where it is not the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    name: String,
    value: String,
    remedy: String,
}

impl Declaration {
    /// Adds a point; `remedy` says what to do where ranks differ in it.
    pub fn add(&mut self, name: impl Into<String>, value: impl ToString, remedy: &str) {
        self.0.push(Point { name: name.into(), value: value.to_string(), remedy: remedy.to_owned() });
    }

    /// How a point is here.
    fn value(&self, name: &str) -> &str {
        self.0.iter().find(|point| point.name == name).map_or("nothing of the kind", |point| &point.value)
    }
}

/// Lets the ranks compare what they are about to do: rank 0 reads what each declares, and all hear of its verdict.
///
/// # Errors
/// They differ: names the first difference, the ranks and what to do. Or some have not come, or failed before.
pub fn agree(world: &World, own: &Declaration) -> Result<()> {
    let verdict = if world.who.rank == 0 {
        let verdict = difference(&gather(world, own)?).unwrap_or_default();
        world.declare(VERDICT, verdict.as_bytes())?;
        verdict
    } else {
        let own = serde_json::to_vec(own).map_err(|error| Error::failed(format!("a declaration: {error}")))?;
        world.declare(&declared(world.who.rank), &own)?;
        String::from_utf8_lossy(&world.wait_for(VERDICT, "the verdict of rank 0")?).into_owned()
    };
    if verdict.is_empty() { Ok(()) } else { Err(Error::usage(verdict)) }
}

/// What every rank declares, in rank order.
fn gather(world: &World, own: &Declaration) -> Result<Vec<Declaration>> {
    let mut all = vec![own.clone()];
    for rank in 1..world.who.size {
        let found = world.wait_for(&declared(rank), &format!("the declaration of rank {rank}"))?;
        // Another version of mpt may say it in a way that this one does not know: then its version differs.
        all.push(serde_json::from_slice(&found).unwrap_or_default());
    }
    Ok(all)
}

fn declared(rank: usize) -> String {
    format!("declaration/{rank}")
}

/// The first point in which ranks differ from rank 0, in a sentence; `None` where they agree.
fn difference(all: &[Declaration]) -> Option<String> {
    let (first, others) = all.split_first()?;
    // A point that only others have comes after those of rank 0.
    let points = all.iter().flat_map(|declared| &declared.0);
    let differs = |point: &&Point| all.iter().any(|other| other.value(&point.name) != first.value(&point.name));
    let Point { name, remedy, .. } = points.into_iter().find(differs)?;
    let (mut ranks, mut values) = (Vec::new(), Vec::new());
    for (rank, other) in (1..).zip(others) {
        let value = other.value(name);
        if value != first.value(name) {
            ranks.push(rank);
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let (differ, ranks) = (if ranks.len() == 1 { "differs" } else { "differ" }, named(&ranks));
    let (values, expected) = (values.join(" and "), first.value(name));
    Some(format!("{ranks} {differ} from rank 0 in {name}: {values} instead of {expected}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::super::world::tests::rank;
    use super::*;
    use std::thread;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(20);

    fn declaration(points: &[(&str, &str)]) -> Declaration {
        let mut declaration = Declaration::default();
        points.iter().for_each(|(name, value)| declaration.add(*name, value, "mend it"));
        declaration
    }

    #[test]
    fn the_first_difference_is_named_with_its_ranks() {
        let usual = declaration(&[("version", "1"), ("batch_size", "128"), ("seed", "0")]);
        let other = |batch, seed| declaration(&[("version", "1"), ("batch_size", batch), ("seed", seed)]);
        assert_eq!(difference(&[usual.clone(), usual.clone()]), None);
        for (others, expected) in [
            (vec![other("64", "1")], "rank 1 differs from rank 0 in batch_size: 64 instead of 128; mend it"),
            (
                // The first in the order of points, not of ranks.
                vec![other("128", "1"), other("64", "0"), usual.clone(), other("64", "2")],
                "ranks 2 and 4 differ from rank 0 in batch_size: 64 instead of 128; mend it",
            ),
            (
                vec![other("64", "0"), other("32", "0")],
                "ranks 1 and 2 differ from rank 0 in batch_size: 64 and 32 instead of 128; mend it",
            ),
            (
                vec![declaration(&[("version", "1"), ("batch_size", "128"), ("seed", "0"), ("layer fc9", "linear")])],
                "rank 1 differs from rank 0 in layer fc9: linear instead of nothing of the kind; mend it",
            ),
            (
                vec![Declaration::default()],
                "rank 1 differs from rank 0 in version: nothing of the kind instead of 1; mend it",
            ),
        ] {
            let all: Vec<Declaration> = [vec![usual.clone()], others].concat();
            assert_eq!(difference(&all).unwrap(), expected);
        }
    }

    #[test]
    fn every_rank_hears_of_a_difference() {
        let first = rank(0, 3, 0, LIMIT);
        let port = first.port();
        let others: Vec<_> = [(1, "128"), (2, "64")]
            .map(|(number, batch)| {
                let declared = declaration(&[("batch_size", batch)]);
                thread::spawn(move || agree(&rank(number, 3, port, LIMIT), &declared).unwrap_err())
            })
            .into_iter()
            .collect();
        let refused = agree(&first, &declaration(&[("batch_size", "128")])).unwrap_err();
        let sentence = "rank 2 differs from rank 0 in batch_size: 64 instead of 128; mend it";
        assert_eq!(refused, Error::Usage(sentence.into()));
        for other in others {
            assert_eq!(other.join().unwrap(), refused);
        }
    }
}
