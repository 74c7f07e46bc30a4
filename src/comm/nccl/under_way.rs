//! A call that is under way, and how the values of tensors lie while they travel.

use super::buffers::Buffer;
use crate::clock::Moment;
use crate::comm::Form;
use crate::comm::call::Signature;
use crate::error::Result;
use crate::torch::channels_last;
use cudarc::driver::CudaEvent;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A call that was started and not finished.
pub(super) struct Started {
    pub(super) signature: Signature,
    pub(super) arrived: Moment,
    /// What was put in. Its copy to the buffer may be yet to come, so that it is given up only when the call is finished:
    /// of a call that is not, the GPU may read it as long as the process lives.
    pub(super) kept: ManuallyDrop<Vec<Tensor>>,
    /// The end of NCCL's work; `None` where nothing travels.
    pub(super) travelled: Option<Arc<CudaEvent>>,
    /// What is sent, and what is received; none where nothing travels.
    pub(super) buffers: Vec<Buffer>,
    pub(super) result: Outcome,
}

/// What the end of a call makes of what came.
pub(super) enum Outcome {
    /// The tensors put in, as they are: a group of one.
    Own(Vec<Option<Tensor>>),
    /// As many tensors of one form, side by side in the buffer.
    Alike { form: Form, count: usize },
    /// From each rank something of its own form, each at its place in the buffer, and what the rank kept for itself.
    ByRank { forms: Vec<Option<(usize, Form)>>, own: Option<Tensor> },
}

/// `count` tensors of a form, views of one piece of memory, which is the first of the pair. Values travel densely:
/// images with the channels of a pixel side by side, as the layers leave them, all else row by row.
pub(super) fn empty(form: &Form, count: usize) -> Result<(Tensor, Vec<Tensor>)> {
    let size = form.count() as i64;
    let all = Tensor::f_empty([count as i64 * size], (form.kind, form.device))?;
    let view = |place: usize| -> Result<Tensor> {
        let values = all.f_narrow(0, place as i64 * size, size)?;
        match form.shape[..] {
            [examples, channels, height, width] => {
                Ok(values.f_view([examples, height, width, channels])?.f_permute([0, 3, 1, 2])?)
            }
            _ => Ok(values.f_view(&form.shape[..])?),
        }
    };
    let views = (0..count).map(view).collect::<Result<Vec<_>>>()?;
    Ok((all, views))
}

/// The tensor with its values as they travel; itself, where they lie so already.
pub(super) fn dense(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dim() {
        4 => channels_last(tensor),
        _ => Ok(tensor.f_contiguous()?),
    }
}

impl Started {
    /// Whether tensors in the machine's own memory take part.
    pub(super) fn to_host(&self) -> bool {
        let device = match &self.result {
            Outcome::Own(_) => return false,
            Outcome::Alike { form, .. } => Some(form.device),
            Outcome::ByRank { forms, .. } => forms.iter().flatten().map(|(_, form)| form.device).next(),
        };
        device.or_else(|| self.kept.first().map(Tensor::device)) == Some(Device::Cpu)
    }
}
