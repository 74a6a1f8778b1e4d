"""Contours to voxels: by hand, against a slow reference, and what is refused."""

import numpy as np
import pytest
from dicom_samples import make_slices, make_structures, rectangle, save, uid
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.contours import ContourRules, even_odd, rasterise
from nndet_psma.dataset.dicom.rtstruct import read_rtstruct
from nndet_psma.dataset.dicom.structures import Roi, find_rois

GRID = Geometry((4, 10, 12), (3.0, 1.0, 2.0), origin=(0.0, 0.0, 0.0))
SQUARE = np.array([[1.5, 1.5], [1.5, 6.5], [6.5, 6.5], [6.5, 1.5]])  # (y, x): pixels 2..6


def roi(*contours, name="node", frame=""):
    points = tuple(np.array(contour, float).reshape(-1, 3) for contour in contours)
    return Roi(name, points, frame, frozenset(), "rs.dcm")


def slow_even_odd(polygons, shape):
    """For each pixel: the edges that a ray to the left crosses, one edge at a time; an edge at its centre counts."""
    near = 1e-6
    mask = np.zeros(shape, bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            for polygon in polygons:
                for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                    if (y0 - near <= y) != (y1 - near <= y):
                        at = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
                        mask[y, x] ^= at - near <= x
    return mask


def test_square_by_hand():
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    assert np.array_equal(even_odd([SQUARE], (9, 9)), expected)
    assert np.array_equal(even_odd([SQUARE[::-1]], (9, 9)), expected)  # the other way round


def test_contour_inside_another_is_a_hole():
    hole = np.array([[2.5, 2.5], [2.5, 4.5], [4.5, 4.5], [4.5, 2.5]])
    expected = np.zeros((9, 9), bool)
    expected[2:7, 2:7] = True
    expected[3:5, 3:5] = False
    assert np.array_equal(even_odd([SQUARE, hole], (9, 9)), expected)


def test_keyhole_is_a_hole():
    # outer square, then in through a slit of no width at y = 3.2, round the hole, and out again
    inner = [[2.5, 2.5], [2.5, 4.5], [4.5, 4.5], [4.5, 2.5], [3.2, 2.5]]
    keyhole = np.array(
        [[1.5, 1.5], [3.2, 1.5], [3.2, 2.5], *inner, [3.2, 1.5], [6.5, 1.5], [6.5, 6.5], [1.5, 6.5]]
    )
    hole = np.array(inner[:4])
    assert np.array_equal(even_odd([keyhole], (9, 9)), even_odd([SQUARE, hole], (9, 9)))


def test_triangle_by_hand():
    # right angle at (0, 0), legs of 4 pixels: row y reaches x < 4 - y (the border itself counts on the left only)
    triangle = np.array([[-0.5, -0.5], [-0.5, 4.0], [4.0, -0.5]])
    expected = [[x + y < 3.5 for x in range(5)] for y in range(5)]
    assert even_odd([triangle], (5, 5)).tolist() == expected


def test_part_outside_the_image_is_cut():
    wide = np.array([[-3.0, -5.0], [-3.0, 20.0], [20.0, 20.0], [20.0, -5.0]])
    assert even_odd([wide], (4, 6)).all()


coordinate = st.floats(-3, 12).map(lambda v: round(v, 2) + 0.003)  # never on the centre of a pixel
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8).map(
    lambda p: np.array(p, float)
)


@given(st.lists(polygon, min_size=1, max_size=3))
def test_any_polygons_equal_the_slow_reference(polygons):
    assert np.array_equal(even_odd(polygons, (9, 10)), slow_even_odd(polygons, (9, 10)))


@given(st.lists(st.floats(0, 9).map(lambda v: round(v, 1)), min_size=3, max_size=3), st.integers(0, 10**6))
def test_two_halves_share_no_pixel_and_leave_none_out(corners, seed):
    # a rectangle cut by a bent line, whose points often lie on centres of pixels
    rng = np.random.default_rng(seed)
    line = [
        (y, x)
        for y, x in zip((-0.5, *sorted(rng.integers(0, 9, 2)), 9.5), (corners[0], *corners), strict=True)
    ]
    left = np.array([(9.5, -0.5), (-0.5, -0.5), *line], float)
    right = np.array([(9.5, 9.5), (-0.5, 9.5), *line], float)
    both = even_odd([left], (10, 10)).astype(int) + even_odd([right], (10, 10))
    assert (both == 1).all()


