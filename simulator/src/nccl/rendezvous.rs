//! How the ranks of a communicator find each other: through sockets in the folder, named after the unique id's token.
//! Every rank is connected with every other, and each tells the other who it is.

use super::link::{Link, write_all};
use super::result::{Failure, NcclResult};
use crate::environment::settings;
use crate::sync::lock;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to wait before looking again for a rank that has not come yet.
const PAUSE: Duration = Duration::from_millis(1);

/// Who a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its rank.
    pub rank: usize,
    /// How many ranks it counts on.
    pub size: usize,
    /// Its device.
    pub device: usize,
}

/// What came of it: the ranks' devices, and the connections to the others.
pub struct Met {
    /// By rank.
    pub devices: Vec<usize>,
    /// By rank; none to oneself.
    pub links: Vec<Option<Link>>,
}

struct Meeting<'a> {
    own: Identity,
    token: &'a str,
    /// Kept open: sockets are named through it, as the names of sockets may not be long.
    folder: File,
    is_cancelled: &'a AtomicBool,
}

/// The tokens that this process has used, with the rank.
static USED: Mutex<BTreeSet<(String, usize)>> = Mutex::new(BTreeSet::new());

/// Meets the other ranks; waits for them as long as it takes, or until it is cancelled.
pub fn meet(own: Identity, token: &str, is_cancelled: &AtomicBool) -> Result<Met, Failure> {
    let failed = |error: io::Error| {
        let folder = settings().folder.path().display();
        Failure::new(NcclResult::SYSTEM_ERROR, format!("rank {} cannot meet the others in {folder}: {error}", own.rank))
    };
    if !lock(&USED).insert((token.to_owned(), own.rank)) {
        return Err(own.broken("the unique id was used for another communicator already"));
    }
    let folder = settings().folder.made().and_then(File::open).map_err(failed)?;
    let meeting = Meeting { own, token, folder, is_cancelled };
    let listener = match UnixListener::bind(meeting.name(own.rank)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            return Err(own.broken("another rank of this number has come with the same unique id"));
        }
        bound => bound.map_err(failed)?,
    };
    let mut sockets: Vec<Option<(UnixStream, Identity)>> = (0..own.size).map(|_| None).collect();
    let met = meeting.connect(&mut sockets).and_then(|()| meeting.accept(&listener, &mut sockets));
    // The name is of no more use, whatever came of it.
    let _ = std::fs::remove_file(meeting.name(own.rank));
    met.map_err(|stop| match stop {
        Stop::Failure(failure) => failure,
        Stop::Error(error) => failed(error),
    })?;
    own.check_devices(&sockets)?;
    let devices = sockets.iter().map(|met| met.as_ref().map_or(own.device, |(_, identity)| identity.device)).collect();
    let links = sockets.into_iter().map(|met| met.map(|(socket, _)| Link::new(socket))).collect();
    Ok(Met { devices, links })
}

/// Why ranks did not meet.
enum Stop {
    Failure(Failure),
    Error(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Error(error)
    }
}

impl Meeting<'_> {
    fn name(&self, rank: usize) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{}.{rank}", self.folder.as_raw_fd(), self.token))
    }

    /// Connects with the ranks below.
    fn connect(&self, sockets: &mut [Option<(UnixStream, Identity)>]) -> Result<(), Stop> {
        for (rank, place) in sockets.iter_mut().enumerate().take(self.own.rank) {
            let mut socket = loop {
                match UnixStream::connect(self.name(rank)) {
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                        self.pause()?;
                    }
                    connected => break connected?,
                }
            };
            write_all(&socket, &self.own.encode())?;
            let other = self.identity(&mut socket)?;
            self.own.check(other).map_err(Stop::Failure)?;
            *place = Some((socket, other));
        }
        Ok(())
    }

    /// Lets the ranks above connect.
    fn accept(&self, listener: &UnixListener, sockets: &mut [Option<(UnixStream, Identity)>]) -> Result<(), Stop> {
        listener.set_nonblocking(true)?;
        let mut missing = self.own.size - self.own.rank - 1;
        while missing > 0 {
            let mut socket = match listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pause()?;
                    continue;
                }
                accepted => accepted?.0,
            };
            socket.set_nonblocking(false)?;
            let other = self.identity(&mut socket)?;
            write_all(&socket, &self.own.encode())?;
            self.own.check(other).map_err(Stop::Failure)?;
            if let Some(place) = sockets.get_mut(other.rank) {
                *place = Some((socket, other));
            }
            missing -= 1;
        }
        Ok(())
    }

    /// Reads who the other is.
    fn identity(&self, socket: &mut UnixStream) -> Result<Identity, Stop> {
        let mut bytes = [0; 24];
        socket.set_read_timeout(Some(PAUSE))?;
        loop {
            match socket.read_exact(&mut bytes) {
                // The other sends all at once, so that nothing was read when it has not come.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => self.pause()?,
                read => break read?,
            }
        }
        socket.set_read_timeout(None)?;
        Ok(Identity::decode(bytes))
    }

    fn pause(&self) -> Result<(), Stop> {
        if self.is_cancelled.load(Ordering::Acquire) {
            return Err(Stop::Error(io::Error::other("the communicator was aborted")));
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

impl Identity {
    fn encode(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (place, number) in [self.rank, self.size, self.device].into_iter().enumerate() {
            bytes[8 * place..][..8].copy_from_slice(&(number as u64).to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; 24]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |place: usize| u64::from_ne_bytes(numbers[place]) as usize;
        Self { rank: number(0), size: number(1), device: number(2) }
    }

    /// The other counts on the same number of ranks.
    fn check(self, other: Self) -> Result<(), Failure> {
        if other.size == self.size {
            return Ok(());
        }
        Err(self.broken(&format!(
            "the ranks do not agree how many they are: {} here, {} on rank {}",
            self.size, other.size, other.rank
        )))
    }

    /// No device is there twice.
    fn check_devices(self, sockets: &[Option<(UnixStream, Self)>]) -> Result<(), Failure> {
        let mut all: Vec<Self> = sockets.iter().flatten().map(|&(_, identity)| identity).collect();
        all.push(self);
        all.sort_by_key(|identity| (identity.device, identity.rank));
        match all.windows(2).find(|pair| pair[0].device == pair[1].device) {
            None => Ok(()),
            Some(pair) => Err(self.broken(&format!(
                "ranks {} and {} are both on device {}: a device may be in a communicator only once",
                pair[0].rank, pair[1].rank, pair[0].device
            ))),
        }
    }

    fn broken(self, sentence: &str) -> Failure {
        Failure::broken_rule(
            format_args!("rank {}", self.rank),
            NcclResult::INVALID_USAGE,
            format!("ncclCommInitRank: {sentence}"),
        )
    }
}
