"""mpt's loader of image files beside torchvision's, on the same JPEG files and the same machine.

`command` says in which order things happen, `contestants` who takes part and how each is called, `told` what is printed.
`photographs` makes the files and `torchvision_loader` is the peer: both run by themselves under a Python that has
torchvision.
"""
