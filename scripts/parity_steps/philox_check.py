"""Whether the twin draws what src/random.rs draws: the same known values as in that file's tests."""

from __future__ import annotations

import numpy

from .philox import DROPOUT, SHUFFLE, Stream, philox

# Random123's tests/kat_vectors, the lines `philox4x32 10`: counter, key, answer.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# Index, word, uniform and normal draw of one stream.
LAID_OUT = [
    (0, 0x556EA132, 0.33371932490263134, -0.6397168093600064),
    (1, 0xADCF0107, 0.6789398806868121, -1.336290526649744),
    (2, 0xA2BA677C, 0.635656803031452, 0.7874876631769839),
    (3, 0xE7B11B1C, 0.9050461716251448, -0.5348421623904389),
    (4, 0xDD0B7B68, 0.8634564523817971, -0.0011369493228199736),
    ((1 << 35) + 2, 0xC218F534, 0.7581933262990788, 0.3895190079482875),
]


def differences() -> list[str]:
    """A sentence for each value that is not the known one."""
    found = []
    for counter, key, answer in KNOWN:
        words = [int(word[0]) for word in philox([numpy.array([word], dtype=numpy.uint64) for word in counter], key)]
        if words != list(answer):
            found.append(f"philox of {counter} with {key} is {words}, not {answer}")
    stream = Stream(0x0123456789ABCDEF, DROPOUT, 7, 0x123456789ABC)
    for index, word, uniform, normal in LAID_OUT:
        drawn = (int(stream.words(index, 1)[0]), float(stream.uniform(index, 1)[0]), float(stream.normal(index, 1)[0]))
        if drawn[:2] != (word, uniform) or abs(drawn[2] - normal) > 1e-14:
            found.append(f"draw {index} is {drawn}, not {(word, uniform, normal)}")
    for first in range(5):
        one_by_one = [stream.normal(index, 1)[0] for index in range(first, first + 7)]
        if not numpy.array_equal(stream.normal(first, 7), one_by_one):
            found.append(f"seven normal draws from {first} on are not the seven single ones")
    order = Stream(1, SHUFFLE, 0, 2).permutation(10).tolist()
    if order != [9, 7, 4, 8, 1, 3, 6, 0, 5, 2]:
        found.append(f"the permutation of ten is {order}")
    return found