def test_slices_and_millimetres():
    # x from 2.9 to 7.1 mm at 2 mm per pixel: centres 4 and 6 mm, pixels 2 and 3; y 0.5..2.5 mm: rows 1 and 2
    drawn = roi(rectangle(3.0, (0.5, 2.5), (2.9, 7.1)), rectangle(9.0, (0.5, 1.5), (2.9, 7.1)))
    mask = rasterise(drawn, GRID, ContourRules(gaps="separate")).mask
    expected = np.zeros(GRID.shape, bool)
    expected[1, 1:3, 2:4] = True
    expected[3, 1, 2:4] = True
    assert np.array_equal(mask, expected)


@given(st.integers(0, 10**6))
def test_turned_grid_gives_the_turned_mask(seed):
    from scipy.spatial.transform import Rotation

    turn = Rotation.random(random_state=seed).as_matrix()
    shift = np.random.default_rng(seed).normal(0, 100, 3)
    grid = Geometry(GRID.shape, GRID.spacing, tuple(shift), tuple(turn.ravel()))
    contours = [rectangle(3.0, (0.7, 4.2), (2.9, 13.1)), rectangle(6.0, (2.2, 8.4), (0.9, 9.3))]
    turned = [np.array(c).reshape(-1, 3) @ turn.T + shift for c in contours]
    assert np.array_equal(rasterise(roi(*turned), grid).mask, rasterise(roi(*contours), GRID).mask)


@pytest.mark.parametrize(
    ("contour", "message"),
    [
        (rectangle(4.5, (0.5, 2.5), (2.9, 7.1)), "'node' lie between or across the slices.*found 0.50"),
        ([0, 0, 0, 8, 0, 3, 8, 8, 3], "between or across"),
        (rectangle(12.0, (0.5, 2.5), (2.9, 7.1)), "1 of 1 contours of 'node' lie outside the image"),
        (rectangle(-3.0, (0.5, 2.5), (2.9, 7.1)), "outside the image"),
        (rectangle(3.0, (0.5, 2.5), (50, 60)), "outside the image"),
    ],
)
def test_contours_off_the_slices_are_refused(contour, message):
    with pytest.raises(UserError, match=f"rs.dcm: .*{message}"):
        rasterise(roi(contour), GRID)


def test_reading(tmp_path):
    rois = [
        (" CTV_LN ", [rectangle(0, (0, 1), (0, 1))]),
        ("Äußere [1]", []),
        ("", [rectangle(0, (0, 1), (0, 1))] * 2),
    ]
    found = read_rtstruct(save(make_structures(rois, series="7"), tmp_path / "rs"))
    assert [(r.name, len(r.contours)) for r in found.rois] == [("CTV_LN", 1), ("Äußere [1]", 0), ("", 2)]
    assert found.series == {uid("series", "7")}
    assert found.rois[0].contours[0].shape == (4, 3)
    assert found.rois[0].series == found.series


def test_points_and_open_lines_enclose_nothing(tmp_path):
    for kind in ("POINT", "OPEN_PLANAR"):
        file = save(make_structures([("a", [rectangle(0, (0, 1), (0, 1))])], kind=kind), tmp_path / kind)
        assert read_rtstruct(file).rois[0].contours == ()


def test_what_is_no_structure_set(tmp_path):
    image = save(make_slices(np.zeros((1, 2, 2)))[0], tmp_path / "ct")
    (tmp_path / "text").write_text("hello")
    for file in (image, tmp_path / "text"):
        with pytest.raises(UserError, match=f"{file.name}: no structure set"):
            read_rtstruct(file)


# ----- several contours on a slice


