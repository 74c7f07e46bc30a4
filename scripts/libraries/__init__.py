"""PyTorch, safetensors, JAX and TensorBoard, which mpt is compared with: `environment` brings them, and each has its pins beside it.

mpt itself needs none of them. `scripts/parity` takes PyTorch and safetensors, `scripts/compare-peers` PyTorch and JAX, and a test of the run
log TensorBoard.
"""
