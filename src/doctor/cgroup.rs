//! The control groups that this process is in: what a container, a batch system or the system's own services let it have.

use super::Machine;
use std::path::{Path, PathBuf};

/// Where control groups are shown.
const GROUPS: &str = "/sys/fs/cgroup";
/// Where the second version is shown on machines that have both.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// In the first version no limit is a number near to the largest.
const NO_LIMIT: u64 = 1 << 60;

/// The processors that the process may keep busy; `None` without a limit.
pub fn processors(machine: &Machine) -> Option<f64> {
    let second = |folder: &Path| {
        let text = machine.text(folder.join("cpu.max"))?;
        let (quota, period) = text.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    };
    let first = |folder: &Path| {
        // -1, which is no number here, without a limit.
        let quota = machine.number(folder.join("cpu.cfs_quota_us"))?;
        Some(quota as f64 / machine.number(folder.join("cpu.cfs_period_us"))? as f64)
    };
    least(machine, "cpu", first, second)
}

/// The bytes of memory that the process may hold; `None` without a limit.
pub fn memory(machine: &Machine) -> Option<u64> {
    let second = |folder: &Path| machine.number(folder.join("memory.max"));
    let first = |folder: &Path| machine.number(folder.join("memory.limit_in_bytes")).filter(|&limit| limit < NO_LIMIT);
    least(machine, "memory", first, second)
}

/// The least limit of the process's groups, each of which lies in others whose limits hold too.
fn least<T: PartialOrd>(
    machine: &Machine,
    controller: &str,
    first: impl Fn(&Path) -> Option<T>,
    second: impl Fn(&Path) -> Option<T>,
) -> Option<T> {
    let limits = |folders: Vec<PathBuf>, limit: &dyn Fn(&Path) -> Option<T>| -> Vec<T> {
        folders.iter().filter_map(|folder| limit(folder)).collect()
    };
    let mut found = limits(folders(machine, controller), &first);
    found.extend(limits(folders(machine, ""), &second));
    found.into_iter().reduce(|least, limit| if limit < least { limit } else { least })
}

/// The folders of the process's group for a controller and of the groups that it lies in; the second version has one group
/// for all controllers, without a name. In a container the name may be one of the host's, of which only the root is shown.
fn folders(machine: &Machine, controller: &str) -> Vec<PathBuf> {
    let told = machine.text("/proc/self/cgroup").unwrap_or_default();
    let own = told.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    });
    let root = match controller {
        "" if machine.exists(Path::new(GROUPS).join("cgroup.controllers")) => PathBuf::from(GROUPS),
        "" => PathBuf::from(UNIFIED),
        named => Path::new(GROUPS).join(named),
    };
    let own = root.join(own.unwrap_or_default());
    own.ancestors().take_while(|folder| folder.starts_with(&root)).map(Path::to_owned).collect()
}