def square(low, high, z=3.0):
    return rectangle(z, (low, high), (2 * low, 2 * high))


def pixels(*ranges):
    expected = np.zeros(GRID.shape[1:], bool)
    for low, high in ranges:
        expected[low:high, low:high] = True
    return expected


def on_slice_1(*contours, xor=(), inner="ask"):
    drawn = Roi("node", roi(*contours).contours, "", frozenset(), "rs.dcm", roi(*xor).contours)
    return rasterise(drawn, GRID, ContourRules(inner=inner)).mask[1]


def test_the_same_contour_twice_is_one():
    assert np.array_equal(on_slice_1(square(0.5, 4.5), square(0.5, 4.5)), pixels((1, 5)))


def test_overlapping_contours_are_joined():
    assert np.array_equal(on_slice_1(square(0.5, 4.5), square(2.5, 6.5)), pixels((1, 5), (3, 7)))


def test_xor_contours_are_counted():
    ring = pixels((1, 7))
    ring[3:5, 3:5] = False
    assert np.array_equal(on_slice_1(xor=(square(0.5, 6.5), square(2.5, 4.5))), ring)
    # beside one of the other type
    assert np.array_equal(
        on_slice_1(square(2.5, 4.5), xor=(square(0.5, 6.5), square(2.5, 4.5))), pixels((1, 7))
    )


def test_contour_inside_another_must_be_explained():
    nested = (square(0.5, 6.5), square(2.5, 4.5), square(2.5, 4.5))
    with pytest.raises(
        UserError, match=r"'node' lies inside another one.* slice 2 of 4.*--inner-contours hole"
    ):
        on_slice_1(*nested)
    assert np.array_equal(on_slice_1(*nested, inner="filled"), pixels((1, 7)))
    ring = pixels((1, 7))
    ring[3:5, 3:5] = False
    assert np.array_equal(on_slice_1(*nested, inner="hole"), ring)


def test_island_in_a_hole_is_filled():
    nested = (square(0.5, 8.5), square(1.5, 6.5), square(2.5, 4.5))
    expected = pixels((1, 9)) & ~pixels((2, 7)) | pixels((3, 5))
    assert np.array_equal(on_slice_1(*nested, inner="hole"), expected)


def test_turning_the_contours_changes_nothing():
    assert np.array_equal(
        on_slice_1(square(2.5, 6.5), square(0.5, 4.5)), on_slice_1(square(0.5, 4.5), square(2.5, 6.5))
    )


# ----- damaged structure sets


def changed(tmp_path, change, rois=None):
    dataset = make_structures(rois or [("node", [square(0.5, 4.5)]), ("couch", [square(4.5, 6.5)] * 2)])
    change(dataset)
    return {roi.name: roi for roi in read_rtstruct(save(dataset, tmp_path / "rs")).rois}


def _set_data(value):
    def change(dataset):
        dataset.ROIContourSequence[1].ContourSequence[1].ContourData = value

    return change


def _set_kind(kind):
    def change(dataset):
        dataset.ROIContourSequence[1].ContourSequence[1].ContourGeometricType = kind

    return change


def _point_elsewhere(dataset):
    dataset.ROIContourSequence[1].ReferencedROINumber = 9


def _drop_data(dataset):
    del dataset.ROIContourSequence[1].ContourSequence[1].ContourData


def _drop_reference(dataset):
    del dataset.ROIContourSequence[1].ReferencedROINumber


def _drop_number(dataset):
    del dataset.StructureSetROISequence[1].ROINumber


