//! `ncclConfig_t` of NCCL 2.29, which a program must fill as `NCCL_CONFIG_INITIALIZER` does before it changes a field.

use super::result::{Failure, NcclResult};
use super::unique_id::UniqueId;
use std::ffi::c_char;

/// NCCL's version that is simulated: 2.29.7.
pub const VERSION: i32 = 22_907;

/// `NCCL_API_MAGIC`.
const MAGIC: u32 = 0xCAFE_BEEF;

/// `NCCL_CONFIG_UNDEF_INT`.
const UNDEFINED: i32 = i32::MIN;

/// The struct, field by field as in `nccl.h`.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Config {
    pub size: usize,
    pub magic: u32,
    pub version: u32,
    pub blocking: i32,
    pub cga_cluster_size: i32,
    pub min_ctas: i32,
    pub max_ctas: i32,
    pub net_name: *const c_char,
    pub split_share: i32,
    pub traffic_class: i32,
    pub comm_name: *const c_char,
    pub collnet_enable: i32,
    pub cta_policy: i32,
    pub shrink_share: i32,
    pub nvls_ctas: i32,
    pub channels_per_net_peer: i32,
    pub nvlink_centric_sched: i32,
    pub graph_usage_mode: i32,
    pub num_rma_ctx: i32,
}

/// A place with a configuration, as C functions are given one. Only C callers can make one, and they vouch for it: it is
/// null or points to a struct of as many bytes as the struct's first field says.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct ConfigPlace(*const Config);

impl ConfigPlace {
    /// Whether the communicator blocks; the struct is checked.
    pub fn is_blocking(self) -> Result<bool, Failure> {
        if self.0.is_null() {
            return Ok(true);
        }
        // SAFETY: the caller vouches for at least the field that says how many bytes there are.
        let size = unsafe { (&raw const (*self.0).size).read_unaligned() };
        if size != size_of::<Config>() {
            return Err(wrong(format!(
                "its size is {size}, but the struct of NCCL {VERSION} has {} bytes",
                size_of::<Config>()
            )));
        }
        // SAFETY: as many bytes as the caller vouches for.
        unsafe { self.0.read_unaligned() }.is_blocking()
    }
}

impl Config {
    fn is_blocking(&self) -> Result<bool, Failure> {
        if self.magic != MAGIC {
            return Err(wrong(format!("its magic is {:#x}, not {MAGIC:#x}: it was not initialized", self.magic)));
        }
        if self.version != VERSION as u32 {
            return Err(wrong(format!("its version is {}, but this is NCCL {VERSION}", self.version)));
        }
        for (name, value, allowed) in self.numbers() {
            if value != UNDEFINED && !allowed.contains(&value) {
                return Err(wrong(format!(
                    "{name} is {value}: give {} to {}, or NCCL_CONFIG_UNDEF_INT ({UNDEFINED})",
                    allowed.start(),
                    allowed.end()
                )));
            }
        }
        let both_given = self.min_ctas != UNDEFINED && self.max_ctas != UNDEFINED;
        if both_given && self.min_ctas > self.max_ctas {
            return Err(wrong(format!("minCTAs is {}, more than maxCTAs, {}", self.min_ctas, self.max_ctas)));
        }
        Ok(self.blocking != 0)
    }

    /// The numbers with what each may be.
    fn numbers(&self) -> [(&'static str, i32, std::ops::RangeInclusive<i32>); 14] {
        let (flag, any, count) = (0..=1, 0..=i32::MAX, 1..=i32::MAX);
        [
            ("blocking", self.blocking, flag.clone()),
            ("cgaClusterSize", self.cga_cluster_size, 0..=8),
            ("minCTAs", self.min_ctas, count.clone()),
            ("maxCTAs", self.max_ctas, count.clone()),
            ("splitShare", self.split_share, flag.clone()),
            ("trafficClass", self.traffic_class, any),
            ("collnetEnable", self.collnet_enable, flag.clone()),
            ("CTAPolicy", self.cta_policy, 0..=3),
            ("shrinkShare", self.shrink_share, flag.clone()),
            ("nvlsCTAs", self.nvls_ctas, count.clone()),
            ("nChannelsPerNetPeer", self.channels_per_net_peer, 1..=32),
            ("nvlinkCentricSched", self.nvlink_centric_sched, flag),
            ("graphUsageMode", self.graph_usage_mode, 0..=2),
            ("numRmaCtx", self.num_rma_ctx, count),
        ]
    }
}

fn wrong(reason: String) -> Failure {
    Failure::broken_rule("ncclConfig_t", NcclResult::INVALID_ARGUMENT, reason)
}

// The layout that programs are compiled against.
const _: () = assert!(size_of::<Config>() == 88 && size_of::<UniqueId>() == 128);
