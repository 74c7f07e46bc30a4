"""Tests of the set-up: they need no network, no compiler and no libtorch."""
