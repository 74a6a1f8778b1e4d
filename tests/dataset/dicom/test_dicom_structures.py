"""Which structure sets count, and two versions of one."""

from pathlib import Path

import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.structures import Roi, StructureSet, check_one_set, choose_sets

POINTS = (np.zeros((3, 3)),)


def structures(name, *rois, label="RS", made=""):
    file = Path("study") / name
    made_rois = tuple(Roi(one, POINTS if one != "empty" else (), "", frozenset(), file) for one in rois)
    return StructureSet(file, name, frozenset(), made_rois, label, made)


OLD = structures("rs_old.dcm", "CTV", "node", "empty", made="20240106")
NEW = structures("rs_new.dcm", "ctv", "other", "empty", label="RS [2]", made="20240115")


def test_a_set_is_chosen_by_label_file_or_age():
    both = (OLD, NEW)
    assert choose_sets(both, None) == both
    assert choose_sets(both, "rs_new*") == (NEW,)
    assert choose_sets(both, "rs [2]") == (NEW,)  # literally, not as a wildcard
    assert choose_sets(both, "RS*") == both
    assert choose_sets(both, "newest") == (NEW,)
    assert choose_sets((), "newest") == ()
    with pytest.raises(
        UserError, match=r"no structure set called 'x'; found rs_new.dcm \(label 'RS \[2\]'\), rs_old"
    ):
        choose_sets(both, "x")
    with pytest.raises(UserError, match="which structure set is the newest is not told"):
        choose_sets((structures("a"), structures("b")), "newest")


def test_one_name_in_two_sets_is_asked_about():
    taken = [OLD.rois[0], NEW.rois[0]]
    with pytest.raises(
        UserError,
        match=r"study: 2 structure sets have a structure 'CTV'; .*found rs_new.dcm .*, rs_old.dcm .*--structure-set",
    ):
        check_one_set(taken, (OLD, NEW))
    check_one_set([OLD.rois[1], NEW.rois[1]], (OLD, NEW))
    check_one_set([OLD.rois[2], NEW.rois[2]], (OLD, NEW))  # empty ones are in every template
