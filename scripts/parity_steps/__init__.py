"""What `scripts/parity` does: PyTorch trains the shipped models on the numbers that mpt draws, and what it finds is
what tests/mpt/parity.rs expects.

`command` runs in any Python and brings PyTorch; the others run in the environment that holds it. Read `expectations`
first, then `jobs` (what is trained), `training` and `network` (how: PyTorch's modules, autograd and SGD), `record`
(what is kept), `philox` and `examples` (mpt's random numbers and data in numpy).
`exchange` is about weights that go from one to the other.
"""
