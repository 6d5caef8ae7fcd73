"""What is done to valid bytes. Hypothesis chooses a kind of damage, and it is done at every place."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from tests.fuzz.corpus import CONTEXTS, Made
from tests.streams import SMALL_SEGMENT_BYTES, parts_of

Family = Callable[[bytes, bytes], Iterator[bytes]]
"""All that comes of some bytes by one kind of damage; of another token or stream, where that is needed."""


class Input(NamedTuple):
    """What a cipher is asked to open."""

    cipher: int
    data: bytes
    context: bytes
    read_size: int


class Case(NamedTuple):
    """What Hypothesis chooses."""

    base: int
    other: int
    before: Family  # of which one is taken
    before_place: int
    family: Family
    context: int
    cipher: int
    read_size: int


# --- kinds of damage ------------------------------------------------------------------------------


def unharmed(data: bytes, other: bytes) -> Iterator[bytes]:
    """As they are."""
    yield data


def changed(mask: int, length: int) -> Family:
    """At every place so many bytes changed."""

    def family(data: bytes, other: bytes) -> Iterator[bytes]:
        for place in range(len(data)):
            hit = data[place : place + length]
            yield data[:place] + bytes(one ^ mask for one in hit) + data[place + length :]

    return family


def cut(data: bytes, other: bytes) -> Iterator[bytes]:
    """Of every length."""
    return (data[:length] for length in range(len(data)))


def shortened(count: int) -> Family:
    """At every place so many bytes left out."""
    return lambda data, other: (data[:place] + data[place + count :] for place in range(len(data)))


def lengthened(more: bytes) -> Family:
    """At every place something put in."""
    return lambda data, other: (data[:place] + more + data[place:] for place in range(len(data) + 1))


def spliced(shift: int) -> Family:
    """At every place the other's from there on, or from a little before or after."""
    return lambda data, other: (data[:place] + other[max(place + shift, 0) :] for place in range(len(data)))


def of_version(numbers: list[int]) -> Family:
    """Under other version numbers."""
    return lambda data, other: (data[:1] + number.to_bytes(4) + data[5:] for number in numbers)


def of_prefix(firsts: bytes) -> Family:
    """With other first bytes."""
    return lambda data, other: (bytes([first]) + data[1:] for first in firsts)


def reordered(data: bytes, other: bytes) -> Iterator[bytes]:
    """Segments in all orders, left out, doubled, and the other's."""
    if min(len(data), len(other)) < 45:
        return
    (header, *parts), (_, *others) = parts_of(data), parts_of(other)
    for order in itertools.permutations(range(min(len(parts), 4))):
        yield header + b"".join(parts[place] for place in order)
    for one, two in itertools.product(range(len(parts)), range(len(others))):
        yield header + b"".join([*parts[:one], *parts[one + 1 :]])
        yield header + b"".join([*parts[: one + 1], *parts[one:]])
        yield header + b"".join([*parts[:one], others[two], *parts[one + 1 :]])


def made_up(head: bytes, tail: bytes) -> Family:
    """Nothing of a valid one, in every length."""
    return lambda data, other: (head + tail[:length] for length in range(len(tail) + 1))


_HEADS = (b"", b"\x01\x00\x00\x00\x01", b"\x02\x00\x00\x00\x01\x28", b"\x02\x00\x00\x00\x02\x28")
_VERSIONS = st.sampled_from((0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 1)) | st.integers(0, 2**32 - 1)
_OF_BODIES: st.SearchStrategy[Family] = st.one_of(
    st.builds(changed, st.integers(1, 255), st.sampled_from((1, 1, 1, 2, 12, 16))),
    st.just(cut),
    st.integers(1, 2 * SMALL_SEGMENT_BYTES).map(shortened),
    st.binary(min_size=1, max_size=SMALL_SEGMENT_BYTES + 20).map(lengthened),
    st.integers(-20, 20).map(spliced),
    st.just(reordered),
)
_OF_HEADERS: st.SearchStrategy[Family] = st.one_of(
    st.just(unharmed),
    st.lists(_VERSIONS, min_size=1, max_size=5).map(of_version),
    st.binary(min_size=1, max_size=5).map(of_prefix),
    st.builds(made_up, st.sampled_from(_HEADS), st.binary(max_size=100)),
)


def cases(made: int) -> st.SearchStrategy[Case]:
    """Cases over so many valid tokens and streams, most of them for their own cipher and context."""
    often_0 = st.integers(-8, 7).map(lambda number: max(number, 0))
    of_made = st.integers(0, made - 1)
    before = st.one_of(st.just(unharmed), st.just(unharmed), _OF_BODIES)
    family = st.one_of(_OF_BODIES, _OF_HEADERS)
    sizes = st.sampled_from((1, 7, 100, 1000))
    places = st.integers(0, 2**16)
    return st.builds(Case, of_made, of_made, before, places, family, often_0, often_0, sizes)


def inputs_of(case: Case, made: Sequence[Made], ciphers: int) -> Iterator[Input]:
    """The inputs of a case. The valid one comes first, so that what is kept of it is warm; then it is tried
    in every wrong place, and then damaged."""
    base, other = made[case.base], made[case.other].data
    contexts = (base.context, base.context + b"\x00", base.context[:-1] or b"x", *CONTEXTS)
    for context in contexts:
        yield Input(base.cipher, base.data, context, case.read_size)
    for shift in range(1, ciphers):
        yield Input((base.cipher + shift) % ciphers, base.data, base.context, case.read_size)
    context = contexts[case.context % len(contexts)]
    cipher = (base.cipher + case.cipher) % ciphers
    # With another header, all of them would be refused for that alone.
    befores = [one for one in case.before(base.data, other) if one[:5] == base.data[:5]] or [base.data]
    for data in case.family(befores[case.before_place % len(befores)], other):
        yield Input(cipher, data, context, case.read_size)
