from nndet_psma.evaluation.statistics.multiple_tests import bonferroni, holm


def test_by_hand():
    p = [0.01, 0.04, 0.03, 0.5]
    assert bonferroni(p) == [0.04, 0.16, 0.12, 1.0]
    # sorted 0.01 x 4, 0.03 x 3, 0.04 x 2 (at least 0.09), 0.5 x 1
    assert holm(p) == [0.04, 0.09, 0.09, 0.5]
    assert holm([]) == bonferroni([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
