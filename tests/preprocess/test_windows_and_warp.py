"""HU windows, 2.5D channels and the map between store and detector pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.boxes.box import boxes_from_instances, empty_boxes
from nndet_psma.preprocess.warp import plane_map, warp
from nndet_psma.preprocess.windows import ChannelSource, apply_window, slice_channels


def test_window_clips_and_ends_at_0_and_1() -> None:
    hu = np.array([-1024, -125, 50, 225, 3000], dtype=np.int16)
    scaled = apply_window(hu, -125.0, 225.0)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_channels_come_source_by_source_from_lower_to_upper_slice() -> None:
    ct = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16)
    pet = 10 * ct.astype(np.float32)
    sources = [ChannelSource("CT", 0, 4), ChannelSource("CT", 0, 8), ChannelSource("PET", 0, 40)]
    channels = slice_channels({"CT": ct, "PET": pet}, sources, 2, 1)
    assert channels.shape == (9, 2, 3)
    # slices 1, 2, 3: over 4, over 8, and tenfold over 40
    expected = [0.25, 0.5, 0.75, 0.125, 0.25, 0.375, 0.25, 0.5, 0.75]
    assert channels[:, 1, 2].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("z", "k", "expected"), [(0, 1, [0, 0, 1]), (4, 1, [3, 4, 4]), (0, 3, [0, 0, 0, 0, 1, 2, 3])]
)
def test_outermost_slices_are_repeated(z: int, k: int, expected: list[int]) -> None:
    ct = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    channels = slice_channels({"CT": ct}, [ChannelSource("CT", 0, 4)], z, k)
    assert (channels[:, 0, 0] * 4).tolist() == expected


def test_mask_of_the_centre_slice_zeroes_every_channel() -> None:
    ct = np.full((3, 2, 2), 4, np.int16)
    mask = np.array([[True, False], [False, False]])
    channels = slice_channels({"CT": ct}, [ChannelSource("CT", 0, 4)], 1, 1, mask)
    assert channels[:, 0, 0].tolist() == [1, 1, 1]
    assert channels.sum() == 3
    assert (ct == 4).all()  # the stored array is untouched


def test_identity_map_reproduces_the_image() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (2, 16, 32)).astype(np.float32)
    identity = plane_map((8.0, 16.0), 1.0, (16, 32))
    assert np.array_equal(warp(image, identity).numpy(), image)
    ids = np.arange(17 * 23, dtype=np.float32).reshape(1, 17, 23)
    assert np.array_equal(warp(ids, plane_map((8.5, 11.5), 1.0, (17, 23)), nearest=True).numpy(), ids)


def test_flip_mirrors_columns_and_outside_is_zero() -> None:
    image = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4)
    flipped = warp(image, plane_map((1.0, 2.0), 1.0, (2, 4), flip=True), nearest=True)[0]
    assert flipped.tolist() == [[4, 3, 2, 1], [8, 7, 6, 5]]
    padded = warp(image, plane_map((1.0, 2.0), 1.0, (4, 4)), nearest=True)[0]
    assert padded.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]


def test_shift_moves_the_content() -> None:
    image = np.zeros((1, 6, 6), np.float32)
    image[0, 2, 2] = 1
    moved = warp(image, plane_map((3.0, 3.0), 1.0, (6, 6), shift=(1.0, 2.0)), nearest=True)[0]
    assert np.argwhere(moved.numpy()).tolist() == [[3, 4]]


def test_map_by_hand() -> None:
    # twice as large, centred on (10, 20): detector (0, 0) is the corner 4 pixels = 2 voxels up and left of it
    mapping = plane_map((10.0, 20.0), 2.0, (8, 8))
    assert mapping.to_store(np.array([[0.0, 0.0], [4, 4], [8, 6]])).tolist() == [[8, 18], [10, 20], [12, 21]]
    assert mapping.boxes_to_store(np.array([[0.0, 2, 8, 6]])).tolist() == [[8, 19, 12, 21]]
    assert mapping.boxes_to_store(empty_boxes(2)).shape == (0, 4)
    # a quarter turn swaps the sides of a box
    turned = plane_map((0.0, 0.0), 1.0, (0, 0), rotation_degrees=90.0)
    assert turned.boxes_to_store(np.array([[1.0, 2, 3, 7]])) == pytest.approx(np.array([[-7.0, 1, -2, 3]]))


shifts = st.floats(-5, 5)


@given(st.floats(0.2, 6), shifts, shifts, st.booleans(), st.floats(-180, 180))
def test_to_store_and_back(scale: float, dy: float, dx: float, flip: bool, angle: float) -> None:
    mapping = plane_map((31.0, 27.5), scale, (64, 80), rotation_degrees=angle, flip=flip, shift=(dy, dx))
    points = np.array([[0.0, 0.0], [64, 80], [13.25, 70]])
    assert mapping.to_detector(mapping.to_store(points)) == pytest.approx(points, abs=1e-8)
    # the centre of the detector image, moved by the shift, shows the centre
    middle = np.array([[32.0 + dy, 40.0 + dx]])
    assert mapping.to_store(middle) == pytest.approx(np.array([[31.0, 27.5]]), abs=1e-8)


def warped_box(mapping_args: dict, box: tuple[int, int, int, int]) -> np.ndarray:
    """Box of a rectangle after its mask went to the detector and its box back to the store."""
    mask = np.zeros((1, 40, 48), np.float32)
    mask[0, box[0] : box[2], box[1] : box[3]] = 1
    size = (int(80 * mapping_args["scale"]), int(80 * mapping_args["scale"]))
    mapping = plane_map((20.0, 24.0), size=size, **mapping_args)
    seen = warp(mask, mapping, nearest=True)[0].numpy().astype(int)
    return mapping.boxes_to_store(boxes_from_instances(seen)[1])[0]


rectangles = st.tuples(st.integers(4, 16), st.integers(4, 20), st.integers(19, 34), st.integers(23, 40))


@given(rectangles, st.floats(1, 4), shifts, shifts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_box_of_a_warped_mask_is_the_mapped_box(
    box: tuple[int, int, int, int], scale: float, dy: float, dx: float, flip: bool
) -> None:
    found = warped_box({"scale": scale, "shift": (dy, dx), "flip": flip}, box)
    # an edge lies between two pixel centres, so it moves by half a pixel at most
    assert np.abs(found - np.array(box)).max() <= 0.5 / scale + 1e-3
    assert np.abs(found - np.array(box)).max() <= 0.501


@given(rectangles, st.floats(1, 3), st.floats(-180, 180), st.booleans())
@settings(max_examples=60, deadline=None)
def test_box_of_a_rotated_mask_contains_the_object(
    box: tuple[int, int, int, int], scale: float, angle: float, flip: bool
) -> None:
    found = warped_box({"scale": scale, "rotation_degrees": angle, "flip": flip}, box)
    inside = np.array(box) - found
    # half a diagonal pixel is lost where the tip of a corner holds no pixel centre
    tolerance = np.sqrt(2) / scale
    assert (inside[:2] >= -tolerance).all()
    assert (inside[2:] <= tolerance).all()


def _slow_channels(arrays, sources, z, k, mask):
    """Window whole slices one by one, then mask."""
    depth = next(iter(arrays.values())).shape[0]
    channels = [
        apply_window(arrays[s.modality][min(max(i, 0), depth - 1)], s.lower, s.upper)
        for s in sources
        for i in range(z - k, z + k + 1)
    ]
    return np.stack(channels) * (1 if mask is None else mask)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(0, 999))
def test_only_the_needed_part_is_windowed_and_nothing_else_changes(data, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(data.draw(st.tuples(*[st.integers(1, 7)] * 3)))
    arrays = {"CT": rng.integers(-300, 300, shape).astype(np.int16), "PET": rng.random(shape, np.float32)}
    sources = [ChannelSource("CT", -90, 111), ChannelSource("PET", 0.1, 0.7)]
    mask = data.draw(st.sampled_from([None, rng.random(shape[1:]) < 0.3, np.zeros(shape[1:], bool)]))
    z, k = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, 2))
    whole = slice_channels(arrays, sources, z, k, mask)
    slow = _slow_channels(arrays, sources, z, k, mask)
    assert whole.dtype == np.float32
    assert whole.tobytes() == slow.astype(np.float32).tobytes()  # to the bit: training must not change
    y0, x0 = data.draw(st.integers(0, shape[1] - 1)), data.draw(st.integers(0, shape[2] - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, shape[1])), data.draw(st.integers(x0 + 1, shape[2]))
    part = slice_channels(arrays, sources, z, k, mask, (y0, x0, y1, x1))
    assert part.tobytes() == np.ascontiguousarray(slow[:, y0:y1, x0:x1], np.float32).tobytes()


def test_windowing_leaves_the_store_alone():
    ct = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    kept = ct.copy()
    apply_window(ct[0], 0, 4)
    slice_channels({"CT": ct}, [ChannelSource("CT", 0, 4)], 0, 1, np.ones((2, 2), bool))
    assert np.array_equal(ct, kept)


class _Counted(np.ndarray):
    reads = 0

    def __getitem__(self, index):
        _Counted.reads += 1
        return np.asarray(super().__getitem__(index))


def test_windows_of_one_ct_read_it_once():
    ct = np.arange(40, dtype=np.int16).reshape(5, 2, 4)
    sources = [ChannelSource("CT", 0, 4), ChannelSource("CT", 10, 30)]
    _Counted.reads = 0
    channels = slice_channels({"CT": ct.view(_Counted)}, sources, 2, 1)
    assert _Counted.reads == 3  # the slice and its neighbours, not once more for the second window
    assert channels.tobytes() == _slow_channels({"CT": ct}, sources, 2, 1, None).tobytes()


maps = st.builds(
    lambda scale, dy, dx, flip, angle: plane_map(
        (9.0, 11.5), scale, (30, 36), rotation_degrees=angle, flip=flip, shift=(dy, dx)
    ),
    st.floats(0.5, 3), shifts, shifts, st.booleans(), st.floats(-180, 180),
)  # fmt: skip
corners = st.tuples(st.integers(0, 17), st.integers(0, 22), st.integers(1, 18), st.integers(1, 23))
PICTURE = np.random.default_rng(3).uniform(0.1, 1, (2, 18, 23)).astype(np.float32)


@given(maps, st.tuples(*[st.integers(-6, 20)] * 2), st.tuples(*[st.integers(1, 25)] * 2))
@settings(max_examples=60, deadline=None)
def test_a_part_shows_what_the_whole_shows_there(mapping, start, size) -> None:
    (y, x), (height, width) = start, size
    part = warp(PICTURE, mapping.part((y, x, y + height, x + width)))
    larger = mapping.part((-6, -6, 45, 45))
    whole = warp(PICTURE, larger)[:, y + 6 : y + 6 + height, x + 6 : x + 6 + width]
    np.testing.assert_allclose(part.numpy(), whole.numpy(), atol=2e-5)


def _filled(corner: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], np.ndarray]:
    box = min(corner[0], corner[2] - 1), min(corner[1], corner[3] - 1), corner[2], corner[3]
    y0, x0, y1, x1 = box
    image = np.zeros_like(PICTURE)
    image[:, y0:y1, x0:x1] = PICTURE[:, y0:y1, x0:x1]
    return box, image


@given(maps, corners)
@settings(max_examples=80, deadline=None)
def test_nothing_of_a_box_is_seen_outside_its_view(mapping, corner) -> None:
    box, image = _filled(corner)
    y0, x0, y1, x1 = mapping.view(box)
    shown = warp(image, mapping)
    inside = shown[:, y0:y1, x0:x1].clone()
    shown[:, y0:y1, x0:x1] = 0
    assert float(shown.max()) < 1e-4  # rounding of coordinates leaves a trace on the very edge
    # and the view is no larger than the hull of what can be seen, up to two pixels
    if mapping.matrix[0, 1] == 0 and inside.numel():
        rows = np.flatnonzero(inside.amax(dim=(0, 2)).numpy() > 0)
        assert len(rows) >= y1 - y0 - 2


@given(maps, corners)
@settings(max_examples=80, deadline=None)
def test_the_footprint_is_all_that_is_needed(mapping, corner) -> None:
    box, image = _filled(corner)
    y0, x0, y1, x1 = mapping.footprint(box)
    if y0 == y1 or x0 == x1:
        assert float(warp(image, mapping).max()) < 1e-4
        return
    assert box[0] <= y0 <= y1 <= box[2]
    assert box[1] <= x0 <= x1 <= box[3]
    cropped = warp(image[:, y0:y1, x0:x1], mapping.cropped((y0, x0)))
    np.testing.assert_allclose(cropped.numpy(), warp(image, mapping).numpy(), atol=2e-5)


def test_view_and_footprint_by_hand() -> None:
    """Twofold, centred on (10, 20): detector (r, c) is store (6 + r / 2, 16 + c / 2)."""
    mapping = plane_map((10.0, 20.0), 2.0, (16, 16))
    assert mapping.view((8, 18, 10, 19)) == (3, 3, 9, 7)  # 2 * (8 - 6) - 1, 2 * (10 - 6) + 1
    assert mapping.view((0, 0, 40, 40)) == (0, 0, 16, 16)
    assert mapping.view((30, 18, 32, 19))[::2] == (16, 16)  # no row of it is seen
    assert mapping.footprint((0, 0, 40, 40)) == (5, 15, 15, 25)
    assert mapping.footprint((7, 17, 9, 30)) == (7, 17, 9, 25)
    assert mapping.boxes_to_detector(np.array([[8.0, 18, 10, 19]])).tolist() == [[4, 4, 8, 6]]


def test_half_a_turn_twice_changes_nothing() -> None:
    image = np.random.default_rng(1).uniform(0, 1, (1, 31, 44)).astype(np.float32)
    turn = plane_map((15.5, 22.0), 1.0, (31, 44), rotation_degrees=180.0)
    once = warp(image, turn)
    np.testing.assert_allclose(once.numpy(), image[:, ::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(warp(once.numpy(), turn).numpy(), image, atol=2e-5)
    ids = np.arange(31 * 44, dtype=np.float32).reshape(1, 31, 44)
    assert np.array_equal(warp(warp(ids, turn, nearest=True).numpy(), turn, nearest=True).numpy(), ids)
