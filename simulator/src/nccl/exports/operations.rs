//! Groups and operations.

use crate::boundary::call;
use crate::nccl::group;
use crate::nccl::operation::{Kind, Request};
use crate::nccl::result::NcclResult;

/// `ncclGroupStart`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> NcclResult {
    call("ncclGroupStart", |_| {
        group::start();
        Ok(())
    })
}

/// `ncclGroupEnd`
#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> NcclResult {
    call("ncclGroupEnd", |_| group::end())
}

/// Issues an operation.
fn issue(name: &'static str, request: Request, communicator: u64, stream: u64) -> NcclResult {
    call(name, |line| {
        line.address("send", request.send).address("receive", request.receive).number("count", request.count);
        line.number("type", request.datatype).address("communicator", communicator).address("stream", stream);
        if let Some(peer) = request.peer {
            line.number("peer", peer);
        }
        group::issue(name, communicator, &request, stream)
    })
}

/// `ncclAllReduce`
#[unsafe(no_mangle)]
pub extern "C" fn ncclAllReduce(
    send: u64,
    receive: u64,
    count: usize,
    datatype: u32,
    reduction: u32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let reduction = Some(reduction);
    let request = Request { kind: Kind::AllReduce, send, receive, count, datatype, reduction, peer: None };
    issue("ncclAllReduce", request, communicator, stream)
}

/// `ncclAllGather`
#[unsafe(no_mangle)]
pub extern "C" fn ncclAllGather(
    send: u64,
    receive: u64,
    count: usize,
    datatype: u32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let request = Request { kind: Kind::AllGather, send, receive, count, datatype, reduction: None, peer: None };
    issue("ncclAllGather", request, communicator, stream)
}

/// `ncclReduceScatter`
#[unsafe(no_mangle)]
pub extern "C" fn ncclReduceScatter(
    send: u64,
    receive: u64,
    count: usize,
    datatype: u32,
    reduction: u32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let reduction = Some(reduction);
    let request = Request { kind: Kind::ReduceScatter, send, receive, count, datatype, reduction, peer: None };
    issue("ncclReduceScatter", request, communicator, stream)
}

/// `ncclBroadcast`
#[unsafe(no_mangle)]
pub extern "C" fn ncclBroadcast(
    send: u64,
    receive: u64,
    count: usize,
    datatype: u32,
    root: i32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let peer = Some(root);
    let request = Request { kind: Kind::Broadcast, send, receive, count, datatype, reduction: None, peer };
    issue("ncclBroadcast", request, communicator, stream)
}

/// `ncclReduce`
#[unsafe(no_mangle)]
pub extern "C" fn ncclReduce(
    send: u64,
    receive: u64,
    count: usize,
    datatype: u32,
    reduction: u32,
    root: i32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let (reduction, peer) = (Some(reduction), Some(root));
    let request = Request { kind: Kind::Reduce, send, receive, count, datatype, reduction, peer };
    issue("ncclReduce", request, communicator, stream)
}

/// `ncclSend`
#[unsafe(no_mangle)]
pub extern "C" fn ncclSend(
    send: u64,
    count: usize,
    datatype: u32,
    peer: i32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let peer = Some(peer);
    let request = Request { kind: Kind::Send, send, receive: 0, count, datatype, reduction: None, peer };
    issue("ncclSend", request, communicator, stream)
}

/// `ncclRecv`
#[unsafe(no_mangle)]
pub extern "C" fn ncclRecv(
    receive: u64,
    count: usize,
    datatype: u32,
    peer: i32,
    communicator: u64,
    stream: u64,
) -> NcclResult {
    let peer = Some(peer);
    let request = Request { kind: Kind::Receive, send: 0, receive, count, datatype, reduction: None, peer };
    issue("ncclRecv", request, communicator, stream)
}
