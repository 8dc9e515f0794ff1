"""Laws of a mixture: weights, permutations, ranks and resuming."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.mixture import WEIGHTINGS, Mixture, shares

sizes = st.lists(st.integers(1, 400), min_size=1, max_size=12)
seeds = st.integers(0, 2**31)
weightings = st.sampled_from(WEIGHTINGS)
temperatures = st.floats(0.2, 20.0)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    return Mixture.of(draw(sizes), draw(weightings), temperature=draw(temperatures), seed=draw(seeds))


@given(sizes, weightings, temperatures)
def test_shares_sum_to_one_and_follow_the_sizes(sizes: list[int], weighting: str, temperature: float) -> None:
    found = shares(sizes, weighting, temperature)
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)
    by_size = [found[i] for i in np.argsort(sizes, kind="stable")]
    assert by_size == sorted(by_size)


def test_temperature_lies_between_size_and_equal() -> None:
    assert shares([900, 100], "temperature", 1.0) == shares([900, 100], "size")
    assert shares([900, 100], "temperature", 1e6) == pytest.approx(shares([900, 100], "equal"), abs=1e-5)


@pytest.mark.parametrize(
    ("sizes", "weighting", "temperature"),
    [([], "size", 1.0), ([3, 0], "size", 1.0), ([3], "bogus", 1.0), ([3], "temperature", 0.0)],
)
def test_what_cannot_be_mixed_is_refused(sizes: list[int], weighting: str, temperature: float) -> None:
    with pytest.raises(ValueError):
        shares(sizes, weighting, temperature)


@given(mixtures(), st.integers(0, 5000), st.integers(1, 3000))
def test_any_window_holds_the_weights(mixture: Mixture, start: int, length: int) -> None:
    """Tighter than drawing at random: the spread of a binomial draw is never exceeded by more than a few rows."""
    counts = Counter(mixture.datasets_of(mixture.rows(start, start + length)).tolist())
    for dataset, share in enumerate(mixture.shares):
        slack = 1 + 2 * len(mixture.sizes) * share
        assert abs(counts[dataset] - length * share) <= slack + 1e-9
        spread = math.sqrt(length * share * (1 - share))
        assert abs(counts[dataset] - length * share) <= 4 * spread + slack


@given(mixtures(), st.integers(1, 16), st.integers(1, 8), st.integers(0, 50))
def test_ranks_have_nearly_the_same_mix(mixture: Mixture, batch: int, processes: int, step: int) -> None:
    first = step * batch * processes
    shown = mixture.datasets_of(mixture.rows(first, first + batch * processes)).reshape(processes, batch)
    for dataset, share in enumerate(mixture.shares):
        of_ranks = (shown == dataset).sum(axis=1)
        assert of_ranks.max() - of_ranks.min() <= 2 * (1 + 2 * len(mixture.sizes) * share)


@given(mixtures(), st.integers(1, 6))
def test_every_row_comes_before_any_comes_again(mixture: Mixture, rounds: int) -> None:
    rows = mixture.rows(0, rounds * sum(mixture.sizes))
    datasets, first = mixture.datasets_of(rows), 0
    for dataset, size in enumerate(mixture.sizes):
        drawn = rows[datasets == dataset] - first
        for start in range(0, len(drawn), size):
            of_round = drawn[start : start + size]
            assert len(set(of_round.tolist())) == len(of_round)
            assert 0 <= of_round.min() and of_round.max() < size
        first += size


@given(sizes, seeds, st.integers(0, 4))
def test_by_size_an_epoch_is_every_row_once(sizes: list[int], seed: int, epoch: int) -> None:
    rows, total = Mixture.of(sizes, seed=seed), sum(sizes)
    assert sorted(rows.rows(epoch * total, (epoch + 1) * total).tolist()) == list(range(total))


@given(mixtures(), st.lists(st.integers(0, 4000), min_size=2, max_size=4))
def test_a_position_depends_on_the_seed_alone(mixture: Mixture, cuts: list[int]) -> None:
    """However the sequence is cut, by batches or by an interruption, it is the same sequence."""
    cuts = sorted(cuts)
    pieces = [mixture.rows(a, b) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), mixture.rows(0, cuts[-1])[cuts[0] :])


def test_rounds_and_seeds_differ() -> None:
    one, other = Mixture.of([50, 20], seed=1), Mixture.of([50, 20], seed=2)
    assert one.rows(0, 70).tolist() != other.rows(0, 70).tolist()
    assert one.rows(0, 70).tolist() != one.rows(70, 140).tolist()


def test_steps_of_an_epoch_are_whole() -> None:
    assert Mixture.of([10, 7], seed=0).steps_per_epoch(4) == 5
    assert Mixture.of([10, 6], seed=0).steps_per_epoch(4) == 4
