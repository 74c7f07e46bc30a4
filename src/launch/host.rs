//! The ranks of a host, and how they come to share one loader: each tells in the store on which host it is, and all but the
//! first of each host connect to its process.
//!
//! A host is what a socket of an abstract name reaches: one network namespace of one kernel. Such a socket has no file that
//! could be left behind. How a launcher numbers ranks over hosts does not matter.

use super::world::{World, named};
use crate::data::Supply;
use crate::error::{Error, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::process::geteuid;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long the first rank of a host waits between two looks whether another has failed.
const LOOK: Duration = Duration::from_millis(500);
/// The bytes of a rank's number, by which it introduces itself.
const NUMBER: usize = size_of::<u64>();

/// Connects those of the first `ranks` ranks of a run that are on this host, of whom this is one. Its first may be silent for
/// `patience`, later, while another waits for a batch. `purpose` keeps these connections apart from others of the run.
///
/// # Errors
/// The store's; or a rank of this host cannot be reached, or did not come in time, or failed.
pub fn supply(world: &World, purpose: &str, ranks: usize, patience: Duration) -> Result<Supply> {
    // One that cannot tell where it is, is alone.
    let host = here().unwrap_or_else(|_| format!("that of rank {}", world.who.rank));
    supply_on(&host, world, purpose, ranks, patience)
}

fn supply_on(host: &str, world: &World, purpose: &str, ranks: usize, patience: Duration) -> Result<Supply> {
    let rank = world.who.rank;
    let ranks = ranks_of(host, world, purpose, ranks)?;
    let first = ranks.first().copied().unwrap_or(rank);
    if ranks.len() < 2 {
        return Ok(Supply::First { rank, others: Vec::new() });
    }
    let cannot = |error: &io::Error| {
        Error::failed(format!("the ranks of this host ({}) cannot share a loader: {error}", named(&ranks)))
    };
    let mut listener = None;
    let name = world.share(&format!("loader/{purpose}/{first}"), first, || {
        let name = fs::read("/proc/sys/kernel/random/uuid").map_err(|error| cannot(&error))?;
        let address = SocketAddr::from_abstract_name(&name);
        let listening = address.and_then(|address| UnixListener::bind_addr(&address));
        listener = Some(listening.map_err(|error| cannot(&error))?);
        Ok(name)
    })?;
    if let Some(listener) = listener {
        return Ok(Supply::First { rank, others: accept(world, &listener, &ranks[1..], &cannot)? });
    }
    let connect = || {
        let mut link = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&name)?)?;
        link.write_all(&(rank as u64).to_le_bytes())?;
        Ok(link)
    };
    Ok(Supply::Other { first, link: connect().map_err(|error| cannot(&error))?, patience })
}

/// Those of the first `ranks` ranks that are on this host, in order.
fn ranks_of(host: &str, world: &World, purpose: &str, ranks: usize) -> Result<Vec<usize>> {
    let told = |rank| format!("host/{purpose}/{rank}");
    world.tell(&told(world.who.rank), host.as_bytes())?;
    // The first rank reads them all for all: so each asks for one key.
    let hosts = world.share(&format!("hosts/{purpose}"), 0, || {
        let hosts = (0..ranks).map(|rank| world.wait_for(&told(rank), &format!("the host of rank {rank}")));
        Ok(hosts.collect::<Result<Vec<_>>>()?.join(&b'\n'))
    })?;
    let hosts = hosts.split(|&byte| byte == b'\n');
    Ok(hosts.enumerate().filter(|(_, other)| *other == host.as_bytes()).map(|(rank, _)| rank).collect())
}

/// This host: its kernel since it was started, and the network namespace.
fn here() -> io::Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {}", kernel.trim(), fs::read_link("/proc/self/ns/net")?.display()))
}

