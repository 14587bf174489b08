"""Subgroups of several hospitals: sums added by role, in order, strangers refused."""

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats import OverlapSums, PairCounts, merge_all
from server.judgements import Overlap, Ranking
from server.subgroups import merged


def pairs(seed: int, size: int = 40) -> PairCounts:
    rng = np.random.default_rng(seed)
    months, event = rng.exponential(20, size), rng.random(size) < 0.7
    return PairCounts.of(
        months, event, rng.normal(size=size), tau_months=60, replicates=20, rng=rng
    )


def overlap(seed: int, size: int = 12) -> OverlapSums:
    return OverlapSums.of(np.random.default_rng(seed).uniform(0.6, 0.9, (size, 3, 2)))


def test_hospitals_of_a_role_are_one_body_of_patients() -> None:
    documents = {
        "prognosis": {
            "a": {"sex": {"female": pairs(1).to_dict()}},
            "b": {"sex": {"female": pairs(2).to_dict(), "male": pairs(3).to_dict()}},
            "far": {"sex": {"female": pairs(4).to_dict()}},
        },
        "segment": {"a": {}, "b": {"sex": {"male": overlap(5).to_dict()}}},
    }
    rows = {(row.attribute, row.group): row for row in merged("train", ("a", "b"), documents)}
    assert list(rows) == [("sex", "female"), ("sex", "male")]
    female, male = rows["sex", "female"], rows["sex", "male"]
    assert female.network == Ranking.of(merge_all([pairs(1), pairs(2)]))
    assert (female.hospitals, male.hospitals, female.overlap) == (2, 1, None)
    assert male.overlap == Overlap.of(overlap(5)) and male.regression is None


def test_rows_stand_in_the_groups_own_order_whoever_answered_first() -> None:
    one = {"age": {">=75": pairs(1).to_dict(), "<40": pairs(2).to_dict()}}
    two = {"vendor": {"ge": pairs(3).to_dict()}}
    rows = merged("external", ("a", "b"), {"regression": {"b": two, "a": one}})
    again = merged("external", ("a", "b"), {"regression": {"a": one, "b": two}})
    assert rows == again
    assert [row.group for row in rows] == ["ge", "<40", ">=75"]


def test_a_hospital_that_tells_nothing_changes_nothing() -> None:
    sent = {"a": {"sex": {"male": pairs(1).to_dict()}}}
    alone = merged("train", ("a",), {"prognosis": sent})
    assert merged("train", ("a", "b"), {"prognosis": sent | {"b": {}}}) == alone
    assert merged("train", ("a", "b"), {"prognosis": sent}) == alone
    assert merged("train", (), {}) == ()


@pytest.mark.parametrize(
    "document",
    [{"religion": {}}, {"age": {"42": pairs(1).to_dict()}}, {"age": []}, ["age"], {"sex": None}],
)
def test_a_group_that_does_not_exist_is_refused(document: object) -> None:
    with pytest.raises(PayloadError, match="a judged a group of patients that does not exist"):
        merged("train", ("a",), {"prognosis": {"a": document}})


def test_sums_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(PayloadError, match="OverlapSums: key"):
        merged("train", ("a",), {"segment": {"a": {"sex": {"male": pairs(1).to_dict()}}}})
