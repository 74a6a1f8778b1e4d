"""One function over many cases."""

from __future__ import annotations

import os

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.workers import map_cases


def _double(number):
    if number == 13:
        raise UserError("unlucky", found="13")
    return 2 * number


def test_order_and_errors_here():
    assert map_cases(_double, [3, 1, 2]) == [6, 2, 4]
    with pytest.raises(UserError, match="unlucky"):
        map_cases(_double, [1, 13])


def test_order_and_errors_of_workers():
    assert map_cases(_double, [3, 1, 2], num_processes=2) == [6, 2, 4]
    with pytest.raises(UserError, match="unlucky; found 13"):
        map_cases(_double, [1, 13], num_processes=2)


def test_a_killed_worker_is_explained():
    with pytest.raises(UserError, match=r"killed.*fewer processes"):
        map_cases(os._exit, [9, 9], num_processes=2)