def _drop_both(dataset):
    del dataset.ROIContourSequence[1].ReferencedROINumber, dataset.StructureSetROISequence[1].ROINumber


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop_data, r"contour 2 with 0 values of ContourData \(3006,0050\)"),
        (_set_data(None), r"contour 2 with 0 values of ContourData"),
        (_set_data([20.0, 20.0, 9.0]), "contour 2 with 3 values"),
        (
            _set_data(square(0.5, 4.5)[:9]),
            r"contour 2 with 3 points and NumberOfContourPoints \(3006,0046\) '4'",
        ),
        (_set_data([2e4, *square(0.5, 4.5)[1:]]), r"contour 2 with ContourData \(3006,0050\) '20000"),
        (_set_kind("CLOSED_PLANAQ"), r"contour 2 with ContourGeometricType \(3006,0042\) 'CLOSED_PLANAQ'"),
        (_set_kind(""), r"contour 2 with ContourGeometricType \(3006,0042\) missing"),
        (_point_elsewhere, r"contours whose ReferencedROINumber \(3006,0084\) is of no structure"),
        (_set_data([20.0, 20.0, 9.0, 25.0, 25.0, 9.0]), "contour 2 with 6 values"),
        (_set_data([float(k) for k in range(10)]), "contour 2 with 10 values"),
        (_drop_reference, r"contours whose ReferencedROINumber \(3006,0084\) is of no structure"),
        (_drop_number, r"ROINumber \(3006,0022\) missing"),
        (_drop_both, r"ROINumber \(3006,0022\) missing"),
    ],
)
def test_damaged_structure_matters_only_when_it_is_asked_for(tmp_path, change, message):
    rois = changed(tmp_path, change)
    assert rasterise(rois["node"], GRID).mask.any()
    with pytest.raises(UserError, match=f"rs: structure 'couch' cannot be drawn.*found {message}"):
        rasterise(rois["couch"], GRID)


def test_decimal_commas_in_contours(tmp_path):
    file = save(make_structures([("node", [square(1.125, 4.125)])]), tmp_path / "rs")
    file.write_bytes(file.read_bytes().replace(b"1.125", b"1,125"))
    [found] = read_rtstruct(file).rois
    assert found.fault == "contour 1 with ContourData (3006,0050) '1,125'"


def test_one_number_for_two_structures_is_refused(tmp_path):
    def change(dataset):
        for item in dataset.StructureSetROISequence:
            item.ROINumber = 3
        for item in dataset.ROIContourSequence:
            item.ReferencedROINumber = 3

    for found in changed(tmp_path, change).values():
        with pytest.raises(UserError, match=r"ROINumber \(3006,0022\) 3 for 2 structures"):
            rasterise(found, GRID)


def test_contours_in_several_items_are_joined(tmp_path):
    def change(dataset):
        dataset.ROIContourSequence[1].ReferencedROINumber = 1

    rois = changed(tmp_path, change, [("node", [square(0.5, 4.5)]), ("other", [square(2.5, 6.5)])])
    assert np.array_equal(rasterise(rois["node"], GRID).mask[1], pixels((1, 5), (3, 7)))
    assert rois["other"].is_empty


def test_kinds_of_contours_are_kept_apart(tmp_path):
    def change(dataset):
        for contour in dataset.ROIContourSequence[1].ContourSequence:
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"

    found = changed(tmp_path, change)["couch"]
    assert (len(found.contours), len(found.xor)) == (0, 2)
    assert not rasterise(found, GRID).mask.any()  # the same contour twice


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["PSMA+*"], ["PSMA+1", "psma+ left"]),
        (["ctv?ln"], ["CTV_LN", "CTV LN"]),
        (["Nodes", "CTV_LN"], ["CTV_LN", "Nodes"]),
        (["node"], []),
        ([], []),
    ],
)
def test_patterns(patterns, names):
    rois = [roi(name=n) for n in ("PSMA+1", "CTV_LN", "psma+ left", "CTV LN", "Nodes", "PSMA-3")]
    assert [r.name for r in find_rois(rois, patterns)] == names


def test_a_literal_name_comes_before_wildcards():
    rois = [roi(name=n) for n in ("Node*", "Node 1", "n[1]", "n1")]
    assert [r.name for r in find_rois(rois, ["node*"])] == ["Node*"]
    assert [r.name for r in find_rois(rois, ["n[1]"])] == ["n[1]"]
    assert [r.name for r in find_rois(rois, ["n?de*"])] == ["Node*", "Node 1"]
    assert [r.name for r in find_rois(rois, ["n[1]", "N1"])] == ["n[1]", "n1"]