/// Waits for the connections of the other ranks of this host.
fn accept(
    world: &World,
    listener: &UnixListener,
    ranks: &[usize],
    cannot: &dyn Fn(&io::Error) -> Error,
) -> Result<Vec<(usize, UnixStream)>> {
    let deadline = Instant::now() + world.limit;
    set_socket_timeout(listener, Timeout::Recv, Some(LOOK)).map_err(|error| cannot(&error.into()))?;
    let mut others: Vec<(usize, UnixStream)> = Vec::new();
    while others.len() < ranks.len() {
        let missing = |rank: &usize| others.iter().all(|(come, _)| come != rank);
        match listener.accept().and_then(|(link, _)| introduced(link)) {
            Ok((rank, link)) if ranks.contains(&rank) && missing(&rank) => others.push((rank, link)),
            Err(error) if !passes(&error) => return Err(cannot(&error)),
            // Nobody yet, or a stranger.
            _ => {
                if let Some(failure) = world.failure()? {
                    return Err(failure);
                }
                if Instant::now() >= deadline {
                    let missing: Vec<usize> = ranks.iter().copied().filter(missing).collect();
                    return Err(Error::failed(format!(
                        "{} did not connect to the loader of rank {} within {:.0?}; parallel.meeting sets how long",
                        named(&missing),
                        world.who.rank,
                        world.limit
                    )));
                }
            }
        }
    }
    others.sort_unstable_by_key(|(rank, _)| *rank);
    Ok(others)
}

/// Whether an error means only that there is nobody, or not the right one.
fn passes(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionReset, Interrupted, PermissionDenied, TimedOut, UnexpectedEof, WouldBlock};
    matches!(error.kind(), ConnectionReset | Interrupted | PermissionDenied | TimedOut | UnexpectedEof | WouldBlock)
}

/// Which rank has connected. Other users of the machine are none.
fn introduced(mut link: UnixStream) -> io::Result<(usize, UnixStream)> {
    if socket_peercred(&link)?.uid != geteuid() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let mut number = [0; NUMBER];
    link.set_read_timeout(Some(LOOK))?;
    link.read_exact(&mut number)?;
    link.set_read_timeout(None)?;
    Ok((usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX), link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::world::tests::rank;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Which rank loads for a rank, and all for whom it does.
    fn told(supply: &Supply) -> (usize, Vec<usize>) {
        match supply {
            Supply::First { rank, .. } => (*rank, supply.ranks(6).into_iter().collect()),
            Supply::Other { first, .. } => (*first, Vec::new()),
            Supply::Here => panic!("a rank of many loads for all"),
        }
    }

    #[test]
    fn the_first_rank_of_each_host_loads_for_those_that_are_there() {
        let hosts = ["a", "b", "a", "b", "a", "c"];
        let first = rank(0, hosts.len(), 0, LIMIT);
        let port = first.port();
        let mut found: Vec<_> = (1..hosts.len())
            .map(|number| {
                thread::spawn(move || {
                    let world = rank(number, hosts.len(), port, LIMIT);
                    told(&supply_on(hosts[number], &world, "test", hosts.len(), LIMIT).unwrap())
                })
            })
            .collect();
        let own = told(&supply_on(hosts[0], &first, "test", hosts.len(), LIMIT).unwrap());
        let others = found.drain(..).map(|thread| thread.join().unwrap());
        let all: Vec<_> = std::iter::once(own).chain(others).collect();
        let none = Vec::new;
        assert_eq!(all, [(0, vec![0, 2, 4]), (1, vec![1, 3]), (0, none()), (1, none()), (0, none()), (5, vec![5])]);
    }

    #[test]
    fn ranks_of_one_machine_are_on_one_host() {
        let here = here().unwrap();
        assert!(here.contains(" net:["), "{here}");
        assert_eq!(super::here().unwrap(), here);
    }

    #[test]
    fn a_rank_that_does_not_connect_is_named() {
        let first = rank(0, 3, 0, Duration::from_millis(600));
        for number in [1, 2] {
            first.tell(&format!("host/test/{number}"), b"a").unwrap();
        }
        let message = supply_on("a", &first, "test", 3, LIMIT).err().unwrap().to_string();
        assert!(message.starts_with("ranks 1 and 2 did not connect to the loader of rank 0 within 600ms"), "{message}");
    }
}
